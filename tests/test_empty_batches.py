"""Batches of no sequences give empty results, and gradients of zero.

Letters: N batch, T time steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Embedding, Jordan, LastStep, Linear, MaxPool, MeanPool, Sequential, Trainer

T, D, H, V = 5, 2, 4, 7


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "make, width",
    [
        (lambda **k: RNN(D, H, **k), H),
        (lambda **k: GRU(D, H, 2, bidirectional=True, **k), 2 * H),
        (lambda **k: LSTM(D, H, proj_size=3, learn_initial_state=True, **k), 3),
        (lambda **k: Jordan(D, H, 3, **k), 3),
    ],
)
def test_an_empty_batch_gives_an_empty_output(make, width, batch_first):
    layer = make(batch_first=batch_first, rng=0)
    shape = (0, 4) if batch_first else (4, 0)
    x = np.zeros((*shape, D), np.float32)
    lengths = np.zeros(0, int)
    for options in ({}, {"lengths": lengths}, {"reset_mask": np.zeros((4, 0), bool)}):
        y, state = layer(x, training=True, **options)
        assert y.shape == (*shape, width) and y.dtype == np.float32
        full = layer(np.zeros((4, 4, D), np.float32))[1]
        for part, other in zip(*map(fastrnn._state.flatten, (state, full))):
            assert part.shape == (len(other), 0, other.shape[2])
        dx, dstate0 = layer.backward(y, state)
        assert dx.shape == x.shape
        assert [a.shape for a in fastrnn._state.flatten(dstate0)] == [a.shape for a in fastrnn._state.flatten(state)]
    assert not any(grad.any() for grad in layer.grads.values())
    with pytest.raises(ValueError, match="lengths: expected shape"):
        layer(x, lengths=np.zeros(1, int))
    with pytest.raises(ValueError, match="state: expected shape"):
        layer(x, fastrnn._state.map(lambda a: np.zeros((len(a), 1, a.shape[2]), a.dtype), state))


@pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])
def test_whole_models_take_empty_batches(pool):
    model = Sequential(Linear(D, D), LSTM(D, H, batch_first=True), pool(batch_first=True), Linear(H, 2), rng=0)
    for lengths in (None, np.zeros(0, int)):
        y = model(np.zeros((0, T, D), np.float32), lengths=lengths, training=True)
        assert y.shape == (0, 2)
        assert model.backward(y).shape == (0, T, D)
    assert Trainer(model).predict(np.zeros((0, T, D))).shape == (0, 2)
    tagger = Trainer(Sequential(GRU(D, H, batch_first=True), Linear(H, 2), rng=0))
    assert tagger.predict(np.zeros((0, T, D))).shape == (0, T, 2)
    assert Sequential(Embedding(V, D), GRU(D, H), rng=0)(np.zeros((T, 0), int)).shape == (T, 0, H)
