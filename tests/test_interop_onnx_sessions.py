"""fastrnn.interop.onnx.accelerate: recurrent nodes of an ONNX Runtime session on fastrnn.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_cases import DIRECTIONS, GATES, D, H, make_arrays, make_model  # noqa: E402

from fastrnn.interop import onnx as door  # noqa: E402


def sessions(model):
    """ONNX Runtime's own, and ours."""
    runtime = pytest.importorskip("onnxruntime")
    plain = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return plain, door.accelerate(model)


def assert_same_session(model, feeds, tolerance=2e-6):
    plain, ours = sessions(model)
    names = {value.name for value in plain.get_inputs()}
    feeds = {name: a for name, a in feeds.items() if name in names}
    for _ in range(2):
        for a, b in zip(plain.run(None, feeds), ours.run(None, feeds), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)
    return ours


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_accelerated_sessions_equal_onnxruntime(kind, direction):
    S = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(1)
    for names in (
        ("X", "W", "R", "B"),
        ("X", "W", "R"),
        ("X", "W", "R", "B", "sequence_lens"),
        ("X", "W", "R", "B", "", "initial_h"),
        ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"),
        ("X", "W", "R", "B", "", "", "initial_c"),
    ):
        if kind != "LSTM" and "initial_c" in names:
            continue
        options = {"linear_before_reset": len(names) % 2} if kind == "GRU" else {}
        model = make_model(kind, make_arrays(kind, S), names, direction=direction, **options)
        for T, N in ((1, 1), (1, 3), (7, 4)):
            feeds = {
                "X": rng.standard_normal((T, N, D)).astype(np.float32),
                "sequence_lens": np.minimum(T, 1 + np.arange(N)).astype(np.int32),
                "initial_h": rng.standard_normal((S, N, H)).astype(np.float32),
                "initial_c": rng.standard_normal((S, N, H)).astype(np.float32),
            }
            ours = assert_same_session(model, feeds)
            assert ours.fastrnn_nodes == (["node"], {})


def test_accelerated_peepholes_clip_layout_and_dtypes():
    x = np.random.default_rng(0).standard_normal((4, 2, D))
    arrays = make_arrays("LSTM", 1, peephole=True)
    model = make_model("LSTM", arrays, ("X", "W", "R", "B", "", "", "", "P"), clip=0.5)
    assert_same_session(model, {"X": x.astype(np.float32)})
    for kind in GATES:  # ONNX Runtime has no layout=1: onnx's evaluator is the judge
        model = make_model(kind, make_arrays(kind, 1), layout=1)
        pytest.importorskip("onnxruntime")
        ours = door.accelerate(model).run(None, {"X": x.astype(np.float32)})
        for a, b in zip(ReferenceEvaluator(model, new_ops=door.ops).run(None, {"X": x.astype(np.float32)}), ours):
            np.testing.assert_allclose(a, b, atol=2e-6)
    arrays = make_arrays("LSTM", 1, dtype=np.float64)
    model = make_model("LSTM", arrays)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    ours = door.accelerate(model)
    expected = ReferenceEvaluator(model).run(None, {"X": x})
    np.testing.assert_allclose(ours.run(None, {"X": x})[0], expected[0], atol=1e-12)


@pytest.mark.parametrize("kind", GATES)
def test_accelerated_nodes_whose_outputs_nobody_reads(kind):
    rng = np.random.default_rng(2)
    for read in (["Y"], ["Y_h"], ["Y_c"]) if kind == "LSTM" else (["Y"], ["Y_h"]):
        model = make_model(kind, make_arrays(kind, 1), ("X", "W", "R", "B", "sequence_lens", "initial_h"))
        model.graph.node[0].output[:] = [name if name in read else "" for name in model.graph.node[0].output]
        kept = [value for value in model.graph.output if value.name in read]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        for lengths in ([5, 5, 5], [5, 2, 4]):
            feeds = {
                "X": rng.standard_normal((5, 3, D)).astype(np.float32),
                "sequence_lens": np.array(lengths, np.int32),
                "initial_h": rng.standard_normal((1, 3, H)).astype(np.float32),
            }
            assert_same_session(model, feeds)


