"""Who is timed: fastrnn and its peers, each on the same weights and inputs.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates. A peer's own package is imported only when the
peer is made, so that those which are not installed can be left out.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import fastrnn
from fastrnn.bench.shapes import GATES, Shape

Arrays = dict[str, np.ndarray]

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Problem:
    """One layer with its input, float32, initial state zero.

    weights: PyTorch's layouts, weight_ih (G*H, D), weight_hh (G*H, H), bias_ih and bias_hh (G*H,).
    x: (T, N, D). doutput: (T, N, H), the gradient of some loss by the output.
    """

    cell: str
    shape: Shape
    weights: Arrays
    x: np.ndarray
    doutput: np.ndarray


def make_problem(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Weights from PyTorch's U(-1/sqrt(H), 1/sqrt(H)), input and output gradient from the normal distribution."""
    T, N, D, H = shape
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(H)
    rows = GATES[cell] * H
    sizes = ((rows, D), (rows, H), (rows,), (rows,))
    return Problem(
        cell=cell,
        shape=shape,
        weights={name: rng.uniform(-bound, bound, size).astype(np.float32) for name, size in zip(WEIGHTS, sizes)},
        x=rng.standard_normal((T, N, D), dtype=np.float32),
        doutput=rng.standard_normal((T, N, H), dtype=np.float32),
    )


class Peer:
    """A contender. `forward` and `forward_backward` are what is timed; `output` and `gradients` are what is compared.

    output: (T, N, H) after `forward`. gradients: by x and by the four weights, after `forward_backward`.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    has_backward: ClassVar[bool] = True
    settling: ClassVar[float] = 0.015
    """Seconds after a call until its threads have stopped spinning, which would slow down whoever comes next."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @classmethod
    def missing(cls) -> list[str]:
        """The packages that this peer needs and that are not installed."""
        return [package for package in cls.requires if importlib.util.find_spec(package) is None]

    @staticmethod
    def set_num_threads(num_threads: int) -> None:
        """Make peers that are built from now on use this many threads."""

    def forward(self) -> Any:
        raise NotImplementedError

    def output(self) -> np.ndarray:
        raise NotImplementedError

    def forward_backward(self) -> Any:
        raise NotImplementedError

    def gradients(self) -> Arrays:
        raise NotImplementedError


class FastRNN(Peer):
    """The layer classes, as users call them."""

    name = "fastrnn"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        _, _, D, H = problem.shape
        layer_class = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[problem.cell]
        self.layer = layer_class(D, H)
        self.layer.load_state_dict({f"{name}_l0": array for name, array in problem.weights.items()})

    def forward(self) -> Any:
        return self.layer(self.problem.x)

    def output(self) -> np.ndarray:
        return self.forward()[0]

    def forward_backward(self) -> np.ndarray:
        self.layer.zero_grad()
        self.layer(self.problem.x, training=True)
        dx, _ = self.layer.backward(self.problem.doutput)
        return dx

    def gradients(self) -> Arrays:
        dx = self.forward_backward()
        return {"x": dx, **{name: self.layer.grads[f"{name}_l0"].copy() for name in WEIGHTS}}


class NumPyReference(Peer):
    """fastrnn.reference: plain NumPy, a Python loop over time."""

    name = "numpy"
    settling = 0.12  # OpenBLAS's threads spin for about 0.1 s; 50 ms after a product others still ran at half speed

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        from fastrnn import reference  # here, since the library itself never loads it

        self._forward = getattr(reference, f"{problem.cell}_forward")
        self._backward = getattr(reference, f"{problem.cell}_backward")
        self._states = (None, None) if problem.cell == "lstm" else (None,)

    def forward(self, training: bool = False) -> Any:
        return self._forward(self.problem.x, *self._states, *self.problem.weights.values(), training=training)

    def output(self) -> np.ndarray:
        return self.forward()[0]

    def forward_backward(self) -> Arrays:
        *_, cache = self.forward(training=True)
        return self._backward(self.problem.doutput, *self._states, cache)

    def gradients(self) -> Arrays:
        grads = self.forward_backward()
        return {name: grads[name] for name in ("x", *WEIGHTS)}


class Torch(Peer):
    """torch.nn.RNN, GRU and LSTM, eager; forward under no_grad."""

    name = "torch"
    requires = ("torch",)

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import torch

        self._no_grad = torch.no_grad
        _, _, D, H = problem.shape
        self.module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[problem.cell](D, H)
        self.module.load_state_dict({f"{name}_l0": torch.tensor(array) for name, array in problem.weights.items()})
        self.x = torch.tensor(problem.x)
        self.x_with_grad = torch.tensor(problem.x, requires_grad=True)
        self.doutput = torch.tensor(problem.doutput)

    @staticmethod
    def set_num_threads(num_threads: int) -> None:
        import torch

        torch.set_num_threads(num_threads)

    def forward(self) -> Any:
        with self._no_grad():
            return self.module(self.x)

    def output(self) -> np.ndarray:
        return self.forward()[0].numpy()

    def forward_backward(self) -> None:
        self.x_with_grad.grad = None
        self.module.zero_grad(set_to_none=True)
        output, _ = self.module(self.x_with_grad)
        output.backward(self.doutput)

    def gradients(self) -> Arrays:
        self.forward_backward()
        by_weight = {name: getattr(self.module, f"{name}_l0").grad.numpy() for name in WEIGHTS}
        return {"x": self.x_with_grad.grad.numpy(), **by_weight}


class OnnxRuntime(Peer):
    """ONNX Runtime on a model of one node; it has no backward."""

    name = "onnxruntime"
    requires = ("onnx", "onnxruntime")
    has_backward = False
    num_threads: ClassVar[int] = 0  # 0: its own choice

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            _onnx_model(problem), options, providers=["CPUExecutionProvider"]
        )

    @staticmethod
    def set_num_threads(num_threads: int) -> None:
        OnnxRuntime.num_threads = num_threads

    def forward(self) -> Any:
        return self.session.run(None, {"X": self.problem.x})

    def output(self) -> np.ndarray:
        return self.forward()[0][:, 0]  # Y is (T, directions, N, H)


def _onnx_model(problem: Problem) -> bytes:
    """The layer as one ONNX node, its outputs Y, Y_h and, for the LSTM, Y_c (opset 14)."""
    from onnx import TensorProto, helper, numpy_helper

    T, N, D, H = problem.shape
    onnx_order = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}[problem.cell]  # i,o,f,c and z,r,h

    def reorder(array: np.ndarray) -> np.ndarray:
        gates = np.split(array, GATES[problem.cell])
        return np.concatenate([gates[gate] for gate in onnx_order])[np.newaxis]

    weight_ih, weight_hh, bias_ih, bias_hh = (reorder(problem.weights[name]) for name in WEIGHTS)
    constants = {"W": weight_ih, "R": weight_hh, "B": np.concatenate([bias_ih, bias_hh], axis=1)}
    attributes = {"hidden_size": H}
    if problem.cell == "gru":
        attributes["linear_before_reset"] = 1  # PyTorch's form
    sizes = {"Y": [T, 1, N, H], "Y_h": [1, N, H]}
    if problem.cell == "lstm":
        sizes["Y_c"] = [1, N, H]
    graph = helper.make_graph(
        [helper.make_node(problem.cell.upper(), ["X", *constants], list(sizes), **attributes)],
        problem.cell,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [T, N, D])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # IR version 9 on purpose: a new onnx package writes a newer one than the ONNX Runtime of the day can read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=9)
    return model.SerializeToString()


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (NumPyReference, Torch, OnnxRuntime)}
