"""ONNX Runtime and OpenVINO on the same ONNX model. Neither has a backward, and neither computes float64 here:
ONNX Runtime's kernels refuse it, OpenVINO's CPU plugin turns it into float32.

Letters: T time steps, N batch, D input_size, H hidden_size, L num_layers, S directions.
"""

from __future__ import annotations

import io
import sys
from typing import Any, ClassVar

import numpy as np

from fastrnn.bench.peers.base import Peer, Problem
from fastrnn.bench.shapes import FORWARD, GATES, STEP, Shape

GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}  # ONNX: i, o, f, c and z, r, h


class _OnnxPeer(Peer):
    """What the two share."""

    modes: ClassVar[tuple[str, ...]] = (FORWARD, STEP)
    dtypes = ("float32",)
    counts_threads = True
    num_threads: ClassVar[int] = 0  # of those that are made from now on; 0: its own choice

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._threads = self.num_threads

    def _inputs(self) -> dict[str, np.ndarray]:
        lengths = self.problem.lengths
        return {"x": self.problem.x} | ({} if lengths is None else {"lengths": lengths.astype(np.int32)})

    def _state_shape(self) -> tuple[int, int, int]:
        return self.problem.shape.directions, self.problem.shape.N, self.problem.shape.H


class OnnxRuntime(_OnnxPeer):
    """A session on a model of one node per layer; a step is a run of a model with T = 1 whose states are inputs."""

    name = "onnxruntime"
    requires = ("onnx", "onnxruntime")
    takes_lengths = True
    settling = 0.07  # its threads spin for 40 to 55 ms, next to which others run at 0.7 of their speed

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._feed = self._inputs()
        self._session = self._make_session(onnx_model(problem))
        self._step_session: Any = None

    def _make_session(self, model: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        OnnxRuntime.num_threads = num_threads
        return None

    def forward(self) -> Any:
        return self._session.run(["output"], self._feed)

    def output(self) -> np.ndarray:
        T, N = self.problem.shape[:2]
        return self.forward()[0].reshape(T, N, -1)

    def steps(self) -> list[Any]:
        if self._step_session is None:
            self._step_session = self._make_session(onnx_model(self.problem, one_step=True))
            self._x_t = [x_t[np.newaxis] for x_t in self.problem.steps()]
            self._names = [value.name for value in self._step_session.get_inputs()[1:]]
            self._zeros = {name: np.zeros(self._state_shape(), np.float32) for name in self._names}
        run, names, state, outputs = self._step_session.run, self._names, self._zeros, []
        for x_t in self._x_t:
            y, *state_n = run(None, {"x": x_t, **state})
            state = dict(zip(names, state_n))
            outputs.append(y)
        return outputs


class OnnxRuntimeSteps(OnnxRuntime):
    """The same as a cell: a sequence is as many runs of the model with T = 1, states handed from one to the next."""

    name = "onnx-steps"
    modes = (FORWARD,)
    takes_lengths = False

    @classmethod
    def suits(cls, shape: Shape, mode: str) -> bool:
        return super().suits(shape, mode) and not shape.bidirectional and shape.T <= 16

    def forward(self) -> Any:
        return self.steps()

    def output(self) -> np.ndarray:
        return self.step_outputs().reshape(*self.problem.shape[:2], -1)


class OpenVINO(_OnnxPeer):
    """A compiled model for latency, in float32 on every CPU, inputs and outputs shared rather than copied."""

    name = "openvino"
    requires = ("onnx", "openvino")

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._request = self._make_request(onnx_model(problem))
        self._step_request: Any = None

    def _make_request(self, model: bytes) -> Any:
        # Without this package openvino uses a stub of its own; with it, it forks processes that send usage data home.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        core = openvino.Core()
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._threads:
            config["INFERENCE_NUM_THREADS"] = self._threads
        return core.compile_model(core.read_model(io.BytesIO(model)), "CPU", config).create_infer_request()

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        OpenVINO.num_threads = num_threads
        return None

    def forward(self) -> Any:
        return self._request.infer({"x": self.problem.x}, share_inputs=True, share_outputs=True)

    def output(self) -> np.ndarray:
        T, N = self.problem.shape[:2]
        return self.forward()["output"].reshape(T, N, -1).copy()

    def steps(self) -> list[Any]:
        if self._step_request is None:
            self._step_request = self._make_request(onnx_model(self.problem, one_step=True))
            self._x_t = [x_t[np.newaxis] for x_t in self.problem.steps()]
            self._names = [port.any_name for port in self._step_request.model_inputs[1:]]
            self._zeros = {name: np.zeros(self._state_shape(), np.float32) for name in self._names}
        infer, names, state, outputs = self._step_request.infer, self._names, self._zeros, []
        for x_t in self._x_t:  # outputs are copied: the next step reads the states and writes over them
            y, *state_n = infer({"x": x_t, **state}, share_inputs=True, share_outputs=False).to_tuple()
            state = dict(zip(names, state_n))
            outputs.append(y)
        return outputs


def onnx_model(problem: Problem, one_step: bool = False) -> bytes:
    """The layers as ONNX nodes (opset 14, IR version 9), fixed sizes.

    Input "x" (T, N, D); output "output" (T, N, 2*H) if bidirectional, otherwise (T, 1, N, H) as the last node gives it.
    With one_step T is 1, and for every layer k there are inputs "h0_k" (and "c0_k") and, after "output", outputs
    "hn_k" (and "cn_k"), each (S, N, H).
    """
    from onnx import TensorProto, helper, numpy_helper

    shape, cell = problem.shape, problem.cell
    T, N, D, H = shape[:4]
    T = 1 if one_step else T
    S = shape.directions
    states = ("h", "c") if cell == "lstm" else ("h",)
    attributes: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if S == 2 else "forward"}
    if cell == "gru":
        attributes["linear_before_reset"] = 1  # PyTorch's form
    if cell == "rnn":
        attributes["activations"] = ["Tanh"] * S
    constants = {"joined": np.array([T, N, S * H])} if S == 2 or shape.num_layers > 1 else {}
    nodes, inputs, outputs = [], {"x": [T, N, D]}, {"output": [T, N, 2 * H] if S == 2 else [T, 1, N, H]}
    lengths = "lengths" if shape.lengths and not one_step else ""
    y = "x"
    for k, suffixes in enumerate(shape.suffixes):
        W, R, B = zip(*(_onnx_weights(problem, suffix) for suffix in suffixes))
        constants.update({f"W_{k}": np.stack(W), f"R_{k}": np.stack(R), f"B_{k}": np.stack(B)})
        read = [y, f"W_{k}", f"R_{k}", f"B_{k}"]
        written = [f"Y_{k}"]
        if lengths:
            read.append(lengths)
        if one_step:
            read += ["", *(f"{state}0_{k}" for state in states)]
            written += [f"{state}n_{k}" for state in states]
            inputs.update({f"{state}0_{k}": [S, N, H] for state in states})
            outputs.update({f"{state}n_{k}": [S, N, H] for state in states})
        nodes.append(helper.make_node(cell.upper(), read, written, **attributes))
        y = written[0]  # (T, S, N, H)
        if S == 2:
            nodes.append(helper.make_node("Transpose", [y], [f"turned_{k}"], perm=[0, 2, 1, 3]))
            y = f"turned_{k}"
        if S == 2 or k < shape.num_layers - 1:
            nodes.append(helper.make_node("Reshape", [y, "joined"], [f"y_{k}"]))
            y = f"y_{k}"
    nodes[-1].output[0] = "output"
    graph = helper.make_graph(
        nodes,
        cell,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in inputs.items()]
        + ([helper.make_tensor_value_info(lengths, TensorProto.INT32, [N])] if lengths else []),
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # IR version 9 on purpose: a new onnx package writes a newer one than the ONNX Runtime of the day can read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=9)
    return model.SerializeToString()


def _onnx_weights(problem: Problem, suffix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W (G*H, D), R (G*H, H) and B (2*G*H,) of one layer and direction, gates in ONNX's order."""
    W, R, *biases = (
        np.concatenate([np.split(array, GATES[problem.cell])[gate] for gate in GATE_ORDER[problem.cell]])
        for array in problem.weights_of(suffix)
    )
    return W, R, np.concatenate(biases)
