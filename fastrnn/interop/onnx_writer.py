"""Layers written as an ONNX model.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions, M outputs, V vocabulary.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .. import layers
from .._files import replace_file

Array = NDArray[Any]
TO_ONNX = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
NAMES = {
    "tanh": "Tanh",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    "hard_sigmoid_6": "HardSigmoid",
}
ALPHAS = {"hard_sigmoid": 0.2, "hard_sigmoid_6": 1 / 6}
OPSET, IR_VERSION = 17, 8  # what ONNX Runtime reads from 1.12 on


def save(model: layers.Module, path: str | os.PathLike[str], *, prefix: str = "") -> None:
    """Write a layer or Sequential as an ONNX model, for inference.

    Inputs: "x", laid out as the layer reads it, any T and N, float or for an Embedding int64 tokens; "lengths" (N,)
    int32, N entries, and for each recurrent level k "h_k" (and "c_k") (S, N, H), the state that sequences start from:
    zeros begin anew. Outputs: "y", and "h_k_n" (and "c_k_n"), the states that they end with, which a stream feeds back.
    Layers: RNN, GRU, LSTM (without projection), Embedding, Linear, Activation, Dropout, LastStep.
    Nodes are named as parameters are: level 1 of layer 0 of a Sequential is "0.level_1", behind prefix ("encoder.").
    A file that is there is replaced as a whole or not at all.
    Raises TypeError for another layer, ValueError for an option that ONNX does not have, OSError as files do.
    """
    if not isinstance(model, layers.Module):
        raise TypeError(f"model: expected a layer or Sequential, got {type(model).__name__}")
    _Writer(model, prefix).write(path)


class _Writer:
    def __init__(self, model: layers.Module, prefix: str) -> None:
        named = {prefix: model}  # what the names of its parameters begin with -> layer
        if isinstance(model, layers.Sequential):
            named = {f"{prefix}{index}.": layer for index, layer in enumerate(model)}
        self.name, self.named, parts = "", named, list(named.values())
        self.batch_first = bool(model.batch_first)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.levels = 0
        self.axes = 2 if model.batch_first is None else 3  # of what the next layer reads
        dtypes = [p.dtype for layer in parts for p in layer.params.values()]
        self.dtype = dtypes[0] if dtypes else np.dtype(np.float32)
        self.kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.tokens = isinstance(parts[0], layers.Embedding)
        self.recurrent = any(isinstance(layer, (layers.RNN, layers.GRU, layers.LSTM)) for layer in parts)

    def write(self, path: str | os.PathLike[str]) -> None:
        y, axes = "x", ["N", "T"] if self.batch_first else ["T", "N"]
        kind = TensorProto.INT64 if self.tokens else self.kind
        shape = [*axes, None][: self.axes - 1] if self.tokens else [*axes, None][-self.axes :]
        self.inputs.append(helper.make_tensor_value_info("x", kind, shape))
        if self.recurrent:
            self.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["N"]))
        for name, layer in self.named.items():
            self.name = name
            writer = self._writers().get(type(layer))
            if writer is None:
                raise TypeError(f"model: expected layers that ONNX has, got {type(layer).__name__}")
            y = writer(layer, y)
        self.node("Identity", [y], "y")
        self.outputs.insert(0, helper.make_tensor_value_info("y", self.kind, [None] * self.axes))
        initializers = [numpy_helper.from_array(a, name) for name, a in self.constants.items()]
        graph = helper.make_graph(self.nodes, "fastrnn", self.inputs, self.outputs, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        memory = io.BytesIO()
        memory.name = os.fspath(path)  # onnx tells the format by the suffix
        onnx.save(model, memory)
        replace_file(path, memory.getvalue())

    def _writers(self) -> dict[type, Any]:
        return {
            layers.RNN: self.recurrence,
            layers.GRU: self.recurrence,
            layers.LSTM: self.recurrence,
            layers.Linear: self.linear,
            layers.Embedding: self.embedding,
            layers.Activation: self.activation,
            layers.Dropout: lambda layer, y: y,
            layers.LastStep: self.last_step,
        }

    def node(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    # --- layers -------------------------------------------------------------------------------------------------------

    def linear(self, layer: layers.Linear, y: str) -> str:
        y = self.node("MatMul", [y, self.constant(layer.params["weight"].T.copy())])
        return self.node("Add", [y, self.constant(layer.params["bias"])]) if layer.bias else y

    def embedding(self, layer: layers.Embedding, y: str) -> str:
        return self.node("Gather", [self.constant(layer.params["weight"]), y])

    def activation(self, layer: layers.Activation, y: str) -> str:
        if layer.name == "softmax":
            return self.node("Softmax", [y], axis=-1)
        return self.node({"identity": "Identity"}.get(layer.name) or NAMES[layer.name], [y])

    def last_step(self, layer: layers.LastStep, y: str) -> str:
        """Row n's step lengths[n] - 1, zeros where that is 0."""
        self.axes = 2
        if not self.recurrent:
            return self.node("Gather", [y, self.constant(-1, np.int64)], axis=1 if self.batch_first else 0)
        if not self.batch_first:
            y = self.node("Transpose", [y], perm=[1, 0, 2])
        lengths = self.node("Cast", ["lengths"], to=TensorProto.INT64)
        at = self.node("Max", [self.node("Sub", [lengths, self.constant(1, np.int64)]), self.constant(0, np.int64)])
        at = self.node("Unsqueeze", [at, self.constant([1], np.int64)])
        y = self.node("GatherND", [y, at], batch_dims=1)
        some = self.node("Cast", [self.node("Greater", [lengths, self.constant(0, np.int64)])], to=self.kind)
        return self.node("Mul", [y, self.node("Unsqueeze", [some, self.constant([1], np.int64)])])

    def recurrence(self, layer: Any, y: str) -> str:
        """A node for each level, time-major in between, as ONNX Runtime has no layout=1."""
        if getattr(layer, "proj_size", 0):
            raise ValueError(f"proj_size: expected 0, as ONNX has no projection, got {layer.proj_size}")
        if any(layer.noise.zoneout):
            raise ValueError(f"zoneout: expected 0, as ONNX's layers have none, got {layer.noise.zoneout}")
        if self.batch_first:
            y = self.node("Transpose", [y], perm=[1, 0, 2])
        for k in range(layer.num_layers):
            y = self._level(layer, y, k)
        return self.node("Transpose", [y], perm=[1, 0, 2]) if self.batch_first else y

    def _level(self, layer: Any, y: str, k: int) -> str:
        kind, states = type(layer).__name__, ("h", "c") if isinstance(layer, layers.LSTM) else ("h",)
        S = 2 if layer.bidirectional else 1
        suffixes = [f"_l{k}", f"_l{k}_reverse"][:S]

        def rows(name: str) -> Array:
            both = [layer.params[name + suffix] for suffix in suffixes]
            return np.stack([np.concatenate([np.split(a, len(TO_ONNX[kind]))[g] for g in TO_ONNX[kind]]) for a in both])

        read = [y, self.constant(rows("weight_ih")), self.constant(rows("weight_hh")), "", "lengths"]
        if layer.bias:
            bias_ih = rows("bias_ih")
            bias_hh = rows("bias_hh") if layer.bias is True else np.zeros_like(bias_ih)
            read[3] = self.constant(np.concatenate([bias_ih, bias_hh], axis=1))
        names = [f"{state}_{self.levels}" for state in states]
        shape = [S, "N", layer.hidden_size]
        for index, name in enumerate(names):
            self.inputs.append(helper.make_tensor_value_info(name, self.kind, shape))
            self.outputs.append(helper.make_tensor_value_info(name + "_n", self.kind, shape))
            read.append(self._start(layer, name, k, states[index]) if layer.learn_initial_state else name)
        if getattr(layer, "peephole", False):
            both = [np.split(layer.params["weight_peephole" + suffix], 3) for suffix in suffixes]
            read.append(self.constant(np.stack([np.concatenate([p[0], p[2], p[1]]) for p in both])))
        output = f"v{len(self.nodes)}"
        written = [output, *(name + "_n" for name in names)]
        self.nodes.append(helper.make_node(kind, read, written, f"{self.name}level_{k}", **_attributes(layer, S)))
        self.levels += 1
        if S == 2 and layer.merge == "sum":  # over both directions, which are axis 1
            return self.node("ReduceSum", [output, self.constant([1], np.int64)], keepdims=0)
        if S == 2 and layer.merge != "concat":
            return self.node({"mul": "ReduceProd", "ave": "ReduceMean"}[layer.merge], [output], axes=[1], keepdims=0)
        turned = self.node("Transpose", [output], perm=[0, 2, 1, 3])  # (T, S, N, H) -> (T, N, S, H)
        return self.node("Reshape", [turned, self.constant([0, 0, S * layer.hidden_size], np.int64)])

    def _start(self, layer: Any, name: str, k: int, state: str) -> str:
        """A learned initial state is added to the one that is given: zeros begin with it."""
        S = 2 if layer.bidirectional else 1
        learned = layer.params[f"initial_{state}"][k * S : (k + 1) * S, None]
        zero = self.node("ReduceMax", [self.node("Abs", [name])], axes=[0, 2], keepdims=1)
        begins = self.node("Equal", [zero, self.constant(0, self.dtype)])
        return self.node("Where", [begins, self.constant(learned.copy()), name])


def _attributes(layer: Any, S: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if S == 2 else "forward",
    }
    gate, other = getattr(layer, "gate_activation", None), getattr(layer, "activation", None)
    used: list[Any]
    if isinstance(layer, layers.RNN):
        used = [layer.nonlinearity]
    else:
        used = [gate, other] if isinstance(layer, layers.GRU) else [gate, other, other]
    for name in used:
        if name not in NAMES:
            raise ValueError(f"activation: expected one that ONNX has, {', '.join(NAMES)}, got {name!r}")
    attributes["activations"] = [NAMES[name] for name in used] * S
    if gate in ALPHAS:
        attributes["activation_alpha"], attributes["activation_beta"] = [ALPHAS[gate]] * S, [0.5] * S
    if isinstance(layer, layers.GRU):
        attributes["linear_before_reset"] = int(layer.reset_after)
    if getattr(layer, "cell_clip", None):
        attributes["clip"] = layer.cell_clip
    return attributes
