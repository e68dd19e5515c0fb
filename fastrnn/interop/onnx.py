"""ONNX: the recurrent nodes of a model as layers, as operators of ONNX Runtime and of onnx's
evaluator, and layers written as a model.

ONNX (operators RNN, GRU, LSTM; https://onnx.ai/onnx/operators/onnx__LSTM.html) stacks gates in the order z, r, h and
i, o, f, c, peepholes i, o, f; has one node for each layer; and joins both biases into B.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions, G gates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import onnx
    from onnx.reference.op_run import OpRun
except ImportError as error:
    raise ImportError(f'fastrnn.interop.onnx needs the package onnx: pip install "fastrnn[onnx]" ({error})') from error

from ..layers import GRU, LSTM, RNN, Module
from .onnx_nodes import (
    FROM_ONNX,
    Graph,
    UnsupportedNode,
    attributes_of,
    read_constants,
    read_model,
    read_options,
    read_weights,
    recurrent_nodes,
    run_node,
)
from .onnx_session import accelerate
from .onnx_writer import save
from .reverse import ReverseInTime

__all__ = ["UnsupportedNode", "accelerate", "load_layers", "ops", "save"]

Array = NDArray[Any]


def load_layers(model: str | os.PathLike[str] | onnx.ModelProto) -> dict[str, Module]:
    """The RNN, GRU and LSTM nodes of an ONNX model as fastrnn layers with the model's weights, in the graph's order.

    model: a file, external data beside it included, or a ModelProto. Nodes in the subgraphs of Loop, If and Scan count.
    Keys are the nodes' names, or that of the first output where a node has none. Layers have one level; direction
    "bidirectional" gives bidirectional ones, "reverse" a `ReverseInTime`, layout=1 batch_first. A constant initial
    state becomes the layer's learned one. An ONNX node puts out Y (T, S, N, H); a fastrnn layer puts out (T, N, S*H).

    Raises FileNotFoundError, ValueError for what is no ONNX model, and `UnsupportedNode`, a ValueError that names node
    and attribute, for a node that no layer of fastrnn computes.
    """
    if not isinstance(model, onnx.ModelProto):
        model = read_model(model)
    return {name: _layer(name, node, graph) for name, node, graph in recurrent_nodes(Graph(model.graph, None))}


# --- A node as a layer ------------------------------------------------------------------------------------------------


def _layer(name: str, node: onnx.NodeProto, graph: Graph) -> Module:
    kind, where = node.op_type, f"{node.op_type} node {name!r}"
    options = read_options(kind, attributes_of(node), where)
    constants = read_constants(node, graph, where)
    W, R, given = constants.W, constants.R, constants.given
    starts = {f"initial_{state}": graph.constant(given.get(f"initial_{state}", "")) for state in "hc"}
    starts = {key: a for key, a in starts.items() if a is not None and a.any()}
    S, H = len(W), R.shape[2]
    make: Callable[..., Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[kind]
    extra = {"peephole": True} if constants.P is not None else {}
    layer = make(
        W.shape[2],
        H,
        bias=constants.B is not None,
        batch_first=options.batch_first,
        bidirectional=S == 2,
        dtype=W.dtype,
        learn_initial_state=bool(starts),
        rng=0,
        **options.functional,
        **extra,
    )
    state_dict: dict[str, Array] = {}
    for s, suffix in zip(range(S), ("", "_reverse")):
        weights = read_weights(kind, W, R, constants.B, constants.P, s)
        state_dict |= {f"{key}_l0{suffix}": a for key, a in weights.items() if a is not None}
    for key in [key for key in layer.params if key.startswith("initial_")]:
        state_dict[key] = _one_start(starts.get(key), (S, H), options.batch_first, f"{where}: {key}")
    layer.load_state_dict(state_dict)
    return ReverseInTime(layer) if options.direction == "reverse" else layer


def _one_start(start: Array | None, shape: tuple[int, int], batch_first: bool, where: str) -> Array:
    """(S, H) of a constant initial state (S, N, H), or (N, S, H), that is the same for every row."""
    if start is None:
        return np.zeros(shape, np.float32)
    rows = start.swapaxes(0, 1) if batch_first else start
    if not (rows == rows[:, :1]).all():
        raise UnsupportedNode(f"{where}: expected one state for all rows, got one for each of {rows.shape[1]}")
    return np.ascontiguousarray(rows[:, 0])


# --- Nodes as operators of onnx.reference.ReferenceEvaluator ----------------------------------------------------------


class _Operator(OpRun):
    op_domain = ""

    def _run(self, *inputs: Array | None, **attributes: Any) -> tuple[Array, ...]:
        given: Any = inputs
        results = run_node(type(self).__name__, attributes, *given)
        return results[: len(self.onnx_node.output)]


ops = [type(kind, (_Operator,), {"op_domain": "", "__doc__": f"ONNX's {kind} on fastrnn."}) for kind in FROM_ONNX]
"""For `onnx.reference.ReferenceEvaluator(model, new_ops=ops)`: RNN, GRU and LSTM nodes run on fastrnn."""
