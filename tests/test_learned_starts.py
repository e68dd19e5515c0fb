"""Resets of layers with a learned initial state, and episodes of both directions.

Letters: N batch, T time steps, D features, H hidden size.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Linear, Sequential, Trainer

RNG = np.random.default_rng(0)
N, T, D, H = 3, 5, 2, 4


def learned(make, **options):
    layer = make(D, H, 2, learn_initial_state=True, dtype="float64", rng=3, **options)
    for name, value in layer.params.items():
        if name.startswith("initial"):
            value[...] = RNG.standard_normal(value.shape)
    return layer


def marks(lengths):
    mask = RNG.random((T, N)) < 0.4
    mask[0, 0] = mask[2, 0] = True
    return mask, lengths


@pytest.mark.parametrize("lengths", [None, np.array([5, 0, 3])], ids=["full", "ragged"])
@pytest.mark.parametrize("make", [RNN, GRU, LSTM, lambda *a, **k: LSTM(*a, proj_size=3, peephole=True, **k)])
def test_a_reset_goes_to_the_learned_state_as_in_a_stream(make, lengths):
    layer = learned(make)
    x, (mask, lengths) = RNG.standard_normal((T, N, D)), marks(lengths)
    given = layer(x[:2])[1]
    for state in (None, given):
        output, state_n = layer(x, state, lengths=lengths, reset_mask=mask)
        steps = np.full(N, T) if lengths is None else lengths
        stream, last = layer.stream(N), [None] * N
        stream.state = state
        for t in range(T):
            stream.reset(mask[t])
            y = stream.step(x[t])
            np.testing.assert_allclose(output[t, steps > t], y[steps > t], rtol=1e-12, atol=1e-14)
            assert not output[t, steps <= t].any()
            for n in np.flatnonzero(steps == t + 1):
                last[n] = fastrnn._state.take_rows(stream.state, [n])
        for n in np.flatnonzero(steps == 0):  # no step, no reset
            last[n] = fastrnn._state.take_rows(layer.stream(N).state if state is None else state, [n])
        for n, wanted in enumerate(last):
            for a, b in zip(*map(fastrnn._state.flatten, (fastrnn._state.take_rows(state_n, [n]), wanted))):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("make", [RNN, GRU, LSTM])
def test_gradients_of_resets_reach_the_learned_state(make, both, batch_first):
    layer = learned(make, bidirectional=both, batch_first=batch_first)
    x = RNG.standard_normal((N, T, D) if batch_first else (T, N, D))
    state = fastrnn._state.map(lambda a: a + 0.5, layer(x)[1])
    for lengths in (None, np.array([5, 0, 3])):
        mask, _ = marks(None)
        for start in (None, state):
            fastrnn.check_gradients(layer, x, start, lengths=lengths, reset_mask=mask)
    layer.zero_grad()
    _, state_n = layer(x, state, reset_mask=np.ones((T, N), bool), training=True)
    _, dstate0 = layer.backward(None, state_n)
    for part, name in zip(fastrnn._state.flatten(dstate0), layer.states):
        assert not part[::2].any() if both else not part.any()  # all starts are marked: nothing reaches what was given
        assert layer.grads[f"initial_{name}"].any()


def test_episodes_of_a_bidirectional_layer_are_sequences_of_their_own():
    layer = learned(GRU, bidirectional=True)
    x, mask = RNG.standard_normal((T, N, D)), np.zeros((T, N), bool)
    mask[3] = True
    output, h_n = layer(x, reset_mask=mask)
    first, h_first = layer(x[:3])
    second, h_second = layer(x[3:])
    np.testing.assert_allclose(output, np.concatenate([first, second]), rtol=1e-12)
    np.testing.assert_allclose(h_n[::2], h_second[::2], rtol=1e-12)
    np.testing.assert_allclose(h_n[1::2], h_first[1::2], rtol=1e-12)
    one, _ = layer(x[:, 0], reset_mask=mask[:, :1])  # without a batch axis
    np.testing.assert_allclose(one, output[:, 0], rtol=1e-12)
    y, h = layer(None, h_n, steps=4, reset_mask=mask[:4])
    layer.zero_grad()
    layer(None, h_n, steps=4, reset_mask=mask[:4], training=True)
    assert layer.backward(y, h)[0] is None
    dropped = learned(LSTM, dropout=0.5)
    fastrnn.check_gradients(dropped, x, reset_mask=mask)
    trainer = Trainer(
        Sequential(GRU(D, H, batch_first=True, learn_initial_state=True), Linear(H, 2), rng=0), loss="mse"
    )
    data = RNG.standard_normal((4, T, D))
    trainer.fit(data, data, reset_mask=np.tile(mask[:, :1].T, (4, 1)), epochs=1, progress=False)
    assert trainer.model.grads["0.initial_h"].any()


@pytest.mark.parametrize("both", [False, True])
def test_masked_steps_within_episodes_carry_the_learned_state(both):
    layer = learned(LSTM, bidirectional=both)
    x, (mask, _) = RNG.standard_normal((T, N, D)), marks(None)
    real = RNG.random((T, N)) < 0.6
    fastrnn.check_gradients(layer, x, reset_mask=mask, mask=real) if not both else None
    output, _ = layer(x, reset_mask=mask, mask=real)
    trace = layer.trace(x, reset_mask=mask, mask=real)
    np.testing.assert_allclose(trace.output, output, rtol=1e-12, atol=1e-14)
