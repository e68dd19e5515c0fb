"""Errors of the stateless core: one, clear, and the same kind from both twins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import GATES, STATES, make_case

from fastrnn import functional, reference

both_twins = pytest.mark.parametrize("module", [reference, functional], ids=["reference", "functional"])


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


# argument, the wrong value as a function of (T, N, D, H, G*H), error, what its message must have after "argument: "
WRONG_INPUTS = [
    ("x", lambda T, N, D, H, GH: zeros(T, N, D + 1), ValueError, r"expected shape \(T, N, 5\).*, got \(3, 2, 6\)"),
    ("x", lambda T, N, D, H, GH: zeros(N, D), ValueError, r"expected shape \(T, N, 5\).*, got \(2, 5\)"),
    ("x", lambda T, N, D, H, GH: zeros(1, T, N, D), ValueError, r"expected .*got \(1, 3, 2, 5\)"),
    ("x", lambda T, N, D, H, GH: zeros(T, 0, D), ValueError, r"expected .*got \(3, 0, 5\)"),
    ("x", lambda T, N, D, H, GH: zeros(T, N, D, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("x", lambda T, N, D, H, GH: zeros(T, N, D, dtype=np.int64), TypeError, "expected float32.*, got int64"),
    ("x", lambda T, N, D, H, GH: zeros(T, N, D).tolist(), TypeError, "expected .*array, got list"),
    ("h0", lambda T, N, D, H, GH: zeros(N, H + 1), ValueError, r"expected shape \(2, 4\).*, got \(2, 5\)"),
    ("h0", lambda T, N, D, H, GH: zeros(N + 1, H), ValueError, r"expected shape \(2, 4\).*, got \(3, 4\)"),
    ("h0", lambda T, N, D, H, GH: zeros(1, N, H), ValueError, r"expected shape \(2, 4\).*, got \(1, 2, 4\)"),
    ("h0", lambda T, N, D, H, GH: zeros(N, H, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    (
        "weight_ih",
        lambda T, N, D, H, GH: zeros(GH, D, dtype=np.int32),
        TypeError,
        "expected float32 or float64, got int32",
    ),
    (
        "weight_ih",
        lambda T, N, D, H, GH: zeros(GH, D, dtype=np.float16),
        TypeError,
        "expected float32 or float64, got float16",
    ),
    ("weight_ih", lambda T, N, D, H, GH: zeros(GH), ValueError, r"expected .*got \("),
    ("weight_ih", lambda T, N, D, H, GH: None, TypeError, "expected .*array, got NoneType"),
    ("weight_hh", lambda T, N, D, H, GH: zeros(GH, H + 1), ValueError, r"expected .*got \(\d+, 5\)"),
    ("weight_hh", lambda T, N, D, H, GH: zeros(GH + 1, H), ValueError, r"expected .*got \("),
    ("weight_hh", lambda T, N, D, H, GH: zeros(GH, H, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("bias_ih", lambda T, N, D, H, GH: zeros(GH + 1), ValueError, r"expected .*got \(\d+,\)"),
    ("bias_ih", lambda T, N, D, H, GH: zeros(GH, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("bias_hh", lambda T, N, D, H, GH: zeros(1, GH), ValueError, r"expected .*got \(1, \d+\)"),
    ("bias_hh", lambda T, N, D, H, GH: zeros(GH, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("out", lambda T, N, D, H, GH: zeros(T, N, H + 1), ValueError, r"expected shape \(3, 2, 4\).*, got \(3, 2, 5\)"),
    ("out", lambda T, N, D, H, GH: zeros(N, T, H), ValueError, r"expected shape \(3, 2, 4\).*, got \(2, 3, 4\)"),
    ("out", lambda T, N, D, H, GH: zeros(T, N, H, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("out", lambda T, N, D, H, GH: np.broadcast_to(np.float32(0), (T, N, H)), ValueError, "expected a writ"),
]
T, N, D, H = 3, 2, 5, 4


def valid_inputs(cell: str) -> dict[str, Any]:
    case = make_case(cell, {}, (T, N, D, H), "float32")
    names = ["x", *(s + "0" for s in STATES[cell]), "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    return dict(zip(names, (case.x, *case.state, *case.weights), strict=True))


@pytest.mark.parametrize(
    "name, wrong, error, message", WRONG_INPUTS, ids=[f"{name}-{k}" for k, (name, *_) in enumerate(WRONG_INPUTS)]
)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@both_twins
def test_wrong_forward_argument(module, cell, name, wrong, error, message):
    inputs = valid_inputs(cell) | {name: wrong(T, N, D, H, GATES[cell] * H)}
    with pytest.raises(error, match=rf"^{name}: {message}"):
        getattr(module, cell + "_forward")(**inputs)


@both_twins
def test_wrong_cell_state(module):
    inputs = valid_inputs("lstm")
    with pytest.raises(ValueError, match=r"^c0: expected shape \(2, 4\).*, got \(4, 2\)"):
        module.lstm_forward(**inputs | {"c0": zeros(H, N)})
    with pytest.raises(TypeError, match="^c0: expected float32.*, got float64"):
        module.lstm_forward(**inputs | {"c0": zeros(N, H, dtype=np.float64)})
    with pytest.raises(ValueError, match=r"^c0: expected shape \(2, 4\).*, got \(4, 2\)"):
        module.lstm_cell_forward(**inputs | {"x": zeros(N, D), "c0": zeros(H, N)})


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@both_twins
def test_weight_rows_must_be_whole_gates(module, cell):
    with pytest.raises(ValueError, match=rf"^weight_ih: expected shape \({GATES[cell]}\*H, D\).*, got \(13, 5\)"):
        getattr(module, cell + "_forward")(**valid_inputs(cell) | {"weight_ih": zeros(13, D)})


@both_twins
def test_unknown_options(module):
    inputs = valid_inputs("rnn")
    for name in ("softplus", "Tanh", "softmax", "", None):
        message = "^nonlinearity: expected .*tanh.*relu.*sigmoid.*identity.*, got " + repr(name)
        with pytest.raises(ValueError, match=message):
            module.rnn_forward(**inputs, nonlinearity=name)
    step = inputs | {"x": zeros(N, D)}
    with pytest.raises(ValueError, match="^nonlinearity: expected .*, got 'relu6'"):
        module.rnn_cell_forward(**step, nonlinearity="relu6")
    with pytest.raises(ValueError, match="^output_activation: expected .*softmax.*, got 'argmax'"):
        module.rnn_cell_forward(**step, weight_hy=zeros(3, H), output_activation="argmax")


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@both_twins
def test_wrong_cell_argument(module, cell):
    forward, backward = getattr(module, cell + "_cell_forward"), getattr(module, cell + "_cell_backward")
    inputs = valid_inputs(cell) | {"x": zeros(N, D)}
    head = {"weight_hy": zeros(3, H), "bias_y": zeros(3)}
    nothing = (None,) * (len(STATES[cell]) - 1)
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, .*, got \(3, 2, 5\)"):
        forward(**inputs | {"x": zeros(T, N, D)})
    with pytest.raises(ValueError, match=r"^weight_hy: expected shape \(M, 4\).*, got \(3, 5\)"):
        forward(**inputs, **head | {"weight_hy": zeros(3, H + 1)})
    with pytest.raises(TypeError, match="^weight_hy: expected float32.*, got float64"):
        forward(**inputs, **head | {"weight_hy": zeros(3, H, dtype=np.float64)})
    with pytest.raises(ValueError, match=r"^bias_y: expected shape \(3,\).*, got \(4,\)"):
        forward(**inputs, **head | {"bias_y": zeros(4)})
    with pytest.raises(ValueError, match="^bias_y: expected None"):
        forward(**inputs, bias_y=zeros(3))
    with pytest.raises(ValueError, match="^dy: expected None"):
        backward(None, *nothing, forward(**inputs)[-1], dy=zeros(N, 3))
    with pytest.raises(ValueError, match=r"^dy: expected shape \(2, 3\).*, got \(2, 4\)"):
        backward(None, *nothing, forward(**inputs, **head)[-1], dy=zeros(N, 4))
    with pytest.raises(TypeError, match="^dy: expected float32.*, got float64"):
        backward(None, *nothing, forward(**inputs, **head)[-1], dy=zeros(N, 3, dtype=np.float64))
    with pytest.raises(ValueError, match=r"^dh_next: expected shape \(2, 4\).*, got \(2, 3\)"):
        backward(zeros(N, 3), *nothing, forward(**inputs)[-1])
    if cell == "lstm":
        with pytest.raises(ValueError, match=r"^dc_next: expected shape \(2, 4\).*, got \(4,\)"):
            backward(None, zeros(H), forward(**inputs)[-1])
    cache = forward(**inputs)[-1]
    backward(zeros(N, H), *nothing, cache)
    with pytest.raises(RuntimeError, match="^cache: .*backward"):
        backward(zeros(N, H), *nothing, cache)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@both_twins
def test_wrong_backward_argument(module, cell):
    case = make_case(cell, {}, (T, N, D, H), "float32")

    def backward(into=None, cache=0, **changed):
        replace(case, **changed).backward(module, case.forward(module)[-1] if cache == 0 else cache, into=into)

    none = (None,) * (len(STATES[cell]) - 1)
    with pytest.raises(ValueError, match=r"^doutput: expected shape \(3, 2, 4\).*, got \(3, 2, 5\)"):
        backward(doutput=zeros(T, N, D))
    with pytest.raises(ValueError, match=r"^doutput: expected shape \(3, 2, 4\).*, got \(2, 4\)"):
        backward(doutput=zeros(N, H))
    with pytest.raises(TypeError, match="^doutput: expected float32.*, got float64"):
        backward(doutput=zeros(T, N, H, dtype=np.float64))
    with pytest.raises(ValueError, match=r"^dh_n: expected shape \(2, 4\).*, got \(1, 2, 4\)"):
        backward(dstate=(zeros(1, N, H), *none))
    with pytest.raises(TypeError, match="^dh_n: expected float32.*, got float64"):
        backward(dstate=(zeros(N, H, dtype=np.float64), *none))
    if cell == "lstm":
        with pytest.raises(ValueError, match=r"^dc_n: expected shape \(2, 4\).*, got \(4, 2\)"):
            backward(dstate=(None, zeros(H, N)))
    with pytest.raises(ValueError, match="^into: expected .*weight_hh.*, got 'weight'"):
        backward(into={"weight": zeros(H, D)})
    with pytest.raises(ValueError, match=r"^into\['x'\]: expected shape \(3, 2, 5\).*, got \(2, 3, 5\)"):
        backward(into={"x": zeros(N, T, D)})
    with pytest.raises(TypeError, match=r"^into\['x'\]: expected float32.*, got float64"):
        backward(into={"x": zeros(T, N, D, dtype=np.float64)})
    unbiased = make_case(cell, {}, (T, N, D, H), "float32", bias=False)
    with pytest.raises(ValueError, match="^into: expected .*weight_hh.*, got 'bias_ih'"):
        backward(cache=unbiased.forward(module)[-1], into={"bias_ih": zeros(GATES[cell] * H)})


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@both_twins
def test_wrong_cache(module, cell):
    case = make_case(cell, {}, (T, N, D, H), "float32")
    cache = case.forward(module)[-1]
    case.backward(module, cache)
    with pytest.raises(RuntimeError, match="^cache: .*backward"):
        case.backward(module, cache)
    with pytest.raises(TypeError, match=f"^cache: .*{cell}_forward"):
        case.backward(module, case.forward(module, training=False)[-1])
    other = "gru" if cell != "gru" else "rnn"
    with pytest.raises(TypeError, match=f"^cache: .*{cell}_forward"):
        case.backward(module, make_case(other, {}, (T, N, D, H), "float32").forward(module)[-1])


P = 3
WRONG_VARIANTS = [
    ("lengths", [1.0, 2.0], TypeError, "expected integers, got float64"),
    ("lengths", [True, False], TypeError, "expected integers, got bool"),
    ("lengths", [1, 2, 3], ValueError, r"expected shape \(2,\).*, got \(3,\)"),
    ("lengths", 2, ValueError, r"expected shape \(2,\).*, got \(\)"),
    ("lengths", [1, 4], ValueError, "expected values from 0 to 3, got 4"),
    ("lengths", [-1, 2], ValueError, "expected values from 0 to 3, got -1"),
    ("reset_mask", zeros(T, N), TypeError, "expected .*bool, got float32"),
    ("reset_mask", [[True, False]] * T, TypeError, "expected .*bool, got list"),
    ("reset_mask", np.zeros((N, T), bool), ValueError, r"expected shape \(3, 2\).*, got \(2, 3\)"),
    ("weight_hr", zeros(P, H + 1), ValueError, r"expected shape \(\w+, 4\).*, got \(3, 5\)"),
    ("weight_hr", zeros(H, H, dtype=np.float64), TypeError, "expected float32.*, got float64"),
    ("weight_hr", zeros(0, H), ValueError, r"expected shape \(\w+, 4\).*, got \(0, 4\)"),
    ("weight_peephole", zeros(2 * H), ValueError, r"expected shape \(12,\).*, got \(8,\)"),
    ("weight_peephole", [0.0] * 12, TypeError, "expected .*array, got list"),
    ("cell_clip", 0, ValueError, "expected a positive number, got 0"),
    ("cell_clip", float("nan"), ValueError, "expected a positive number, got nan"),
    ("cell_clip", float("inf"), ValueError, "expected a positive number, got inf"),
    ("cell_clip", "3", TypeError, "expected a positive number, got '3'"),
    ("cell_clip", True, TypeError, "expected a positive number, got True"),
    ("gate_activation", "tanh", ValueError, "expected one of 'sigmoid', 'hard_sigmoid', 'hard_sigmoid_6', got 'tanh'"),
    ("activation", "softmax", ValueError, "expected one of .*'tanh'.*, got 'softmax'"),
]


@pytest.mark.parametrize(
    "name, wrong, error, message", WRONG_VARIANTS, ids=[f"{name}-{k}" for k, (name, *_) in enumerate(WRONG_VARIANTS)]
)
@both_twins
def test_wrong_variant_argument(module, name, wrong, error, message):
    inputs = valid_inputs("lstm")
    with pytest.raises(error, match=f"^{name}: {message}"):
        module.lstm_forward(**inputs, **{name: wrong})
    if name not in ("lengths", "reset_mask"):
        with pytest.raises(error, match=f"^{name}: {message}"):
            module.lstm_cell_forward(**inputs | {"x": zeros(N, D)}, **{name: wrong})


@both_twins
def test_wrong_shape_beside_a_projection(module):
    """h is (N, P), c (N, H), in the forward and in the backward."""
    case = make_case("lstm", {"projection": True}, (T, N, D, H), "float32")
    h, c = case.state
    with pytest.raises(ValueError, match=r"^h0: expected shape \(2, 3\).*, got \(2, 4\)"):
        replace(case, state=(c, c)).forward(module)
    with pytest.raises(ValueError, match=r"^c0: expected shape \(2, 4\).*, got \(2, 3\)"):
        replace(case, state=(h, h)).forward(module)
    with pytest.raises(ValueError, match=r"^out: expected shape \(3, 2, 3\).*, got \(3, 2, 4\)"):
        case.forward(module, out=zeros(T, N, H))
    for dstate, message in [
        ((c, c), r"^dh_n: expected shape \(2, 3\).*, got \(2, 4\)"),
        ((h, h), r"^dc_n: expected shape \(2, 4\).*, got \(2, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(case, dstate=dstate).backward(module, case.forward(module)[-1])
    with pytest.raises(ValueError, match=r"^into\['weight_hr'\]: expected shape \(3, 4\).*, got \(4, 3\)"):
        case.backward(module, case.forward(module)[-1], into={"weight_hr": zeros(H, P)})
    plain = make_case("lstm", {}, (T, N, D, H), "float32")
    with pytest.raises(ValueError, match="^into: expected .*weight_hh.*, got 'weight_hr'"):
        plain.backward(module, plain.forward(module)[-1], into={"weight_hr": zeros(P, H)})


@both_twins
def test_wrong_linear_argument(module):
    with pytest.raises(ValueError, match=r"^x: expected shape .*7\), got \(2, 6\)"):
        module.linear_forward(zeros(2, 6), zeros(3, 7))
    with pytest.raises(TypeError, match="^x: expected float32.*, got float64"):
        module.linear_forward(zeros(2, 7, dtype=np.float64), zeros(3, 7))
    with pytest.raises(TypeError, match="^weight: expected float32 or float64, got int64"):
        module.linear_forward(zeros(2, 7), zeros(3, 7, dtype=np.int64))
    with pytest.raises(ValueError, match=r"^weight: expected .*\(M, D\).*, got \(7,\)"):
        module.linear_forward(zeros(2, 7), zeros(7))
    with pytest.raises(ValueError, match=r"^bias: expected shape \(3,\).*, got \(7,\)"):
        module.linear_forward(zeros(2, 7), zeros(3, 7), zeros(7))
    _, cache = module.linear_forward(zeros(2, 7), zeros(3, 7), zeros(3))
    with pytest.raises(ValueError, match=r"^dy: expected shape \(2, 3\).*, got \(3, 2\)"):
        module.linear_backward(zeros(3, 2), cache)
    _, cache = module.linear_forward(zeros(2, 7), zeros(3, 7), zeros(3))
    module.linear_backward(zeros(2, 3), cache)
    with pytest.raises(RuntimeError, match="^cache: .*backward"):
        module.linear_backward(zeros(2, 3), cache)
