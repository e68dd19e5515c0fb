"""Autonomous recurrence of the built-in layers, s_t = f(s_{t-1}): layer(None, state, steps=T).

It is the recurrence on an input of zeros, whatever weight_ih holds. Letters: T time steps, N batch, H hidden size.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

T, N, D, H = 5, 3, 2, 4
LAYERS = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def make(kind, **options):
    layer = LAYERS[kind](D, H, dtype="float64", rng=0, **options)
    rng = np.random.default_rng(1)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    state = tuple(rng.standard_normal((rows, N, H)) for _ in layer.states)
    return layer, state if len(state) > 1 else state[0]


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}], ids=repr)
@every_layer
def test_equals_inputs_of_zero(kind, options):
    layer, state = make(kind, **options)
    output, state_n = layer(None, state, steps=T, training=True)
    dx, dstate0 = layer.backward(np.ones_like(output))
    assert dx is None
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    x = np.zeros((N, T, D) if layer.batch_first else (T, N, D))
    expected, expected_n = layer(x, state, training=True)
    _, dexpected0 = layer.backward(np.ones_like(expected))
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip((*parts(state_n), *parts(dstate0)), (*parts(expected_n), *parts(dexpected0))):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-12, atol=1e-12, err_msg=name)


@every_layer
def test_gradients(kind):
    layer, state = make(kind)
    assert fastrnn.check_gradients(layer, None, state, steps=T)


@every_layer
def test_without_a_state_it_starts_from_zeros(kind):
    layer, state = make(kind)
    zeros = tuple(np.zeros_like(s[:, :1]) for s in parts(state))
    output, _ = layer(None, steps=T)
    expected, _ = layer(None, zeros if len(zeros) > 1 else zeros[0], steps=T)
    assert output.shape == (T, 1, H)
    np.testing.assert_array_equal(output, expected)


@every_layer
def test_needs_steps_or_an_input(kind):
    layer, state = make(kind)
    for x, steps in [(None, None), (np.zeros((T, N, D)), T), (None, 0)]:
        with pytest.raises(ValueError, match="steps: expected"):
            layer(x, state, steps=steps)
