"""Output feedback in the reference: by hand, differences, lengths and resets, autograd; errors of both twins.

Letters: T time steps, N batch, D input_size, H hidden_size, M outputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from test_reference_variants import assert_gradients_match_differences

from fastrnn import functional, reference

NAMES = ["x", "y0", "weight_ih", "weight_yh", "bias_h", "weight_hy", "bias_y"]
T, N, D, H, M = 4, 3, 2, 4, 3
FORMS = [("tanh", "identity"), ("tanh", "softmax"), ("sigmoid", "tanh"), ("identity", "sigmoid"), ("relu", "relu")]
every_form = pytest.mark.parametrize("nonlinearity, output_activation", FORMS)


def inputs_and_gradients(D: int = D) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    sizes = [(T, N, D), (N, M), (H, D), (H, M), (H,), (M, H), (M,)]
    return (
        {name: 0.7 * rng.standard_normal(size) for name, size in zip(NAMES, sizes)},
        rng.standard_normal((T, N, M)),
        rng.standard_normal((N, M)),
    )


def run(inputs: dict[str, Any], dy: Any, dy_n: Any, **keywords: Any) -> dict[str, Any]:
    y, y_n, cache = reference.jordan_forward(**inputs, **keywords)
    grads = reference.jordan_backward(dy, dy_n, cache)
    return {"y": y, "y_n": y_n} | {"d" + name: grad for name, grad in grads.items()}


def test_by_hand():
    """T = 2, all of size 1: y1 = V tanh(W x1 + U y0 + b) + c, and y2 sees y1, not h1."""
    x, y0, W, U, b, V, c = (0.5, -1.0), 0.2, 2.0, 3.0, 0.1, -0.7, 0.4
    h1 = math.tanh(W * x[0] + U * y0 + b)
    y1 = V * h1 + c
    h2 = math.tanh(W * x[1] + U * y1 + b)
    inputs = {
        name: np.array(value).reshape(shape)
        for name, value, shape in zip(NAMES, (x, y0, W, U, b, V, c), [(2, 1, 1), (1, 1), (1, 1), (1, 1), 1, (1, 1), 1])
    }
    results = run(inputs, None, np.ones((1, 1)))
    np.testing.assert_allclose(results["y"].ravel(), [y1, V * h2 + c], rtol=1e-15)
    da2 = V * (1 - h2**2)
    da1 = U * da2 * V * (1 - h1**2)
    expected = {
        "x": [W * da1, W * da2],
        "y0": U * da1,
        "weight_ih": da1 * x[0] + da2 * x[1],
        "weight_yh": da1 * y0 + da2 * y1,
        "bias_h": da1 + da2,
        "weight_hy": h2 + U * da2 * h1,
        "bias_y": 1 + U * da2,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(results["d" + name].ravel(), value, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize("ways", ["", "lengths", "reset_mask", "lengths-reset_mask"])
@pytest.mark.parametrize("missing", [(), ("bias_h", "bias_y")], ids=["bias", "nobias"])
@every_form
def test_gradients(nonlinearity, output_activation, missing, ways):
    inputs, dy, dy_n = inputs_and_gradients()
    inputs = {name: value for name, value in inputs.items() if name not in missing}
    mask = np.zeros((T, N), bool)
    mask[0, 1] = mask[2, 0] = True
    options = {"lengths": np.array([3, 0, 4]), "reset_mask": mask}
    options = {name: value for name, value in options.items() if name in ways.split("-")}
    options |= {"nonlinearity": nonlinearity, "output_activation": output_activation}

    def loss(moved):
        y, y_n, _ = reference.jordan_forward(**dict.fromkeys(missing), **moved, **options, training=False)
        return (y * dy).sum() + (y_n * dy_n).sum()

    results = run(dict.fromkeys(missing) | inputs, dy, dy_n, **options)
    grads = {name[1:]: grad for name, grad in results.items() if name not in ("y", "y_n")}
    assert list(grads) == NAMES
    assert_gradients_match_differences(loss, inputs, grads)


@every_form
def test_matches_pytorch_autograd(nonlinearity, output_activation):
    """A loop over torch.nn.functional.linear, differentiated by torch."""
    torch = pytest.importorskip("torch")
    functions = {name: getattr(torch, name) for name in ("tanh", "relu", "sigmoid")}
    functions |= {"identity": lambda a: a, "softmax": lambda a: torch.softmax(a, -1)}
    inputs, dy, dy_n = inputs_and_gradients()
    leaves = {name: torch.from_numpy(value).requires_grad_() for name, value in inputs.items()}
    x, y, W, U, b, V, c = leaves.values()
    ys = []
    for t in range(T):
        h = functions[nonlinearity](torch.nn.functional.linear(x[t], W, b) + y @ U.T)
        y = functions[output_activation](torch.nn.functional.linear(h, V, c))
        ys.append(y)
    ((torch.stack(ys) * torch.from_numpy(dy)).sum() + (y * torch.from_numpy(dy_n)).sum()).backward()
    results = run(inputs, dy, dy_n, nonlinearity=nonlinearity, output_activation=output_activation)
    np.testing.assert_allclose(results["y"], torch.stack(ys).detach(), rtol=1e-13)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(results["d" + name], leaf.grad, rtol=1e-11, atol=1e-13, err_msg=name)


def test_rows_of_their_own_lengths():
    """A ragged batch equals its rows alone; the padding is never looked at."""
    inputs, dy, dy_n = inputs_and_gradients()
    lengths = np.array([2, 0, 4])
    beyond = np.arange(T)[:, None] >= lengths
    padded, dpadded = inputs["x"].copy(), dy.copy()
    padded[beyond] = dpadded[beyond] = np.nan
    results = run(inputs | {"x": padded}, dpadded, dy_n, lengths=lengths, output_activation="softmax")
    total = 0.0
    for n, length in enumerate(lengths):
        row = slice(n, n + 1)
        alone = inputs | {"x": inputs["x"][:length, row], "y0": inputs["y0"][row]}
        alone = run(alone, dy[:length, row], dy_n[row], output_activation="softmax")
        for name in ("y", "dx"):
            np.testing.assert_allclose(results[name][:length, row], alone[name], rtol=1e-13)
            assert not results[name][length:, row].any()
        for name in ("y_n", "dy0"):
            np.testing.assert_allclose(results[name][row], alone[name], rtol=1e-13)
        total = total + alone["dweight_yh"]
    np.testing.assert_allclose(results["dweight_yh"], total, rtol=1e-12)


def test_without_input():
    inputs, dy, dy_n = inputs_and_gradients(D=0)
    results = run(inputs, dy, dy_n)
    assert results["dx"].shape == (T, N, 0) and results["dweight_ih"].shape == (H, 0)
    h = np.tanh(inputs["y0"] @ inputs["weight_yh"].T + inputs["bias_h"])
    np.testing.assert_allclose(results["y"][0], h @ inputs["weight_hy"].T + inputs["bias_y"], rtol=1e-14)


def test_into_accumulates_and_the_cache_is_spent():
    inputs, dy, dy_n = inputs_and_gradients()
    expected = run(inputs, dy, dy_n)
    into = {name: np.ones_like(value) for name, value in inputs.items()}
    *_, cache = reference.jordan_forward(**inputs)
    grads = reference.jordan_backward(dy, dy_n, cache, into=into)
    for name in NAMES:
        assert grads[name] is into[name]
        np.testing.assert_allclose(grads[name], 1 + expected["d" + name], rtol=1e-14)
    with pytest.raises(RuntimeError, match="^cache: .*backward"):
        reference.jordan_backward(dy, dy_n, cache)
    assert reference.jordan_forward(**inputs, training=False)[-1] is None


WRONG = [
    ("x", np.zeros((T, N, D + 1)), ValueError, r"expected shape \(T, N, 2\).*, got \(4, 3, 3\)"),
    ("y0", np.zeros((N, H)), ValueError, r"expected shape \(3, 3\).*, got \(3, 4\)"),
    ("weight_yh", np.zeros((H, M + 1)), ValueError, r"expected shape \(4, 3\).*, got \(4, 4\)"),
    ("weight_hy", np.zeros((M, H + 1)), ValueError, r"expected shape \(\w+, 4\).*, got \(3, 5\)"),
    ("bias_h", np.zeros(M), ValueError, r"expected shape \(4,\).*, got \(3,\)"),
    ("bias_y", np.zeros(M, np.float32), TypeError, "expected float64.*, got float32"),
    ("nonlinearity", "softmax", ValueError, "expected one of .*'tanh'.*, got 'softmax'"),
    ("output_activation", "argmax", ValueError, "expected one of .*'tanh'.*, got 'argmax'"),
    ("lengths", [1, 2, 5], ValueError, "expected values from 0 to 4, got 5"),
    ("reset_mask", np.zeros((N, T), bool), ValueError, r"expected shape \(4, 3\).*, got \(3, 4\)"),
]


both_twins = pytest.mark.parametrize("module", [reference, functional], ids=["reference", "functional"])


@pytest.mark.parametrize("name, wrong, error, message", WRONG, ids=[name for name, *_ in WRONG])
@both_twins
def test_wrong_argument(module, name, wrong, error, message):
    inputs, _dy, _dy_n = inputs_and_gradients()
    with pytest.raises(error, match=f"^{name}: {message}"):
        module.jordan_forward(**inputs | {name: wrong})


@both_twins
def test_wrong_gradients(module):
    inputs, dy, dy_n = inputs_and_gradients()
    for message, given in [
        (r"^dy: expected shape \(4, 3, 3\).*, got \(3, 3\)", (dy_n, dy_n)),
        (r"^dy_n: expected shape \(3, 3\).*, got \(4, 3, 3\)", (dy, dy)),
    ]:
        *_, cache = module.jordan_forward(**inputs)
        with pytest.raises(ValueError, match=message):
            module.jordan_backward(*given, cache)
    with pytest.raises(TypeError, match="^cache: .*jordan_forward"):
        module.jordan_backward(dy, dy_n, None)