def test_a_state_of_another_shape_is_refused():
    model = make_model("LSTM", make_arrays("LSTM", 1), ("X", "W", "R", "B", "", "initial_h"))
    pytest.importorskip("onnxruntime")
    ours = door.accelerate(model)
    for shape in ((1, 2, H + 1), (1, 3, H), (2, 2, H)):
        with pytest.raises(Exception, match="fastrnn: ValueError: initial_h: expected"):
            ours.run(None, {"X": np.zeros((4, 2, D), np.float32), "initial_h": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_empty_batches_are_taken(kind, direction):
    pytest.importorskip("onnxruntime")
    S = 2 if direction == "bidirectional" else 1
    names = ("X", "W", "R", "B", "sequence_lens", "initial_h")
    for given in (names, names[:4]):
        model = make_model(kind, make_arrays(kind, S), given, direction=direction)
        feeds = {
            "X": np.zeros((4, 0, D), np.float32),
            "sequence_lens": np.zeros(0, np.int32),
            "initial_h": np.zeros((S, 0, H), np.float32),
        }
        shapes = [
            (4, S, 0, H),
            *[(S, 0, H)] * (2 if kind == "LSTM" else 1),
        ]  # ONNX Runtime's own, where it does not abort
        ours = door.accelerate(model).run(None, {name: feeds[name] for name in given if name in feeds})
        assert [a.shape for a in ours] == shapes
    ours = door.accelerate(make_model(kind, make_arrays(kind, S), layout=1, direction=direction))
    assert [a.shape for a in ours.run(["Y", "Y_h"], {"X": np.zeros((0, 4, D), np.float32)})] == [
        (0, 4, S, H),
        (0, S, H),
    ]


def test_options_of_one_session_serve_for_others():
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    for kind in GATES:
        ours = door.accelerate(make_model(kind, make_arrays(kind, 1)), options)
        assert ours.run(["Y_h"], {"X": np.zeros((2, 1, D), np.float32)})[0].shape == (1, 1, H)


def test_what_is_no_model_is_refused_in_memory_too():
    pytest.importorskip("onnxruntime")
    for model in (b"", b"no model", onnx.ModelProto()):
        with pytest.raises(ValueError, match="model: expected an ONNX model, got"):
            door.accelerate(model)
    for model in (None, 3, []):
        with pytest.raises(TypeError, match="model: expected a path, a ModelProto or its bytes, got"):
            door.accelerate(model)


def test_what_fastrnn_lacks_stays_onnxruntimes():
    model = make_model("GRU", make_arrays("GRU", 1), clip=0.5, linear_before_reset=1)
    x = np.random.default_rng(0).standard_normal((4, 2, D)).astype(np.float32)
    ours = assert_same_session(model, {"X": x})
    assert ours.fastrnn_nodes[0] == [] and "clip" in ours.fastrnn_nodes[1]["node"]
    with pytest.raises(FileNotFoundError):
        door.accelerate("nowhere.onnx")


def test_an_accelerated_session_lets_its_weights_go(tmp_path):
    pytest.importorskip("onnxruntime")
    from fastrnn._native import _onnx_op

    model = make_model("LSTM", make_arrays("LSTM", 1))
    onnx.save(model, tmp_path / "model.onnx")
    before = model.SerializeToString()
    session = door.accelerate(tmp_path / "model.onnx")
    twin = door.accelerate(before)
    assert len(_onnx_op.nodes) == 2 and model.SerializeToString() == before
    x = np.ones((3, 2, D), np.float32)
    np.testing.assert_array_equal(session.run(["Y_h"], {"X": x})[0], twin.run(["Y_h"], {"X": x})[0])
    with pytest.raises(Exception, match="X"):
        session.run(None, {"X": np.ones((3, 2, D + 1), np.float32)})
    del session, twin
    assert not _onnx_op.nodes
