"""The reference against mathematics: finite differences, hand-computed numbers, published numbers, its own cascade.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, M outputs, V vocabulary.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CELLS, GATES, STATES, Case, every_cell, every_dtype, make_case

from fastrnn import functional, reference

OUTPUT_ACTIVATIONS = ["identity", "softmax", "sigmoid", "tanh", "relu"]
DATA = Path(__file__).parent / "data"


# --- Finite differences -----------------------------------------------------------------------------------------------


def assert_gradients_match_differences(
    loss: Callable[[dict[str, np.ndarray]], float], inputs: dict[str, np.ndarray], grads: dict[str, Any]
) -> None:
    """Every entry of every gradient against fourth-order central differences of `loss`."""
    step = 1e-3
    assert {name for name, grad in grads.items() if grad is not None} == set(inputs)
    for name, value in inputs.items():
        numeric = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            at = []
            for k in (-2, -1, 1, 2):
                moved = value.copy()
                moved[index] += k * step
                at.append(loss(inputs | {name: moved}))
            numeric[index] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
        assert np.abs(numeric).max() > 1e-4, name + ": a gradient that is zero checks nothing"
        np.testing.assert_allclose(grads[name], numeric, rtol=0, atol=1e-9 * np.abs(numeric).max(), err_msg=name)


def named_inputs(case: Case) -> dict[str, np.ndarray]:
    names = ["x", *(s + "0" for s in STATES[case.cell]), "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    values = (case.x, *case.state, *case.weights)
    return {name: value for name, value in zip(names, values) if value is not None}


def call(function: Callable, cell: str, inputs: dict[str, np.ndarray], **options: Any) -> tuple[Any, ...]:
    names = ["x", *(s + "0" for s in STATES[cell]), "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    extra = {name: value for name, value in inputs.items() if name not in names}
    return function(*(inputs.get(name) for name in names), **extra, **options)


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@every_cell
def test_sequence_gradients(cell, options, bias, T):
    case = make_case(cell, options, (T, 2, 2, 3), "float64", seed=3, bias=bias)
    forward = getattr(reference, cell + "_forward")

    def loss(inputs):
        output, *state_n, _ = call(forward, cell, inputs, training=False, **options)
        return (output * case.doutput).sum() + sum((s * d).sum() for s, d in zip(state_n, case.dstate))

    *_, cache = case.forward(reference)
    assert_gradients_match_differences(loss, named_inputs(case), case.backward(reference, cache))


@pytest.mark.parametrize("output_activation", [None, *OUTPUT_ACTIVATIONS])
@every_cell
def test_cell_gradients(cell, options, output_activation):
    case = make_case(cell, options, (1, 3, 2, 4), "float64", seed=5)
    rng = np.random.default_rng(9)
    inputs = named_inputs(case) | {"x": case.x[0]}
    options = dict(options)
    dy = None
    if output_activation is not None:
        options["output_activation"] = output_activation
        inputs |= {"weight_hy": rng.standard_normal((5, 4)), "bias_y": rng.standard_normal(5)}
        dy = rng.standard_normal((3, 5))
    forward = getattr(reference, cell + "_cell_forward")

    def loss(inputs):
        *state, _cache = call(forward, cell, inputs, **options)
        total = 0.0 if dy is None else (state.pop() * dy).sum()
        return total + sum((s * d).sum() for s, d in zip(state, case.dstate))

    *_, cache = call(forward, cell, inputs, **options)
    grads = getattr(reference, cell + "_cell_backward")(*case.dstate, cache, dy=dy)
    assert_gradients_match_differences(loss, inputs, grads)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_linear_gradients(bias):
    rng = np.random.default_rng(2)
    inputs = {"x": rng.standard_normal((2, 3, 4)), "weight": rng.standard_normal((5, 4))}
    if bias:
        inputs["bias"] = rng.standard_normal(5)
    dy = rng.standard_normal((2, 3, 5))
    _, cache = reference.linear_forward(**inputs)
    grads = reference.linear_backward(dy, cache)
    assert_gradients_match_differences(lambda a: (reference.linear_forward(**a)[0] * dy).sum(), inputs, grads)


# --- A sequence is the cell cascaded ----------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 7])
@every_dtype
@every_cell
def test_sequence_equals_cascaded_cells(cell, options, dtype, T):
    case = make_case(cell, options, (T, 3, 5, 4), dtype)
    results = case.run(reference)
    state, caches, outputs = case.state, [], []
    for t in range(T):
        *state, cache = getattr(reference, cell + "_cell_forward")(case.x[t], *state, *case.weights, **options)
        caches.append(cache)
        outputs.append(state[0])
    expected = {"output": np.stack(outputs)} | {s + "_n": a for s, a in zip(STATES[cell], state)}

    dstate, dx, total = list(case.dstate), [], {}
    for t in reversed(range(T)):
        dstate[0] = dstate[0] + case.doutput[t]
        grads = getattr(reference, cell + "_cell_backward")(*dstate, caches[t])
        dstate = [grads.pop(s + "0") for s in STATES[cell]]
        dx.insert(0, grads.pop("x"))
        total = {name: grad + total.get(name, 0) for name, grad in grads.items()}
    expected |= {"dx": np.stack(dx)} | {f"d{s}0": d for s, d in zip(STATES[cell], dstate)}
    expected |= {"d" + name: grad for name, grad in total.items()}

    assert set(results) == set(expected)
    for name, value in expected.items():
        assert results[name].dtype == dtype
        np.testing.assert_array_equal(results[name], value, err_msg=name)


def test_a_cell_is_a_sequence_of_one_step_with_an_output():
    case = make_case("gru", {}, (1, 3, 5, 4), "float64")
    weight_hy = np.random.default_rng(0).standard_normal((2, 4))
    h_next, y, _ = reference.gru_cell_forward(case.x[0], *case.state, *case.weights, weight_hy=weight_hy)
    output, h_n, _ = case.forward(reference)
    np.testing.assert_array_equal(h_next, output[0])
    np.testing.assert_array_equal(h_next, h_n)
    np.testing.assert_allclose(y, h_next @ weight_hy.T, rtol=1e-15)


# --- Numbers by hand --------------------------------------------------------------------------------------------------


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def column(*values: float) -> np.ndarray:
    return np.array(values).reshape(-1, 1)


def test_rnn_by_hand():
    """T=2, everything of size 1: h1 = tanh(2*0.5 + 0.1 + 3*0.2 - 0.4), h2 = tanh(2*(-1) + 0.1 + 3*h1 - 0.4)."""
    x = np.array([0.5, -1.0]).reshape(2, 1, 1)
    weights = column(2.0), column(3.0), np.array([0.1]), np.array([-0.4])
    output, h_n, cache = reference.rnn_forward(x, column(0.2), *weights)
    h1 = math.tanh(1.3)
    h2 = math.tanh(-2.3 + 3 * h1)
    np.testing.assert_allclose(output.ravel(), [h1, h2], rtol=1e-15)
    assert h_n.item() == output[-1].item()
    grads = reference.rnn_backward(None, column(1.0), cache)
    da2 = 1 - h2**2
    da1 = 3 * da2 * (1 - h1**2)
    np.testing.assert_allclose(grads["x"].ravel(), [2 * da1, 2 * da2], rtol=1e-14)
    np.testing.assert_allclose(grads["h0"].item(), 3 * da1, rtol=1e-14)
    np.testing.assert_allclose(grads["weight_ih"].item(), 0.5 * da1 - da2, rtol=1e-14)
    np.testing.assert_allclose(grads["weight_hh"].item(), 0.2 * da1 + h1 * da2, rtol=1e-14)
    np.testing.assert_allclose([grads["bias_ih"].item(), grads["bias_hh"].item()], da1 + da2, rtol=1e-14)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_by_hand(reset_after):
    """Gate order r, z, n and where the reset gate acts, with a recurrent candidate bias that tells the forms apart."""
    x, h, W, R, b, c = 0.5, -0.8, (1.0, -2.0, 3.0), (0.4, 0.6, -0.7), (0.1, 0.2, 0.3), (-0.5, 0.9, 1.1)
    r = sigmoid(W[0] * x + b[0] + R[0] * h + c[0])
    z = sigmoid(W[1] * x + b[1] + R[1] * h + c[1])
    q = r * (R[2] * h + c[2]) if reset_after else R[2] * (r * h) + c[2]
    n = math.tanh(W[2] * x + b[2] + q)
    h_next, _ = reference.gru_cell_forward(
        column(x), column(h), column(*W), column(*R), np.array(b), np.array(c), reset_after=reset_after
    )
    np.testing.assert_allclose(h_next.item(), (1 - z) * n + z * h, rtol=1e-15)


def test_lstm_by_hand():
    """Gate order i, f, g, o."""
    x, h, c0 = 0.5, -0.8, 0.6
    W, R, b, d = (1.0, -2.0, 3.0, 0.7), (0.4, 0.6, -0.7, 1.2), (0.1, 0.2, 0.3, -0.3), (-0.5, 0.9, 1.1, 0.2)
    a_i, a_f, a_g, a_o = (W[k] * x + b[k] + R[k] * h + d[k] for k in range(4))
    c_next = sigmoid(a_f) * c0 + sigmoid(a_i) * math.tanh(a_g)
    h_next, c, _ = reference.lstm_cell_forward(
        column(x), column(h), column(c0), column(*W), column(*R), np.array(b), np.array(d)
    )
    np.testing.assert_allclose(c.item(), c_next, rtol=1e-15)
    np.testing.assert_allclose(h_next.item(), sigmoid(a_o) * math.tanh(c_next), rtol=1e-15)


def test_softmax_output_by_hand():
    """h = identity(x) = (0, ln 2, ln 5) and W_hy the identity, so y = (1, 2, 5) / 8."""
    x, eye = np.log([[1.0, 2.0, 5.0]]), np.eye(3)
    _, y, _ = reference.rnn_cell_forward(
        x, None, eye, eye, None, None, nonlinearity="identity", weight_hy=eye, output_activation="softmax"
    )
    np.testing.assert_allclose(y, [[0.125, 0.25, 0.625]], rtol=1e-15)


# --- Extremes ---------------------------------------------------------------------------------------------------------


@every_dtype
def test_sigmoid_is_stable(dtype):
    """Relative accuracy in the left tail, exact saturation, no warning (which would be an error here), NaN kept."""
    a = np.array([-np.inf, -20000, -80, -20, -1, 0, 1, 20, 20000, np.inf, np.nan], dtype)
    one = np.ones((1, 1), dtype)
    h, _ = reference.rnn_cell_forward(a[:, None], None, one, one, None, None, nonlinearity="sigmoid")
    tail = math.exp(-20) / (1 + math.exp(-20))
    expected = [0, 0, math.exp(-80), tail, sigmoid(-1), 0.5, sigmoid(1), sigmoid(20), 1, 1, np.nan]
    assert h.dtype == dtype
    np.testing.assert_allclose(h.ravel(), expected, rtol=10 * np.finfo(dtype).eps)


@every_dtype
@every_cell
def test_extreme_inputs_give_no_warning_and_keep_nan(cell, options, dtype):
    case = make_case(cell, options, (3, 4, 1, 5), dtype)
    x = case.x.copy()
    x[0, :, 0] = [20000, -20000, np.inf, np.nan]
    results = replace(case, x=x).run(reference)
    assert np.isfinite(results["output"][:, :2]).all()
    assert np.isnan(results["output"][:, 3]).all()


@every_dtype
@every_cell
def test_no_time_steps(cell, options, dtype):
    case = make_case(cell, options, (0, 2, 3, 4), dtype)
    results = case.run(reference)
    assert results["output"].shape == (0, 2, 4) and results["dx"].shape == (0, 2, 3)
    for s, state, dstate in zip(STATES[cell], case.state, case.dstate):
        np.testing.assert_array_equal(results[s + "_n"], state)
        np.testing.assert_array_equal(results[f"d{s}0"], dstate)
        assert results[s + "_n"] is not state and results[f"d{s}0"] is not dstate
    for name, weight in zip(("dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh"), case.weights):
        assert results[name].shape == weight.shape and not results[name].any()
    assert {value.dtype for value in results.values()} == {np.dtype(dtype)}


# --- Published numbers ------------------------------------------------------------------------------------------------


def lin(low: float, high: float, *shape: int) -> np.ndarray:
    return np.linspace(low, high, math.prod(shape)).reshape(shape)


def cs231n_weights(Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> tuple[Any, ...]:
    """(D, G*H) and gates i, f, o, g into (G*H, D) and i, f, g, o; the one bias becomes bias_ih."""
    H = len(Wh)
    order = np.concatenate([np.arange(H) + H * k for k in ((0,) if Wh.shape[1] == H else (0, 1, 3, 2))])
    return Wx.T[order], Wh.T[order], b[order], None


@pytest.fixture(scope="module")
def cs231n() -> dict[str, Any]:
    return json.loads((DATA / "cs231n_rnn.json").read_text())


def test_cs231n_rnn(cs231n):
    N, D, H = 3, 10, 4
    weights = cs231n_weights(lin(-0.1, 0.9, D, H), lin(-0.3, 0.7, H, H), lin(-0.2, 0.4, H))
    h, _ = reference.rnn_cell_forward(lin(-0.4, 0.7, N, D), lin(-0.2, 0.5, N, H), *weights)
    np.testing.assert_allclose(h, cs231n["rnn_step"], rtol=0, atol=1e-8)

    N, T, D, H = 2, 3, 4, 5
    weights = cs231n_weights(lin(-0.2, 0.4, D, H), lin(-0.4, 0.1, H, H), lin(-0.7, 0.1, H))
    output, *_ = reference.rnn_forward(lin(-0.1, 0.3, N, T, D).swapaxes(0, 1), lin(-0.3, 0.1, N, H), *weights)
    np.testing.assert_allclose(output.swapaxes(0, 1), cs231n["rnn_forward"], rtol=0, atol=1e-8)


def test_cs231n_lstm(cs231n):
    N, D, H = 3, 4, 5
    weights = cs231n_weights(lin(-2.1, 1.3, D, 4 * H), lin(-0.7, 2.2, H, 4 * H), lin(0.3, 0.7, 4 * H))
    h, c, _ = reference.lstm_cell_forward(lin(-0.4, 1.2, N, D), lin(-0.3, 0.7, N, H), lin(-0.4, 0.9, N, H), *weights)
    np.testing.assert_allclose(h, cs231n["lstm_step_h"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(c, cs231n["lstm_step_c"], rtol=0, atol=1e-8)

    N, D, H, T = 2, 5, 4, 3
    weights = cs231n_weights(lin(-0.2, 0.9, D, 4 * H), lin(-0.3, 0.6, H, 4 * H), lin(0.2, 0.7, 4 * H))
    output, *_ = reference.lstm_forward(lin(-0.4, 0.6, N, T, D).swapaxes(0, 1), lin(-0.4, 0.8, N, H), None, *weights)
    np.testing.assert_allclose(output.swapaxes(0, 1), cs231n["lstm_forward"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("cell, low, high", [("rnn", -1.5, 0.3), ("lstm", -0.5, 1.7)])
def test_cs231n_caption_loss(cs231n, cell, low, high):
    """A whole model: image features -> h0, word vectors -> recurrent layer -> scores of the V words -> loss."""
    N, D, W, H, V, T = 10, 20, 30, 40, 3, 13
    G = GATES[cell]

    def weight(*shape):
        return lin(-1.4, 1.3, *shape)

    captions = (np.arange(N * T) % V).reshape(N, T)
    h0 = lin(low, high, N, D) @ weight(D, H) + weight(H)
    x = weight(V, W)[captions[:, :-1].T]
    weights = cs231n_weights(weight(W, G * H), weight(H, G * H), weight(G * H))
    state = (h0,) if cell == "rnn" else (h0, None)
    output, *_ = getattr(reference, cell + "_forward")(x, *state, *weights)
    scores, _ = reference.linear_forward(output, np.ascontiguousarray(weight(H, V).T), weight(V))
    target = captions[:, 1:].T
    log_prob = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(log_prob, target[..., None], axis=-1)[..., 0][target != 0].sum() / N
    np.testing.assert_allclose(loss, cs231n["caption_" + cell], rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def deeplearning_ai() -> dict[str, Any]:
    return json.loads((DATA / "deeplearning_ai_rnn.json").read_text())


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """The course's numpy.random.seed(1) followed by randn of these shapes, without touching the global generator."""
    generator = np.random.RandomState(1)
    return [generator.randn(*shape) for shape in shapes]


