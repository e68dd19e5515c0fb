"""ONNX models in ONNX Runtime, their recurrent nodes on fastrnn. Letters as in `onnx_nodes`.

Design: the nodes become operators of the domain "fastrnn", which `_native._onnx_op` registers with ONNX Runtime: 1 to
7 us a call, without another package. Their weights are constants of the model, so they are packed once, here.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from .._native import _onnx_op
from .._native._stack import Stack
from ..functional.spec import CellSpec
from ..layers.params import Params
from .onnx_nodes import (
    Array,
    Constants,
    Graph,
    Options,
    UnsupportedNode,
    attributes_of,
    read_constants,
    read_model,
    read_options,
    read_weights,
    recurrent_nodes,
    run_node,
    subgraphs,
)

_keys = itertools.count()


def accelerate(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, sess_options: Any = None, **options: Any
) -> Any:
    """An onnxruntime.InferenceSession of the model, in which its RNN, GRU and LSTM nodes run on fastrnn.

    model: a file, external data beside it included, its bytes, or a ModelProto, which stays as it is. sess_options and
    options are InferenceSession's; without `providers` it is the CPU's. Inputs, outputs and what `run` returns are the
    model's own. Nodes in subgraphs of Loop, If and Scan count. fastrnn computes with its own number of threads.

    session.fastrnn_nodes is a pair: names of the nodes that run on fastrnn, and name -> why not of those that ONNX
    Runtime keeps: options that fastrnn lacks, weights that the graph computes, float16.
    Raises ImportError without onnxruntime 1.16 or newer, FileNotFoundError, ValueError for what is no ONNX model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f'fastrnn.interop.onnx.accelerate needs the package onnxruntime: pip install "fastrnn[onnx]" ({error})'
        ) from error
    own = onnx.ModelProto()
    if isinstance(model, bytes):
        own.ParseFromString(model)
    else:
        own.CopyFrom(model if isinstance(model, onnx.ModelProto) else read_model(model))
    keys: list[int] = []
    swapped: list[str] = []
    kept: dict[str, str] = {}
    weights: set[str] = set()
    for name, node, graph in list(recurrent_nodes(Graph(own.graph, None))):
        where = f"{node.op_type} node {name!r}"
        try:
            constants = read_constants(node, graph, where)
            run = _runner(node.op_type, attributes_of(node), constants, where)
        except UnsupportedNode as reason:
            kept[name] = str(reason)
            continue
        keys.append(next(_keys))
        _onnx_op.nodes[keys[-1]] = run
        _replace(node, constants, keys[-1])
        weights.update(constants.given.get(name, "") for name in "WRBP")
        swapped.append(name)
    if swapped:
        _drop_unused(own.graph, weights)
        own.opset_import.append(onnx.helper.make_opsetid("fastrnn", 1))
    sess_options = sess_options or onnxruntime.SessionOptions()
    sess_options.register_custom_ops_library(_onnx_op.__file__)
    options.setdefault("providers", ["CPUExecutionProvider"])
    session = onnxruntime.InferenceSession(own.SerializeToString(), sess_options, **options)
    session.fastrnn_nodes = swapped, kept
    weakref.finalize(session, _forget, keys)
    return session


def _drop_unused(graph: onnx.GraphProto, names: set[str]) -> None:
    """Take initialisers of these names that nothing reads any more out of the graph and those in it."""
    inner = [graph]
    for found in inner:
        inner += [g for node in found.node for g in subgraphs(node)]
    read = {name for found in inner for node in found.node for name in node.input}
    read |= {value.name for found in inner for value in (*found.output, *found.input)}
    for found in inner:
        left = [t for t in found.initializer if t.name not in names or t.name in read]
        del found.initializer[:]
        found.initializer.extend(left)


def _forget(keys: list[int]) -> None:
    for key in keys:
        _onnx_op.nodes.pop(key, None)


def _replace(node: onnx.NodeProto, constants: Constants, key: int) -> None:
    """Make `node` the operator that calls `_onnx_op.nodes[key]`."""
    inputs = [constants.given.get(name, "") for name in ("X", "sequence_lens", "initial_h", "initial_c")]
    own = onnx.helper.make_node(
        "SequenceFloat" if constants.W.dtype == np.float32 else "SequenceDouble",
        inputs,
        list(node.output),
        name=node.name,
        domain="fastrnn",
        node=key,
    )
    node.CopyFrom(own)


def _runner(
    kind: str, attributes: dict[str, Any], constants: Constants, where: str
) -> Callable[..., tuple[Array, ...]]:
    """What computes the node: (X, sequence_lens, initial_h, initial_c) -> (Y, Y_h) or (Y, Y_h, Y_c), in ONNX's layout.

    Raises UnsupportedNode.
    """
    options = read_options(kind, attributes, where)
    W, R, B, P = constants.W, constants.R, constants.B, constants.P
    S, H, lstm, batch_first = len(W), R.shape[2], kind == "LSTM", options.batch_first
    stack = _stack(kind, options, constants)
    backwards = options.direction == "reverse"

    def run(X: Array, lengths: Any, h0: Any, c0: Any) -> tuple[Array, ...]:
        time = 1 if batch_first else 0
        result = None
        if not (backwards and lengths is not None):
            result = stack.run(np.flip(X, time) if backwards else X, start(X, h0, c0), lengths, None, batch_first)
        if result is None:
            return run_node(kind, attributes, X, W, R, B, lengths, h0, c0, P)
        y, states = result
        y = np.flip(y, time) if backwards else y
        if S == 2 or batch_first:
            y = y.reshape(*y.shape[:2], S, H)
        if not batch_first:
            y = y.transpose(0, 2, 1, 3) if S == 2 else y[:, None]
        states = states if lstm else (states,)
        return y, *((s.swapaxes(0, 1) for s in states) if batch_first else states)

    def start(X: Array, h0: Any, c0: Any) -> Any:
        if h0 is None and c0 is None:
            return None
        if lstm and (h0 is None or c0 is None):
            zeros = np.zeros((X.shape[0], S, H) if batch_first else (S, X.shape[1], H), X.dtype)
            h0, c0 = (zeros if s is None else s for s in (h0, c0))
        if batch_first:
            h0, c0 = (None if s is None else np.ascontiguousarray(s.swapaxes(0, 1)) for s in (h0, c0))
        return (h0, c0) if lstm else h0

    return run if S == 2 or backwards or batch_first else _onnx_op.Node(run, stack)


def _stack(kind: str, options: Options, constants: Constants) -> Stack:
    given = options.functional
    activation = given.get("nonlinearity") or given["activation"]
    spec = CellSpec(
        {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}[kind],  # type: ignore[arg-type]
        activation,
        given.get("gate_activation", "sigmoid"),
        given.get("cell_clip"),
        reset_after=given.get("reset_after", True),
        peephole=constants.P is not None,
    )
    params = Params()
    names: list[dict[str, str]] = []
    for s in range(len(constants.W)):
        weights = read_weights(kind, constants.W, constants.R, constants.B, constants.P, s)
        names.append({key: f"{key}_{s}" for key, a in weights.items() if a is not None})
        params.update({f"{key}_{s}": a for key, a in weights.items() if a is not None})
    stack = Stack(params, names, len(constants.W), spec.compiled)
    stack.freeze(True)
    return stack
