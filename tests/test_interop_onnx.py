"""fastrnn.interop.onnx: nodes as layers and as operators, layers as models, against onnx's evaluator and ONNX Runtime.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from conftest import assert_output_close

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_cases import DIRECTIONS, GATES, D, H, make_arrays, make_model, parts, run_runtime  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.interop import onnx as door  # noqa: E402
from fastrnn.interop.reverse import ReverseInTime  # noqa: E402

# --- load_layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 7, 50])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "kind, attributes", [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})]
)
def test_layers_equal_onnx_runtime(kind, attributes, direction, lengths, T):
    S, N = 1 + (direction == "bidirectional"), 4
    arrays = make_arrays(kind, S)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, N, D), dtype=np.float32)
    state = [rng.standard_normal((S, N, H), dtype=np.float32) for _ in range(2 if kind == "LSTM" else 1)]
    counts = rng.integers(1, T + 1, N) if lengths else None
    names = ["X", "W", "R", "B", "sequence_lens" if lengths else "", "initial_h", "initial_c"][: 5 + len(state)]
    model = make_model(kind, arrays, names, direction=direction, **attributes)
    feeds = {"X": x, "initial_h": state[0], "initial_c": state[-1]}
    if lengths:
        feeds["sequence_lens"] = counts.astype(np.int32)
    Y, *expected_n = run_runtime(model, feeds)
    (layer,) = door.load_layers(model).values()
    output, state_n = layer(x, state[0] if len(state) == 1 else tuple(state), lengths=counts)
    assert_output_close(output, np.moveaxis(Y, 1, 2).reshape(T, N, S * H).astype(np.float64), "float32")
    for actual, expected in zip(parts(state_n), expected_n, strict=True):
        assert_output_close(actual, expected.astype(np.float64), "float32")


def test_peepholes_and_clip_are_read():
    arrays = make_arrays("LSTM", 2, peephole=True)
    names = ["X", "W", "R", "B", "", "", "", "P"]
    model = make_model("LSTM", arrays, names, direction="bidirectional")
    x = np.random.default_rng(3).standard_normal((6, 2, D), dtype=np.float32)
    (layer,) = door.load_layers(model).values()
    assert layer.peephole
    Y = run_runtime(model, {"X": x})[0]
    assert_output_close(layer(x)[0], np.moveaxis(Y, 1, 2).reshape(6, 2, 2 * H).astype(np.float64), "float32")
    (clipped,) = door.load_layers(make_model("LSTM", arrays, names, direction="bidirectional", clip=0.7)).values()
    assert clipped.cell_clip == pytest.approx(0.7)


def test_hard_sigmoids_are_told_apart_by_alpha():
    arrays = make_arrays("GRU", 1)
    for alpha, expected in ((None, "hard_sigmoid"), (0.2, "hard_sigmoid"), (1 / 6, "hard_sigmoid_6")):
        more = {} if alpha is None else {"activation_alpha": [alpha], "activation_beta": [0.5]}
        (layer,) = door.load_layers(make_model("GRU", arrays, activations=["HardSigmoid", "Tanh"], **more)).values()
        assert layer.gate_activation == expected


@pytest.mark.parametrize(
    "kind, attributes, named",
    [
        ("RNN", {"activations": ["Softsign"]}, "activations"),
        ("RNN", {"clip": 1.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "activations"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.3]}, "activation_alpha"),
        ("GRU", {"direction": "sideways"}, "direction"),
    ],
)
def test_what_no_layer_computes_is_refused_by_its_attribute(kind, attributes, named):
    with pytest.raises(door.UnsupportedNode, match=f"^{kind} node 'node': {named}: expected .* got "):
        door.load_layers(make_model(kind, make_arrays(kind, 1), **attributes))


def test_weights_that_the_graph_computes_are_refused():
    arrays = make_arrays("RNN", 1)
    with pytest.raises(door.UnsupportedNode, match="R: expected a constant, got 'R'"):
        door.load_layers(make_model("RNN", {k: arrays[k] for k in ("W", "B")}))


def test_constants_behind_nodes_and_in_subgraphs(tmp_path):
    """Weights that are transposed on the way, in the branch of an If, with external data beside the file."""
    arrays = make_arrays("GRU", 1)
    inner_node = helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], hidden_size=H)
    turn = helper.make_node("Transpose", ["W_turned"], ["W"], perm=[0, 2, 1])
    branch = helper.make_graph([turn, inner_node], "b", [], [helper.make_tensor_value_info("Y", 1, None)])
    outer = helper.make_node("If", ["yes"], ["Z"], then_branch=branch, else_branch=branch)
    weights = {"W_turned": arrays["W"].swapaxes(1, 2).copy(), "R": arrays["R"], "B": arrays["B"]}
    graph = helper.make_graph(
        [outer],
        "graph",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("Z", 1, None)],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    layers = door.load_layers(path)
    assert list(layers) == ["Y"]
    G = np.split(layers["Y"].params["weight_ih_l0"], 3)
    assert np.array_equal(np.concatenate([G[1], G[0], G[2]]), arrays["W"][0])


def test_a_constant_initial_state_becomes_the_learned_one():
    arrays = make_arrays("GRU", 1)
    start = np.random.default_rng(5).standard_normal((1, 1, H)).astype(np.float32)
    arrays["initial_h"] = np.repeat(start, 3, axis=1)
    model = make_model("GRU", arrays, ["X", "W", "R", "B", "", "initial_h"])
    x = np.random.default_rng(6).standard_normal((4, 3, D), dtype=np.float32)
    (layer,) = door.load_layers(model).values()
    assert_output_close(layer(x)[0], run_runtime(model, {"X": x})[0][:, 0].astype(np.float64), "float32")
    arrays["initial_h"][0, 1] += 1
    with pytest.raises(door.UnsupportedNode, match="initial_h: expected one state for all rows"):
        door.load_layers(make_model("GRU", arrays, ["X", "W", "R", "B", "", "initial_h"]))


def test_layout_1_is_batch_first():
    arrays = make_arrays("LSTM", 1)
    model = make_model("LSTM", arrays, layout=1)
    (layer,) = door.load_layers(model).values()
    x = np.random.default_rng(7).standard_normal((2, 6, D), dtype=np.float32)
    Y = ReferenceEvaluator(make_model("LSTM", arrays)).run(None, {"X": x.swapaxes(0, 1)})[0]
    assert layer.batch_first
    assert_output_close(layer(x)[0], Y[:, 0].swapaxes(0, 1).astype(np.float64), "float32")


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(FileNotFoundError, match="x.onnx: expected an ONNX model"):
        door.load_layers(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="x.onnx: expected an ONNX model"):
        door.load_layers(path)


# --- ReverseInTime ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_reverse_in_time_has_right_gradients(batch_first):
    layer = ReverseInTime(fastrnn.GRU(D, H, dtype=np.float64, batch_first=batch_first, rng=1))
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 4, D))
    lengths = np.array([4, 1, 2]) if batch_first else np.array([3, 1, 2, 0])
    out, h_n = layer(x, lengths=lengths, training=True)
    dout, dh = rng.standard_normal(out.shape), rng.standard_normal(h_n.shape)
    dx, _ = layer.backward(dout, dh)

    def value():
        out, h_n = layer(x, lengths=lengths)
        return (out * dout).sum() + (h_n * dh).sum()

    numeric = np.empty_like(x)
    for at in np.ndindex(*x.shape):
        old, sides = x[at], []
        for step in (1e-5, -1e-5):
            x[at] = old + step
            sides.append(value())
        x[at] = old
        numeric[at] = (sides[0] - sides[1]) / 2e-5
    assert np.abs(dx - numeric).max() < 1e-8
    assert np.abs(dx).max() > 0.01


def test_reverse_in_time_is_rebuilt_from_its_description():
    layer = ReverseInTime(fastrnn.RNN(2, 3, rng=1))
    again = fastrnn.layers.build(layer.config())
    again.load_state_dict(layer.state_dict())
    x = np.random.default_rng(1).standard_normal((4, 2, 2), dtype=np.float32)
    assert np.array_equal(layer(x)[0], again(x)[0])


# --- ops --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GATES)
def test_node_tests_of_onnx(kind):
    """Every RNN, GRU and LSTM case of the onnx package's own node tests, by `ops`."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    importlib.import_module(f"onnx.backend.test.case.node.{kind.lower()}")
    cases = [case for case in node._NodeTestCases if case.model.graph.node[0].op_type == kind]
    assert len(cases) >= 4, "onnx has fewer cases than this test thinks"
    for case in cases:
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            actual = ReferenceEvaluator(case.model, new_ops=door.ops).run(None, dict(zip(names, inputs, strict=True)))
            for got, expected in zip(actual, outputs, strict=True):
                assert got.shape == expected.shape, case.name
                assert np.abs(got - expected).max() < 1e-5, case.name


