"""The reference against PyTorch (projection, packed sequences), ONNX's reference evaluator and ONNX Runtime.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import STATES, Case, assert_results_close, make_case, over_time

from fastrnn import reference

# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_results(case: Case) -> dict[str, Any]:
    """All that `Case.run` gives, from torch.nn in float64; lengths go through pack_padded_sequence."""
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    T, _N, D = case.x.shape
    H = len(case.weights[0]) // {"rnn": 1, "gru": 3, "lstm": 4}[case.cell]
    P = case.doutput.shape[-1]
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case.cell]
    options = {"proj_size": P} if "weight_hr" in case.extra else {}
    options |= {name: value for name, value in case.options.items() if name == "nonlinearity"}
    layer = kind(D, H, dtype=torch.float64, **options)
    weights = dict(zip(["weight_ih", "weight_hh", "bias_ih", "bias_hh"], case.weights)) | case.extra
    with torch.no_grad():
        for name, weight in weights.items():
            getattr(layer, name + "_l0").copy_(torch.from_numpy(weight))
    x, *state = (torch.from_numpy(a).requires_grad_() for a in (case.x, *case.state))
    given = tuple(s[None] for s in state)
    given = given if case.cell == "lstm" else given[0]
    if case.lengths is None:
        output, state_n = layer(x, given)
    else:
        lengths = torch.from_numpy(case.lengths)
        output, state_n = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), given)
        output, _ = pad_packed_sequence(output, total_length=T)
    state_n = state_n if case.cell == "lstm" else (state_n,)
    loss = (output * torch.from_numpy(case.doutput)).sum()
    loss = loss + sum((s[0] * torch.from_numpy(d)).sum() for s, d in zip(state_n, case.dstate))
    loss.backward()
    results = {"output": output} | {s + "_n": value[0] for s, value in zip(STATES[case.cell], state_n)}
    results |= {"dx": x.grad} | {f"d{s}0": value.grad for s, value in zip(STATES[case.cell], state)}
    results |= {"d" + name: getattr(layer, name + "_l0").grad for name in weights}
    return {name: value.detach().numpy() for name, value in results.items()}


@pytest.mark.parametrize("H", [3, 8])
def test_projection_matches_pytorch(H):
    case = make_case("lstm", {"projection": True}, (6, 4, 5, H), "float64")
    assert_results_close(case.run(reference), torch_results(case), "float64")


@pytest.mark.parametrize(
    "cell, options",
    [("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("gru", {}), ("lstm", {}), ("lstm", {"projection": True})],
    ids=str,
)
def test_lengths_match_packed_sequences(cell, options):
    """enforce_sorted=False; torch knows no lengths of 0."""
    case = make_case(cell, options, (7, 5, 3, 6), "float64")
    case = replace(case, lengths=np.array([3, 7, 1, 4, 7]))
    assert_results_close(case.run(reference), torch_results(case), "float64")


# --- ONNX -------------------------------------------------------------------------------------------------------------

# The order of ONNX's gates, as positions among ours: i, o, f, c of i, f, g, o; z, r, h of r, z, n; P is i, o, f.
GATE_ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
PEEPHOLE_ORDER = [0, 2, 1]
ONNX_NAMES = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Affine", "hard_sigmoid": "HardSigmoid"}
ALPHA_BETA = {"Affine": (1.0, 0.0), "HardSigmoid": (0.2, 0.5)}


def onnx_model(case: Case) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of one ONNX node that computes `case`, and its inputs."""
    onnx = pytest.importorskip("onnx")
    cell, options = case.cell, case.options

    def ordered(weight, order):
        parts = np.split(weight, len(order))
        return np.concatenate([parts[k] for k in order])[None]

    W, R, b, d = (ordered(weight, GATE_ORDER[cell]) for weight in case.weights)
    inputs = {"X": case.x, "W": W, "R": R, "B": np.concatenate([b, d], axis=1)}
    if case.lengths is not None:
        inputs["sequence_lens"] = np.asarray(case.lengths, np.int32)
    inputs |= dict(zip(["initial_h", "initial_c"], (s[None] for s in case.state)))
    if "weight_peephole" in case.extra:
        inputs["P"] = ordered(case.extra["weight_peephole"], PEEPHOLE_ORDER)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"][: 8 if cell == "lstm" else 6]
    attributes: dict[str, Any] = {"hidden_size": R.shape[-1]}
    if cell == "gru":
        attributes["linear_before_reset"] = int(options.get("reset_after", True))
    if case.reverse:
        attributes["direction"] = "reverse"
    if "cell_clip" in options:
        attributes["clip"] = options["cell_clip"]
    gate, activation = options.get("gate_activation"), options.get("activation")
    if gate or activation:
        chosen = [ONNX_NAMES[gate or "sigmoid"]] + [ONNX_NAMES[activation or "tanh"]] * (2 if cell == "lstm" else 1)
        attributes["activations"] = chosen
        # One alpha and one beta for each activation that takes them, in order.
        parameters = [ALPHA_BETA[name] for name in chosen if name in ALPHA_BETA]
        if parameters:
            attributes["activation_alpha"], attributes["activation_beta"] = map(list, zip(*parameters))
    outputs = ["Y", "Y_h", "Y_c"][: 3 if cell == "lstm" else 2]
    node = onnx.helper.make_node(cell.upper(), [n if n in inputs else "" for n in names], outputs, **attributes)

    def info(name, array):
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return onnx.helper.make_tensor_value_info(name, kind, array.shape if name in inputs else None)

    graph = onnx.helper.make_graph(
        [node], "cell", [info(name, array) for name, array in inputs.items()], [info(name, case.x) for name in outputs]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    return model, inputs


def assert_onnx_results(case: Case, results: list[np.ndarray], tol: float) -> None:
    """Y is (T, directions, N, H), the states (directions, N, H)."""
    *expected, _ = case.astype(np.float64).forward(reference)
    for actual, value in zip(results, expected, strict=True):
        actual = actual[:, 0] if actual.ndim == 4 else actual[0]
        np.testing.assert_allclose(actual, value, rtol=tol, atol=tol)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(
    "cell, options",
    [
        ("rnn", {}),
        ("gru", {"reset_after": True}),
        ("gru", {"reset_after": False}),
        ("lstm", {}),
        ("lstm", {"peephole": True}),
    ],
    ids=str,
)
def test_onnx_reference_evaluator(cell, options, reverse):
    """All that it implements: it takes clip, activations of the LSTM and GRU, and sequence_lens and ignores them."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    case = replace(make_case(cell, options, (5, 3, 4, 6), "float64"), reverse=reverse)
    model, inputs = onnx_model(case)
    assert_onnx_results(case, evaluator(model).run(None, inputs), 1e-14)


RUNTIME = [
    ("gru", {"reset_after": True}),
    ("gru", {"reset_after": False}),
    ("gru", {"reset_after": True, "gate_activation": "hard_sigmoid"}),
    ("gru", {"reset_after": False, "activation": "relu"}),
    ("lstm", {"peephole": True}),
    ("lstm", {"gate_activation": "hard_sigmoid"}),
    ("lstm", {"gate_activation": "hard_sigmoid", "activation": "relu", "peephole": True}),
    ("lstm", {"activation": "sigmoid"}),
]


def run_onnxruntime(case: Case) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    model, inputs = onnx_model(case)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("ways", ["", "lengths", "reverse", "lengths-reverse"])
@pytest.mark.parametrize("cell, options", RUNTIME, ids=str)
def test_onnxruntime(cell, options, ways):
    """float32. No lengths of 0: there it returns zeros for the final state, not the initial one."""
    case = make_case(cell, options, (6, 4, 3, 5), "float32")
    if "lengths" in ways:
        case = replace(case, lengths=np.maximum(over_time(case)["lengths"], 1))
    case = replace(case, reverse="reverse" in ways)
    assert_onnx_results(case, run_onnxruntime(case), 2e-6)


@pytest.mark.parametrize("peephole", [False, True], ids=["", "peephole"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_onnxruntime_clip(activation, peephole):
    """On a case whose pre-activations are clipped and whose cell states stay within.

    ONNX says that clip "is applied to the input of activations", and so the reference does with all five; ONNX Runtime
    clips the four pre-activations only, not the c_t of the output activation (microsoft/onnxruntime#27224).
    """
    clip = 2.0
    options = {"peephole": peephole, "cell_clip": clip, "activation": activation}
    case = make_case("lstm", options, (3, 4, 3, 5), "float32", seed=5)
    weights = (4 * case.weights[0], *case.weights[1:])
    case = replace(case, weights=weights, state=(case.state[0], 0.1 * case.state[1]))
    for t in range(1, 4):
        c_t = replace(case, x=case.x[:t]).forward(reference)[2]
        assert np.abs(c_t).max() < clip, "ONNX Runtime would differ"
    assert_onnx_results(case, run_onnxruntime(case), 2e-6)

    unclipped = replace(case, options={"activation": activation})
    assert np.abs(unclipped.forward(reference)[0] - case.forward(reference)[0]).max() > 0.05, "nothing was clipped"
