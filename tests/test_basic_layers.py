"""Linear, Activation, Embedding and Dropout.

Letters: T time steps, N batch, D input features, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_reference import assert_gradients_match_differences

from fastrnn.layers import Activation, Dropout, Embedding, LastStep, Linear, MaxPool, MeanPool, Module, build

T, N, D, H, M, V = 6, 4, 3, 5, 2, 7


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def check_differences(layer: Module, x: np.ndarray, dy: np.ndarray, **kwargs: Any) -> None:
    """dx and all parameter gradients of a layer against finite differences of sum(y * dy)."""
    floats = {"x": x} if x.dtype.kind == "f" else {}
    inputs = floats | {name: param.copy() for name, param in layer.params.items()}

    def forward(inputs, **training):
        layer.load_state_dict({name: inputs[name] for name in layer.params})
        return layer(inputs.get("x", x), **kwargs, **training)

    layer.zero_grad()
    forward(inputs, training=True)
    dx = layer.backward(dy)
    assert (dx is None) == (not floats)
    grads = ({"x": dx} if floats else {}) | {name: grad.copy() for name, grad in layer.grads.items()}
    assert_gradients_match_differences(lambda inputs: (forward(inputs) * dy).sum(), inputs, grads)


# --- Linear -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@every_dtype
def test_linear_agrees_with_torch(dtype, bias):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(D, M, bias=bias, dtype=getattr(torch, dtype))
    layer = Linear(D, M, bias=bias, dtype=dtype)
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    x, dy = normal(T, N, D, dtype=dtype), normal(T, N, M, dtype=dtype)
    y = layer(x, training=True)
    dx = layer.backward(dy)
    module = module.double()
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = module(inputs)
    expected.backward(torch.tensor(dy, dtype=torch.float64))
    assert_output_close(y, expected.detach().numpy(), dtype)
    assert_gradient_close(dx, inputs.grad.numpy(), dtype)
    for name, param in module.named_parameters():
        assert_gradient_close(layer.grads[name], param.grad.numpy(), dtype, name)


@pytest.mark.parametrize("lead", [(), (N,), (T, N)])
def test_linear_gradients(lead):
    check_differences(Linear(D, M, dtype=np.float64, rng=0), normal(*lead, D), normal(*lead, M))


def test_linear_gradients_add_up_and_strided_arrays_will_do():
    layer = Linear(D, M, rng=0)
    x, dy = normal(T, N, D, dtype="f4"), normal(T, N, M, dtype="f4")
    layer(x, training=True)
    layer.backward(dy)
    once = {name: grad.copy() for name, grad in layer.grads.items()}
    y = layer(x.swapaxes(0, 1).copy().swapaxes(0, 1), training=True)
    layer.backward(dy.swapaxes(0, 1).copy().swapaxes(0, 1))
    np.testing.assert_array_equal(y, layer(x))
    for name, grad in layer.grads.items():
        assert_gradient_close(grad, 2 * once[name], "float32", name)


def test_linear_starts_as_in_torch():
    layer = Linear(100, 80, rng=0)
    for name, param in layer.params.items():
        assert 0.085 < np.abs(param).max() <= 0.1, name
        assert abs(param.var() / (0.1**2 / 3) - 1) < 5 / np.sqrt(param.size), name


def test_linear_errors():
    layer = Linear(D, M)
    with pytest.raises(ValueError, match=r"^x: expected shape \(.*, 3\), got \(4, 4\)$"):
        layer(np.zeros((N, D + 1), np.float32))
    with pytest.raises(TypeError, match="^x: expected real numbers, got complex128$"):
        layer(np.zeros((N, D), complex))
    layer(np.zeros((N, D), np.float32), training=True)
    with pytest.raises(ValueError, match="^dy: expected shape .*, got "):
        layer.backward(np.zeros((N, M + 1), np.float32))
    layer.backward(np.zeros((N, M), np.float32))  # a refused backward can be repeated


# --- Activation -------------------------------------------------------------------------------------------------------

ACTIVATIONS = ["sigmoid", "tanh", "relu", "softmax", "identity"]
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


@every_activation
def test_activation_gradients(name):
    x = normal(T, N, H)
    x += np.where(x < 0, -0.1, 0.1)  # differences do not reach across relu's corner at 0
    check_differences(Activation(name), x, normal(T, N, H, seed=1))


@every_activation
@every_dtype
def test_activation_values(name, dtype):
    x = 3 * normal(N, H, dtype=dtype)
    a = x.astype(np.float64)
    expected = {
        "sigmoid": 1 / (1 + np.exp(-a)),
        "tanh": np.sinh(a) / np.cosh(a),
        "relu": np.where(a > 0, a, 0),
        "softmax": np.exp(a) / np.exp(a).sum(axis=1, keepdims=True),
        "identity": a,
    }[name]
    assert_output_close(Activation(name)(x), expected, dtype)


@every_dtype
def test_activations_saturate(dtype):
    """Nothing overflows or warns, and small values keep their relative accuracy."""
    x = np.array([-np.inf, -20000, -50, 0, 50, 20000, np.inf], dtype)
    with np.errstate(all="raise", under="ignore"):
        sigmoid = Activation("sigmoid")(x)
        relu = Activation("relu")(x)
        softmax = Activation("softmax")(x[1:-1])
    np.testing.assert_array_equal(sigmoid[[0, 1, 3, 5, 6]], np.array([0, 0, 0.5, 1, 1], dtype))
    np.testing.assert_allclose(sigmoid[2], np.exp(-50.0), rtol=1e-6)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))
    np.testing.assert_array_equal(softmax, np.array([0, 0, 0, 0, 1], dtype))


@every_activation
def test_activations_keep_nan_in_its_row(name):
    x = normal(2, 3)
    x[0, 1] = np.nan
    y = Activation(name)(x)
    assert np.isnan(y[0, 1]) and not np.isnan(y[1]).any()


def test_activation_errors():
    with pytest.raises(ValueError, match="^name: expected one of 'sigmoid', .*, got 'gelu'$"):
        Activation("gelu")
    with pytest.raises(TypeError, match="^x: expected float32 or float64, got int64$"):
        Activation("relu")(np.arange(3))
    with pytest.raises(TypeError, match="^x: expected a NumPy array, got list$"):
        Activation("relu")([1.0])
    layer = Activation("tanh")
    layer(np.zeros(3), training=True)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(3,\), got \(4,\)$"):
        layer.backward(np.zeros(4))


# --- Embedding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["i8", "u1", "i4"])
@pytest.mark.parametrize("lead", [(), (N,), (T, N), (2, T, N), (0, N)])
def test_embedding_equals_one_hot_times_weight(lead, kind):
    layer = Embedding(V, D, dtype=np.float64, rng=0)
    x = np.random.default_rng(1).integers(0, V - 1, lead).astype(kind)  # the last token never comes
    one_hot = (x[..., None] == np.arange(V)).astype(np.float64)
    y = layer(x, training=True)
    assert y.shape == (*lead, D)
    np.testing.assert_array_equal(y, one_hot @ layer.params["weight"])
    dy = normal(*lead, D, seed=2)
    assert layer.backward(dy) is None
    expected = one_hot.reshape(-1, V).T @ dy.reshape(-1, D)
    np.testing.assert_allclose(layer.grads["weight"], expected, rtol=0, atol=1e-12)
    layer(x, training=True)
    layer.backward(dy)
    np.testing.assert_allclose(layer.grads["weight"], 2 * expected, rtol=0, atol=1e-12)


def test_embedding_agrees_with_torch():
    torch = pytest.importorskip("torch")
    module = torch.nn.Embedding(V, D, dtype=torch.float64)
    layer = Embedding(V, D, dtype=np.float64)
    layer.load_state_dict({name: value.numpy() for name, value in module.state_dict().items()})
    x, dy = np.random.default_rng(1).integers(0, V, (T, N)), normal(T, N, D)
    y = layer(x, training=True)
    layer.backward(dy.swapaxes(0, 1).copy().swapaxes(0, 1))
    expected = module(torch.tensor(x))
    expected.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, expected.detach().numpy())
    assert_gradient_close(layer.grads["weight"], module.weight.grad.numpy(), "float64")


def test_embedding_starts_normal():
    weight = Embedding(200, 50, rng=0).params["weight"]
    assert abs(weight.mean()) < 0.05 and abs(weight.std() - 1) < 0.04 and np.abs(weight).max() > 3


@pytest.mark.parametrize(
    "x, error, message",
    [
        (np.array([[0, 3], [7, 1]]), IndexError, "x: expected tokens 0..6, got 7"),
        (np.array([2, -1, 9]), IndexError, "x: expected tokens 0..6, got -1"),
        (np.array([2**40]), IndexError, "x: expected tokens 0..6, got 1099511627776"),
        (np.array([1.0, 2.0]), TypeError, "x: expected integer tokens, got float64"),
        (np.array([True, False]), TypeError, "x: expected integer tokens, got bool"),
        ("text", TypeError, "x: expected integer tokens, got <U4"),
    ],
)
def test_embedding_errors(x, error, message):
    with pytest.raises(error) as caught:
        Embedding(V, D)(x)
    assert str(caught.value) == message


def test_embedding_backward_shape():
    layer = Embedding(V, D)
    layer(np.arange(V), training=True)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(7, 3\), got \(6, 3\)$"):
        layer.backward(np.zeros((V - 1, D), np.float32))


# --- Dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@every_dtype
def test_dropout_statistics_and_gradient(dtype, p):
    layer = Dropout(p, rng=0)
    x = 1 + np.abs(normal(50, 40, 30, dtype=dtype))
    y = layer(x, training=True)
    assert y.dtype == dtype
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], (x / (1 - p))[~dropped], rtol=1e-6)
    noise = np.sqrt(p * (1 - p))
    assert abs(dropped.mean() - p) < 5 * noise / np.sqrt(x.size)
    for axis in range(3):  # no axis is dropped as a whole
        share = dropped.mean(axis=tuple(k for k in range(3) if k != axis))
        assert np.abs(share - p).max() < 6 * noise / np.sqrt(x.size / x.shape[axis])
    dy = normal(*x.shape, seed=1, dtype=dtype)
    np.testing.assert_allclose(layer.backward(dy), np.where(dropped, 0, dy / (1 - p)), rtol=1e-6)
    assert not np.array_equal(layer(x, training=True) == 0, dropped)


def test_dropout_is_the_identity_in_inference_and_at_zero():
    x = normal(N, D)
    np.testing.assert_array_equal(Dropout(0.9)(x), x)
    layer = Dropout(0.0)
    np.testing.assert_array_equal(layer(x, training=True), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_dropout_leaves_a_given_generator_to_others():
    """Two layers given one Generator draw apart, and drawing from them does not move it."""
    rng = np.random.default_rng(0)
    one, two = Dropout(rng=rng), Dropout(rng=rng)
    before = rng.bit_generator.state
    x = np.ones(1000)
    assert not np.array_equal(one(x, training=True), two(x, training=True))
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("p", [1.0, -0.1, float("nan")])
def test_dropout_errors(p):
    with pytest.raises(ValueError, match="^p: expected a probability 0 <= p < 1, got"):
        Dropout(p)
    with pytest.raises(TypeError, match="^x: expected a NumPy array, got list$"):
        Dropout()([1.0], training=True)
    layer = Dropout()
    layer(np.zeros((2, 3)), training=True)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(2, 3\), got \(3, 2\)$"):
        layer.backward(np.zeros((3, 2)))


# --- Every layer ------------------------------------------------------------------------------------------------------

BASIC = [
    Linear(3, 2),
    Activation("softmax"),
    Embedding(5, 3),
    Dropout(0.3),
    LastStep(batch_first=True),
    MeanPool(),
    MaxPool(batch_first=True),
]


@pytest.mark.parametrize("layer", BASIC, ids=repr)
def test_backward_needs_a_training_call_and_config_rebuilds(layer):
    x = np.zeros((2, 4, 3), np.float32) if not isinstance(layer, Embedding) else np.zeros((2, 4), int)
    y = layer(x)
    message = f"^{type(layer).__name__}.backward: expected a call with training=True before each backward, got none"
    with pytest.raises(RuntimeError, match=message):
        layer.backward(y)
    layer(x, training=True)
    layer(x)
    layer.backward(y)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(y)
    again = build(json.loads(json.dumps(layer.config())))
    assert type(again) is type(layer) and repr(again) == repr(layer) == repr(eval(repr(layer)))