# --- save -------------------------------------------------------------------------------------------------------------


def save_and_run(model, path, x, lengths, states):
    door.save(model, path)
    onnx.checker.check_model(str(path))
    return run_runtime(str(path), {"x": x, "lengths": lengths, **states})


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_saved_layers_equal_in_onnx_runtime(cell, bidirectional, batch_first, tmp_path):
    layer = cell(D, H, 2, bidirectional=bidirectional, batch_first=batch_first, rng=1)
    rng, T, N, S = np.random.default_rng(2), 6, 3, 1 + bidirectional
    x = rng.standard_normal((N, T, D) if batch_first else (T, N, D), dtype=np.float32)
    lengths = np.array([6, 2, 4], np.int32)
    letters = "hc" if cell is fastrnn.LSTM else "h"
    names = [[f"{letter}_{k}" for letter in letters] for k in range(2)]
    state = tuple(rng.standard_normal((2 * S, N, H), dtype=np.float32) for _ in letters)
    feeds = {name: part[k * S : (k + 1) * S] for k in range(2) for name, part in zip(names[k], state)}
    y, *state_n = save_and_run(layer, tmp_path / "m.onnx", x, lengths, feeds)
    expected, expected_n = layer(x, state if len(state) == 2 else state[0], lengths=lengths)
    assert_output_close(y, expected.astype(np.float64), "float32")
    got = [np.concatenate(state_n[i :: len(letters)]) for i in range(len(letters))]
    for actual, wanted in zip(got, parts(expected_n), strict=True):
        assert_output_close(actual, wanted.astype(np.float64), "float32")


