"""Layers against ONNX: its reference evaluator and ONNX Runtime, where each has what is compared.

ONNX (operators LSTM, GRU and RNN) orders gates i, o, f, c and z, r, h and peepholes i, o, f, and has one node a layer.
The reference evaluator has neither lengths nor clip nor activations by name; ONNX Runtime has them, but leaves c_t in
h_t = o * h(c_t) unclipped, where ONNX's text has clip "applied to the input of activations".

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_output_close
from layer_cases import LAYERS, parts

T, N, D, H = 7, 5, 4, 6
LENGTHS = np.array([3, 7, 1, 5, 2])
ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}  # of fastrnn's gates (and peepholes i, f, o: 0, 2, 1)
OPTIONS = [
    ("rnn", {}),
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"nonlinearity": "sigmoid"}),
    ("gru", {"reset_after": True}),
    ("gru", {"reset_after": False}),
    ("gru", {"reset_after": True, "gate_activation": "hard_sigmoid", "activation": "relu"}),
    ("gru", {"reset_after": False, "gate_activation": "hard_sigmoid_6", "activation": "sigmoid"}),
    ("lstm", {}),
    ("lstm", {"peephole": True}),
    ("lstm", {"cell_clip": 1.0}),
    ("lstm", {"gate_activation": "hard_sigmoid"}),
    ("lstm", {"gate_activation": "hard_sigmoid_6", "activation": "relu"}),
    ("lstm", {"peephole": True, "cell_clip": 1.0, "gate_activation": "hard_sigmoid", "activation": "sigmoid"}),
]
NAMES = {
    "tanh": "Tanh",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    "hard_sigmoid_6": "HardSigmoid",
}


def identify(options: Any) -> str:
    return "-".join(map(str, options.values())) or "plain" if isinstance(options, dict) else options


def make_node(onnx: Any, cell: str, layer: Any, options: dict[str, Any], lengths: Any) -> tuple[Any, dict[str, Any]]:
    """A model of one node with the layer's weights, and those as its inputs, batch and lengths left to the caller."""
    S, gates = 1 + layer.bidirectional, ORDER[cell]

    def rows(name: str) -> np.ndarray:
        """Parameter `name` (G*H, ...) with ONNX's order of gates, (S, G*H, ...)."""
        both = [layer.params[name + suffix] for suffix in ("", "_reverse")[:S]]
        return np.stack([np.concatenate([np.split(a, len(gates))[k] for k in gates]) for a in both])

    inputs = {
        "W": rows("weight_ih_l0"),
        "R": rows("weight_hh_l0"),
        "B": np.concatenate([rows("bias_ih_l0"), rows("bias_hh_l0")], axis=1),
    }
    names = ["X", "W", "R", "B", "sequence_lens" if lengths is not None else "", "initial_h"]
    attributes: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if S == 2 else "forward"}
    if cell == "lstm":
        names.append("initial_c")
        if layer.peephole:
            names.append("P")
            both = [np.split(layer.params["weight_peephole_l0" + suffix], 3) for suffix in ("", "_reverse")[:S]]
            inputs["P"] = np.stack([np.concatenate([p[0], p[2], p[1]]) for p in both])
        if layer.cell_clip:
            attributes["clip"] = layer.cell_clip
    if cell == "gru":
        attributes["linear_before_reset"] = int(layer.reset_after)
    if {"nonlinearity", "gate_activation", "activation"} & set(options):
        gate, other = getattr(layer, "gate_activation", None), getattr(layer, "activation", None)
        used = {"rnn": [getattr(layer, "nonlinearity", None)], "gru": [gate, other], "lstm": [gate, other, other]}[cell]
        attributes["activations"] = [NAMES[name] for name in used] * S
        if gate in ("hard_sigmoid", "hard_sigmoid_6"):  # alpha and beta of those that have them, in their order
            attributes["activation_alpha"] = [0.2 if gate == "hard_sigmoid" else 1 / 6] * S
            attributes["activation_beta"] = [0.5] * S
    outputs = ["Y", "Y_h", "Y_c"][: 1 + len(layer.states)]
    helper = onnx.helper
    node = helper.make_node(cell.upper(), names, outputs, **attributes)
    kinds = {np.dtype("f4"): onnx.TensorProto.FLOAT, np.dtype("i4"): onnx.TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "one layer",
        [
            helper.make_tensor_value_info(n, kinds[np.dtype("i4" if n == "sequence_lens" else "f4")], None)
            for n in names
            if n
        ],
        [helper.make_tensor_value_info(n, kinds[np.dtype("f4")], None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    return model, inputs


def compare(
    onnx: Any,
    evaluate: Any,
    cell: str,
    options: dict[str, Any],
    *,
    lengths: Any = None,
    bidirectional: bool = False,
    small_cells: bool = False,
) -> None:
    """With small_cells the cell states stay within the clip, and only what goes into the gates is clipped."""
    layer = LAYERS[cell](D, H, bidirectional=bidirectional, rng=1, **options)
    rng = np.random.default_rng(2)
    for param in layer.params.values():
        param *= 2  # so that clips and hard sigmoids meet their ends
    S = 1 + bidirectional
    x = rng.standard_normal((T, N, D), dtype=np.float32)
    state = tuple(2 * rng.standard_normal((S, N, H), dtype=np.float32) for _ in layer.states)
    if small_cells:
        state[1][...] *= 0.1
        for suffix in ("", "_reverse")[:S]:  # inputs and forgets little
            layer.params["bias_ih_l0" + suffix][: 2 * H] = -3
    model, inputs = make_node(onnx, cell, layer, options, lengths)
    inputs |= {"X": x} | dict(zip(("initial_h", "initial_c"), state))
    if lengths is not None:
        inputs["sequence_lens"] = lengths.astype(np.int32)
    Y, *state_n = evaluate(model, inputs)
    output, actual_n = layer(x, state if len(state) > 1 else state[0], lengths=lengths)
    if "cell_clip" in options:
        assert not small_cells or np.abs(state_n[1]).max() < layer.cell_clip
        plain = LAYERS[cell](D, H, bidirectional=bidirectional, **options | {"cell_clip": None})
        plain.load_state_dict(layer.state_dict())
        assert np.abs(plain(x, state, lengths=lengths)[0] - output).max() > 0.01, "a clip that clips nothing"
    expected = np.moveaxis(Y, 1, 2).reshape(T, N, S * H)  # (T, S, N, H)
    assert_output_close(output, expected.astype(np.float64), "float32")
    for actual, expected in zip(parts(actual_n), state_n, strict=True):
        assert_output_close(actual, expected.astype(np.float64), "float32")


IN_NUMPY = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "hard_sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0, 1),
    "hard_sigmoid_6": lambda a: np.clip(a / 6 + 0.5, 0, 1),
}


@pytest.mark.parametrize("cell, options", [o for o in OPTIONS if not o[1].get("nonlinearity")], ids=identify)
def test_agree_with_the_reference_evaluator(cell, options):
    """The evaluator's own recurrences; f, g and h are put into it where it has them fixed, clipped as ONNX says."""
    onnx = pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    from onnx.reference.ops import op_gru, op_lstm

    f, g = IN_NUMPY[options.get("gate_activation", "sigmoid")], IN_NUMPY[options.get("activation", "tanh")]
    clip = options.get("cell_clip", np.inf)
    named = {"f": lambda self, a: f(a.clip(-clip, clip)), "g": lambda self, a: g(a.clip(-clip, clip))}
    base = {"rnn": None, "gru": op_gru.GRU, "lstm": op_lstm.LSTM}[cell]
    new_ops = [type(cell.upper(), (base,), named | {"h": named["g"], "op_domain": ""})] if base else []
    compare(onnx, lambda model, inputs: evaluator(model, new_ops=new_ops).run(None, inputs), cell, options)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("cell, options", OPTIONS, ids=identify)
def test_agree_with_onnx_runtime(cell, options, bidirectional, lengths):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    def evaluate(model: Any, inputs: dict[str, Any]) -> list[np.ndarray]:
        session_options = runtime.SessionOptions()
        session_options.intra_op_num_threads = 1
        session = runtime.InferenceSession(
            model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, inputs)

    compare(
        onnx, evaluate, cell, options, lengths=lengths, bidirectional=bidirectional, small_cells="cell_clip" in options
    )
