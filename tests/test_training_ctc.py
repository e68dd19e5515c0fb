"""CTC through the trainer: it learns to spell, in segments and with weights too. Letters: N samples, T time steps."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_cases import classifier, fit

from fastrnn import GRU, SGD, Adam, Linear, Sequential, Trainer


def spoken(N=24, seed=0):
    """Frames that spell labels: each label is held for a few frames, with blanks between."""
    rng = np.random.default_rng(seed)
    frames, labels = [], []
    for _ in range(N):
        said = rng.integers(1, 4, rng.integers(1, 5))
        rows = [np.eye(4)[m] for m in said for m in [m] * rng.integers(1, 4) + [0]]
        frames.append(np.array(rows) + 0.1 * rng.standard_normal((len(rows), 4)))
        labels.append(said)
    return frames, labels


@pytest.mark.parametrize("batch_first", [False, True])
def test_learns_to_spell(batch_first):
    frames, labels = spoken()
    model = Sequential(GRU(4, 16, batch_first=batch_first, rng=0), Linear(16, 4, rng=1))
    trainer = Trainer(model, "ctc", Adam(lr=0.02))
    history = trainer.fit(frames, labels, epochs=25, batch_size=8, progress=False, validation_split=0.2)
    assert history["loss"][-1] < 0.2 < 1 < history["loss"][0]
    assert history["val_loss"][-1] < 0.5
    said = []
    for frame in trainer.predict(frames[:5]):
        path = frame.argmax(-1)
        said.append([m for t, m in enumerate(path) if m and (not t or path[t - 1] != m)])
    assert said == [list(row) for row in labels[:5]]


def test_ctc_in_segments_and_with_weights():
    frames, labels = spoken(8)
    trained = []
    for option in ({}, {"checkpoint_every": 3}):
        model = Sequential(GRU(4, 6, rng=0, dtype="f8"), Linear(6, 4, rng=1, dtype="f8"))
        trainer = Trainer(model, "ctc", SGD(lr=0.1), **option)
        trained.append(fit(trainer, frames, labels, sample_weight=np.arange(8)))
    for name, param in trained[0].model.params.items():
        np.testing.assert_allclose(trained[1].model.params[name], param, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="tbptt: expected None with ctc"):
        Trainer(model, "ctc", tbptt=3)
    with pytest.raises(ValueError, match="partial_fit: expected a loss of single steps, got ctc"):
        trainer.partial_fit(np.zeros(4), [1])
    with pytest.raises(ValueError, match="loss: expected a model with an output at every step for ctc"):
        Trainer(classifier(), "ctc")
