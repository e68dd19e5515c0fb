"""The forms of recurrent networks in texts: autonomous, one vector to a sequence, sequence to vector to sequence.

Letters: T time steps, N batch, D features, H hidden size.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import every_dtype

import fastrnn

N, D, H = 3, 4, 5


@pytest.mark.parametrize("batch_first", [False, True])
@every_dtype
def test_repeat(dtype, batch_first):
    layer = fastrnn.Repeat(6, batch_first=batch_first)
    x = np.random.default_rng(0).standard_normal((N, D)).astype(dtype)
    y = layer(x, training=True)
    assert y.shape == ((N, 6, D) if batch_first else (6, N, D)) and y.dtype == dtype
    for t in range(6):
        np.testing.assert_array_equal(y[:, t] if batch_first else y[t], x)
    np.testing.assert_array_equal(layer.backward(np.ones_like(y)), np.full_like(x, 6))
    np.testing.assert_array_equal(layer(x[0]), np.stack([x[0]] * 6))


def test_repeat_refuses():
    with pytest.raises(ValueError, match="steps: expected"):
        fastrnn.Repeat(0)
    with pytest.raises(ValueError, match=r"x: expected an array of shape \(N, D\)"):
        fastrnn.Repeat(2)(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="such as LastStep.*before layer 1 .Repeat.*got layer 0 .GRU"):
        fastrnn.Sequential(fastrnn.GRU(D, H), fastrnn.Repeat(3))


def test_repeat_does_not_stream():
    with pytest.raises(ValueError, match="Repeat: expected a layer that reads step by step"):
        fastrnn.Sequential(fastrnn.Repeat(3), fastrnn.GRU(D, H)).stream()


@pytest.mark.parametrize("batch_first", [False, True])
def test_from_one_vector_to_a_sequence(batch_first):
    """Trained samples first in both layouts: a frequency to the wave that has it."""
    frequency = np.random.default_rng(0).uniform(0.2, 0.6, (256, 1)).astype(np.float32)
    wave = np.sin(frequency * np.arange(12, dtype=np.float32))[:, :, None]
    model = fastrnn.Sequential(
        fastrnn.Linear(1, 16, rng=0),
        fastrnn.Repeat(12, batch_first=batch_first),
        fastrnn.GRU(16, 24, batch_first=batch_first, rng=1),
        fastrnn.Linear(24, 1, rng=2),
    )
    trainer = fastrnn.Trainer(model, loss="mse", optimizer=fastrnn.Adam(lr=1e-2), clip_norm=1.0)
    trainer.fit(frequency, wave, epochs=25, batch_size=32, progress=False)
    assert trainer.predict(frequency).shape == (256, 12, 1)
    assert trainer.evaluate(frequency, wave)["loss"] < 0.02 * np.var(wave)


def test_sequence_autoencoder_gradients():
    model = fastrnn.Sequential(fastrnn.LSTM(D, H), fastrnn.LastStep(), fastrnn.Repeat(3), fastrnn.GRU(H, D))
    assert model.time.in_y and model.time.in_x
    assert fastrnn.check_gradients(model, np.random.default_rng(0).standard_normal((4, N, D)))
    with pytest.raises(ValueError, match="expected no layer that reads time after layer 1"):
        fastrnn.Sequential(fastrnn.LSTM(D, H), fastrnn.LastStep(), fastrnn.GRU(H, D))