def test_a_saved_tagger_and_a_saved_classifier(tmp_path):
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, 11, (4, 7)), np.array([7, 1, 3, 5], np.int32)
    zeros = {f"{s}_{k}": np.zeros((1, 4, H), np.float32) for s, k in itertools.product("hc", range(1))}
    for last in (False, True):
        model = fastrnn.Sequential(
            fastrnn.Embedding(11, D, rng=1),
            fastrnn.LSTM(D, H, batch_first=True, learn_initial_state=True, rng=2),
            fastrnn.Dropout(0.5, rng=3),
            *([fastrnn.LastStep(batch_first=True)] if last else []),
            fastrnn.Linear(H, 2, rng=4),
            fastrnn.Activation("softmax"),
        )
        model.params["1.initial_h"][...] = 0.3
        y = save_and_run(model, tmp_path / "m.onnx", tokens, lengths, zeros)[0]
        assert_output_close(y, model(tokens, lengths=lengths).astype(np.float64), "float32")


def test_what_onnx_does_not_have_is_refused(tmp_path):
    with pytest.raises(TypeError, match="model: expected a layer or Sequential, got int"):
        door.save(3, tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="model: expected layers that ONNX has, got MeanPool"):
        door.save(fastrnn.Sequential(fastrnn.RNN(2, 3, rng=0), fastrnn.MeanPool()), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="proj_size"):
        door.save(fastrnn.LSTM(2, 3, proj_size=1, rng=0), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="activation: .*identity"):
        door.save(fastrnn.RNN(2, 3, nonlinearity="identity", rng=0), tmp_path / "m.onnx")


def test_nodes_are_named_as_parameters_are(tmp_path):
    model = fastrnn.Sequential(fastrnn.GRU(D, H, 2, rng=0), fastrnn.Linear(H, D, rng=0), fastrnn.LSTM(D, H, rng=0))
    door.save(model, tmp_path / "m.onnx")
    assert list(door.load_layers(tmp_path / "m.onnx")) == ["0.level_0", "0.level_1", "2.level_0"]
    door.save(model[0], tmp_path / "m.onnx", prefix="encoder.")
    assert list(door.load_layers(tmp_path / "m.onnx")) == ["encoder.level_0", "encoder.level_1"]


def test_round_trip(tmp_path):
    layer = fastrnn.LSTM(D, H, bidirectional=True, peephole=True, gate_activation="hard_sigmoid_6", rng=1)
    door.save(layer, tmp_path / "m.onnx")
    (again,) = door.load_layers(tmp_path / "m.onnx").values()
    assert again.gate_activation == "hard_sigmoid_6"
    for name, param in layer.params.items():
        assert np.array_equal(param, again.params[name]), name


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
def test_merged_directions_are_written(merge, tmp_path):
    rng = np.random.default_rng(0)
    for make in (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM):
        layer = make(D, H, 2, bidirectional=True, merge=merge, rng=0, batch_first=make is fastrnn.GRU)
        door.save(layer, tmp_path / "model.onnx")
        x = rng.standard_normal((6, 4, D)).astype(np.float32)
        lengths = np.array([6, 2, 5, 1, 3, 4][: x.shape[0 if layer.batch_first else 1]], np.int32)
        lengths = np.minimum(lengths, x.shape[1 if layer.batch_first else 0])
        feeds = {"x": x, "lengths": lengths}
        for k in range(2):
            for state in ("h", "c") if make is fastrnn.LSTM else ("h",):
                feeds[f"{state}_{k}"] = np.zeros((2, len(lengths), H), np.float32)
        found = run_runtime(str(tmp_path / "model.onnx"), feeds)[0]
        np.testing.assert_allclose(found, layer(x, lengths=lengths)[0], atol=2e-6)
        session = door.accelerate(tmp_path / "model.onnx")
        assert len(session.fastrnn_nodes[0]) == 2
        np.testing.assert_allclose(session.run(["y"], feeds)[0], found, atol=2e-6)