def test_deeplearning_ai_rnn(deeplearning_ai):
    xt, a_prev, Waa, Wax, Wya, ba, by = draw((3, 10), (5, 10), (5, 5), (5, 3), (2, 5), (5, 1), (2, 1))
    h, y, _ = reference.rnn_cell_forward(
        xt.T, a_prev.T, Wax, Waa, ba[:, 0], None, weight_hy=Wya, bias_y=by[:, 0], output_activation="softmax"
    )
    np.testing.assert_allclose(h.T[4], deeplearning_ai["rnn_cell_forward"]["a_next[4]"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-15)

    weights = (5, 3), (5, 5), (2, 5), (5, 1), (2, 1)
    want = deeplearning_ai["rnn_cell_backward"]
    xt, a_prev, Wax, Waa, _, ba, _, da_next = draw((3, 10), (5, 10), *weights, (5, 10))
    _, cache = reference.rnn_cell_forward(xt.T, a_prev.T, Wax, Waa, ba[:, 0], None)
    assert_rnn_numbers(reference.rnn_cell_backward(da_next.T, cache), want, "dxt[1][2]", "da_prev[2][3]")

    want = deeplearning_ai["rnn_backward"]
    x, a0, Wax, Waa, _, ba, _, da = draw((3, 10, 4), (5, 10), *weights, (5, 10, 4))
    *_, cache = reference.rnn_forward(x.T, a0.T, Wax, Waa, ba[:, 0], None)
    assert_rnn_numbers(reference.rnn_backward(da.T, None, cache), want, "dx[1][2]", "da0[2][3]")


def assert_rnn_numbers(grads: dict[str, Any], want: dict[str, Any], dx: str, da0: str) -> None:
    np.testing.assert_allclose(grads["x"].T[1, 2], want[dx], rtol=0, atol=1e-8)
    np.testing.assert_allclose(grads["h0"].T[2, 3], want[da0], rtol=1e-11)
    np.testing.assert_allclose(grads["weight_ih"][3, 1], want["dWax[3][1]"], rtol=1e-11)
    np.testing.assert_allclose(grads["weight_hh"][1, 2], want["dWaa[1][2]"], rtol=1e-11)
    np.testing.assert_allclose(grads["bias_ih"][4], want["dba[4]"][0], rtol=0, atol=1e-8)


def test_deeplearning_ai_lstm(deeplearning_ai):
    """Weights there are Wf, bf, Wi, bi, Wo, bo, Wc, bc, each W acting on the stacked [a_prev; x]."""
    gates = [(5, 8), (5, 1)] * 4

    def stacked(Wf, bf, Wi, bi, Wo, bo, Wc, bc):
        W, b = np.concatenate([Wi, Wf, Wc, Wo]), np.concatenate([bi, bf, bc, bo])
        return W[:, 5:], W[:, :5], b[:, 0], None

    xt, a_prev, c_prev, *rest = draw((3, 10), (5, 10), (5, 10), *gates)
    h, *_ = reference.lstm_cell_forward(xt.T, a_prev.T, c_prev.T, *stacked(*rest))
    np.testing.assert_allclose(h.T[4, :6], deeplearning_ai["lstm_cell_forward"]["a_next[4][:6]"], rtol=0, atol=1e-8)

    want = deeplearning_ai["lstm_cell_backward"]
    xt, a_prev, c_prev, *rest, da_next, dc_next = draw(
        (3, 10), (5, 10), (5, 10), *gates, (2, 5), (2, 1), (5, 10), (5, 10)
    )
    *_, cache = reference.lstm_cell_forward(xt.T, a_prev.T, c_prev.T, *stacked(*rest[:8]))
    grads = reference.lstm_cell_backward(da_next.T, dc_next.T, cache)
    np.testing.assert_allclose(grads["c0"].T[2, 3], want["dc_prev[2][3]"], rtol=1e-11)
    assert_lstm_numbers(grads, want, "dxt[1][2]", "da_prev[2][3]")

    want = deeplearning_ai["lstm_backward"]
    x, a0, *rest, da = draw((3, 10, 7), (5, 10), *gates, (5, 10, 4))
    *_, cache = reference.lstm_forward(x.T[:4], a0.T, None, *stacked(*rest))
    assert_lstm_numbers(reference.lstm_backward(da.T, None, None, cache), want, "dx[1][2]", "da0[2][3]")


def assert_lstm_numbers(grads: dict[str, Any], want: dict[str, Any], dx: str, da0: str) -> None:
    np.testing.assert_allclose(grads["x"].T[1, 2], want[dx], rtol=0, atol=1e-8)
    np.testing.assert_allclose(grads["h0"].T[2, 3], want[da0], rtol=1e-11)
    for gate, name, row, col in [(0, "Wi", 1, 2), (1, "Wf", 3, 1), (2, "Wc", 3, 1), (3, "Wo", 1, 2)]:
        key = f"d{name}[{row}][{col}]"
        np.testing.assert_allclose(grads["weight_hh"][5 * gate + row, col], want[key], rtol=1e-11, err_msg=key)
    for gate, name in enumerate(["bi", "bf", "bc", "bo"]):
        np.testing.assert_allclose(grads["bias_ih"][5 * gate + 4], want[f"d{name}[4]"][0], rtol=0, atol=1e-8)


# --- The twin ---------------------------------------------------------------------------------------------------------


def public_functions(module: Any) -> set[str]:
    return {name for name in vars(module) if name.endswith(("_forward", "_backward")) and not name.startswith("_")}


def test_functional_is_the_twin():
    """Same names, same parameters, kinds and defaults."""
    names = {"linear_forward", "linear_backward", "jordan_forward", "jordan_backward"}
    names |= {f"tree_{cell}_{direction}" for cell in ("rnn", "lstm") for direction in ("forward", "backward")}
    kinds = ("cell_forward", "cell_backward", "forward", "backward")
    names |= {f"{cell}_{kind}" for cell, _ in CELLS for kind in kinds}
    assert public_functions(reference) == public_functions(functional) == names
    for name in names:
        twins = [inspect.signature(getattr(module, name)).parameters.values() for module in (reference, functional)]
        ours, theirs = ([(p.name, p.kind, p.default) for p in twin] for twin in twins)
        assert ours == theirs, name
