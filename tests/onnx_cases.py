"""Models of one recurrent node, and ONNX Runtime's results, for the tests of the ONNX door.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = ("forward", "reverse", "bidirectional")
D, H = 3, 5


def make_arrays(kind, S, seed=0, peephole=False, dtype=np.float32):
    rng, G = np.random.default_rng(seed), GATES[kind]
    shapes = {"W": (S, G * H, D), "R": (S, G * H, H), "B": (S, 2 * G * H)}
    if peephole:
        shapes["P"] = (S, 3 * H)
    return {name: rng.standard_normal(shape).astype(dtype) * 0.5 for name, shape in shapes.items()}


def make_model(kind, arrays, names=("X", "W", "R", "B"), outputs=None, **attributes):
    """One node whose weights are initialisers; all other names are inputs."""
    outputs = outputs or ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, list(names), outputs, name="node", hidden_size=H, **attributes)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT32 if n == "sequence_lens" else TensorProto.FLOAT, None)
        for n in names
        if n and n not in arrays
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    weights = [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in names]
    graph = helper.make_graph([node], "graph", inputs, infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_runtime(model, feeds):
    runtime = pytest.importorskip("onnxruntime")
    if not isinstance(model, str):
        model = model.SerializeToString()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: a for name, a in feeds.items() if name in wanted})


def parts(state):
    return state if isinstance(state, tuple) else (state,)
