"""What RNN, GRU and LSTM layers say of wrong arguments, wrong calls and backward out of turn.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_cases import LAYERS, D, H, N, T, every_layer, joined, parts, random_arguments, run

from fastrnn.layers import GRU, LSTM, RNN, build


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((0, H), {}, ValueError, "input_size: expected a whole number of at least 1, got 0"),
        ((D, -2), {}, ValueError, "hidden_size: expected a whole number of at least 1, got -2"),
        ((D, 2.5), {}, TypeError, "hidden_size: expected a whole number, got 2.5"),
        ((D, True), {}, ValueError, "hidden_size: expected a whole number of at least 1, got True"),
        ((D, H, 0), {}, ValueError, "num_layers: expected a whole number of at least 1, got 0"),
        ((D, H), {"dropout": 1.0}, ValueError, "dropout: expected a probability 0 <= p < 1, got 1.0"),
        ((D, H), {"dropout": float("nan")}, ValueError, "dropout: expected a probability 0 <= p < 1, got nan"),
        ((D, H), {"dropout": "half"}, TypeError, "dropout: expected a probability, got 'half'"),
        ((D, H), {"dtype": np.float16}, TypeError, "dtype: expected float32 or float64, got float16"),
        ((D, H), {"dtype": "floating"}, TypeError, "dtype: expected float32 or float64, got 'floating'"),
        ((D, H), {"init": "zeros"}, ValueError, "init: expected one of 'uniform', 'orthogonal', got 'zeros'"),
        ((D, H), {"rng": "seed"}, TypeError, "rng: expected None, a whole number or a numpy Generator, got 'seed'"),
        ((D, H), {"rng": -1}, ValueError, "rng: expected a seed of at least 0, got -1"),
    ],
)
@every_layer
def test_bad_constructor_arguments(kind, arguments, options, error, message):
    with pytest.raises(error) as caught:
        LAYERS[kind](*arguments, **options)
    assert str(caught.value) == message


def test_unknown_nonlinearity():
    with pytest.raises(ValueError, match="^nonlinearity: expected one of 'tanh', .*, got 'softplus'$"):
        RNN(D, H, nonlinearity="softplus")


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda la: la([["a"] * D]),
            TypeError,
            "x: expected real numbers, got <U1; encode words or classes as numbers",
        ),
        (lambda la: la(zeros(T, N, D + 1)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (7, 3, 6)"),
        (lambda la: la(zeros(D)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (5,)"),
        (lambda la: la(zeros(2, T, N, D)), ValueError, "x: expected shape (N, T, 5) or (T, 5), got (2, 7, 3, 5)"),
        (lambda la: la(zeros(N, T, D), zeros(2, N, H)), TypeError, "state: expected a tuple (h, c), got ndarray"),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H),)),
            TypeError,
            "state: expected a tuple (h, c), got a tuple of 1",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), zeros(1, N, H))),
            ValueError,
            "c of state: expected shape (2, 3, 6), got (1, 3, 6)",
        ),
        (
            lambda la: la(zeros(T, D), (zeros(2, N, H), zeros(2, N, H))),
            ValueError,
            "h of state: expected shape (2, 6), got (2, 3, 6)",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), zeros(2, N, H, dtype="f8"))),
            TypeError,
            "c of state: expected float32 like the parameters, got float64",
        ),
        (
            lambda la: la(zeros(N, T, D), (zeros(2, N, H), "c")),
            TypeError,
            "c of state: expected a NumPy array, got str",
        ),
    ],
)
def test_bad_call(call, error, message):
    layer = LSTM(D, H, bidirectional=True, batch_first=True)
    with pytest.raises(error) as caught:
        call(layer)
    assert str(caught.value) == message


@every_layer
def test_wrong_dtype(kind):
    layer = LAYERS[kind](D, H)
    with pytest.raises(TypeError, match="^x: expected real numbers, got complex128$"):
        layer(zeros(T, N, D, dtype="c16"))


def test_state_of_a_one_state_layer():
    layer = GRU(D, H)
    for state, error, message in [
        (zeros(2, N, H), ValueError, "state: expected shape (1, 3, 6), got (2, 3, 6)"),
        ((zeros(1, N, H), zeros(1, N, H)), TypeError, "state: expected a NumPy array, got a tuple of 2"),
    ]:
        with pytest.raises(error) as caught:
            layer(zeros(T, N, D), state)
        assert str(caught.value) == message


@every_layer
def test_backward_needs_a_training_call_and_uses_it_up(kind):
    layer = LAYERS[kind](D, H, rng=1)
    x, state, doutput, _dstate = random_arguments(layer)
    message = f"^{type(layer).__name__}.backward: expected a call with training=True before each backward, got none"
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)
    layer(x, state)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)
    layer(x, state, training=True)
    layer.backward(doutput)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(doutput)


@every_layer
def test_a_refused_backward_can_be_repeated(kind):
    layer = LAYERS[kind](D, H, 2, batch_first=True, rng=1)
    x, state, doutput, dstate = random_arguments(layer)
    expected = run(layer, x, state, doutput, dstate)
    layer.zero_grad()
    layer(x, state, training=True)
    for bad, error, message in [
        (doutput[:, :-1], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(3, 6, 6\)"),
        (doutput[:-1], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(2, 7, 6\)"),
        (doutput[0], ValueError, r"doutput: expected shape \(3, 7, 6\) like output, got \(7, 6\)"),
        (doutput[..., 1:], ValueError, r"doutput: expected shape \(N, T, 6\) or \(T, 6\), got \(3, 7, 5\)"),
        (doutput.astype("f8"), TypeError, "doutput: expected float32 like output, got float64"),
        (1.0, TypeError, "doutput: expected a NumPy array, got float"),
    ]:
        with pytest.raises(error, match=f"^{message}$"):
            layer.backward(bad, dstate)
    with pytest.raises(ValueError, match="dstate_n: expected shape"):
        layer.backward(doutput, joined(a[:1] for a in parts(dstate)))
    layer.backward(doutput, dstate)
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, expected["d" + name])


@every_layer
def test_nan_stays_in_its_batch_row(kind):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    x, state, *_ = random_arguments(layer)
    clean, _ = layer(x, state)
    x[2, 1, 0] = np.nan
    output, _ = layer(x, state)
    np.testing.assert_array_equal(output[:, [0, 2]], clean[:, [0, 2]])
    assert np.isnan(output[:, 1]).all()


def test_build_refuses_an_unknown_class():
    with pytest.raises(ValueError, match="^class: expected a layer of fastrnn or a subclass .*, got 'Nope'$"):
        build({"class": "Nope"})
