"""ONNX's recurrent nodes, read: their constants, attributes and weights in fastrnn's words, and what a node computes.

ONNX (operators RNN, GRU, LSTM; https://onnx.ai/onnx/operators/onnx__LSTM.html) stacks gates in the order z, r, h and
i, o, f, c, peepholes i, o, f; has one node for each layer; and joins both biases into B.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions, G gates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from .. import functional

Array = NDArray[Any]
FROM_ONNX = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}  # which of ONNX's gates are ours, in our order
PEEPHOLES_FROM_ONNX = (0, 2, 1)  # i, o, f -> i, f, o
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid"}
GATE_ACTIVATIONS = {"sigmoid": "sigmoid"}
HARD_SIGMOIDS = {0.2: "hard_sigmoid", 1 / 6: "hard_sigmoid_6"}  # by alpha; beta is 0.5


class UnsupportedNode(ValueError):
    """A recurrent node that fastrnn cannot compute; the message names the node and its attribute."""


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)}: expected an ONNX model, got no such file")
    try:
        model = onnx.load(os.fspath(path))
    except Exception as error:  # protobuf raises errors of its own
        raise ValueError(
            f"{os.fspath(path)}: expected an ONNX model, got a file that onnx cannot read ({error})"
        ) from None
    if not model.graph.node:
        raise ValueError(f"{os.fspath(path)}: expected an ONNX model, got one without nodes")
    return model


# --- Nodes and their constants ----------------------------------------------------------------------------------------


class Graph:
    """A graph's constants by name; those of the graph around it are visible in a subgraph."""

    def __init__(self, graph: onnx.GraphProto, outer: Graph | None) -> None:
        self.graph, self.outer = graph, outer
        self.producers = {output: node for node in graph.node for output in node.output}
        inputs = {value.name for value in graph.input}
        self.constants: dict[str, Array | None] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name not in inputs
        }

    def constant(self, name: str) -> Array | None:
        """The value of `name` if no input of the model can change it: nodes with constant inputs are evaluated."""
        if name not in self.constants:
            node = self.producers.get(name)
            if node is None:
                return None if self.outer is None else self.outer.constant(name)
            self.constants[name] = None
            values = {i: self.constant(i) for i in node.input if i}
            random = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
            if not random and all(value is not None for value in values.values()) and not subgraphs(node):
                results = ReferenceEvaluator(node).run(None, values)
                self.constants.update(zip(node.output, results))
        return self.constants[name]


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def recurrent_nodes(graph: Graph) -> Iterator[tuple[str, onnx.NodeProto, Graph]]:
    for node in graph.graph.node:
        if node.op_type in FROM_ONNX and node.domain in ("", "ai.onnx"):
            yield node.name or next(filter(None, node.output)), node, graph
        for inner in subgraphs(node):
            yield from recurrent_nodes(Graph(inner, graph))


# --- Attributes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """A node's attributes in fastrnn's words."""

    kind: str  # RNN, GRU or LSTM
    direction: str
    batch_first: bool
    functional: dict[str, Any]  # options of the functional forward


def read_options(kind: str, attributes: dict[str, Any], where: str) -> Options:
    """Raises UnsupportedNode that begins with `where` and names the attribute."""

    def refuse(attribute: str, expected: str) -> UnsupportedNode:
        return UnsupportedNode(f"{where}: {attribute}: expected {expected}, got {attributes.get(attribute)!r}")

    direction = attributes.get("direction") or "forward"
    if direction not in ("forward", "reverse", "bidirectional"):
        raise refuse("direction", "'forward', 'reverse' or 'bidirectional'")
    if attributes.get("input_forget"):
        raise refuse("input_forget", "0, as fastrnn's LSTM has a forget gate of its own")
    clip = attributes.get("clip")
    if clip and kind != "LSTM":
        raise refuse("clip", f"none, as fastrnn's {kind} does not clip")
    names = _activations(kind, attributes, 2 if direction == "bidirectional" else 1, refuse)
    options: dict[str, Any] = {}
    if kind == "RNN":
        options["nonlinearity"] = names[0]
    else:
        options["gate_activation"], options["activation"] = names[:2]
    if kind == "GRU":
        options["reset_after"] = bool(attributes.get("linear_before_reset"))
    if kind == "LSTM" and clip:
        options["cell_clip"] = float(clip)
    return Options(kind, direction, bool(attributes.get("layout")), options)


def _activations(kind: str, attributes: dict[str, Any], S: int, refuse: Callable[[str, str], Exception]) -> list[str]:
    """f, g, h in fastrnn's names."""
    given = [_text(name) for name in attributes.get("activations") or DEFAULTS[kind] * S]
    wanted = "the same activations in both directions"
    if len(given) < S * len(DEFAULTS[kind]):
        raise refuse("activations", f"{S * len(DEFAULTS[kind])} names")
    given = given[: S * len(DEFAULTS[kind])]  # the schema's default for one direction names two
    alphas, betas = list(attributes.get("activation_alpha") or ()), list(attributes.get("activation_beta") or ())
    names = []
    for index, name in enumerate(given):
        gate = kind != "RNN" and index % len(DEFAULTS[kind]) == 0
        known = GATE_ACTIVATIONS if gate else ACTIVATIONS
        if gate and name.lower() == "hardsigmoid":
            alpha = alphas.pop(0) if alphas else 0.2
            beta = betas.pop(0) if betas else 0.5
            near = [ours for ours_alpha, ours in HARD_SIGMOIDS.items() if abs(alpha - ours_alpha) < 1e-4]
            if not near or abs(beta - 0.5) > 1e-6:
                raise refuse("activation_alpha", "0.2 or 1/6, and activation_beta 0.5, of HardSigmoid")
            names.append(near[0])
        elif name.lower() in known:
            names.append(known[name.lower()])
        else:
            raise refuse("activations", f"of {', '.join(known)}{', hardsigmoid' if gate else ''}")
    if names[: len(DEFAULTS[kind])] * S != names:
        raise refuse("activations", wanted)
    if kind == "LSTM" and names[1] != names[2]:
        raise refuse("activations", "the same g and h")
    return names


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- Weights ----------------------------------------------------------------------------------------------------------


def _rows(a: Array, order: tuple[int, ...]) -> Array:
    """(G*H, ...) with its gates in another order."""
    parts = np.split(a, len(order))
    return np.ascontiguousarray(np.concatenate([parts[k] for k in order]))


def read_weights(kind: str, W: Array, R: Array, B: Array | None, P: Array | None, s: int) -> dict[str, Array | None]:
    """Direction s of a node's W (S, G*H, D), R (S, G*H, H), B (S, 2*G*H), P (S, 3*H), by the core's names."""
    order = FROM_ONNX[kind]
    biases = [None, None] if B is None else [_rows(bias, order) for bias in np.split(B[s], 2)]
    weights = {"weight_ih": _rows(W[s], order), "weight_hh": _rows(R[s], order)}
    if P is not None:
        weights["weight_peephole"] = _rows(P[s], PEEPHOLES_FROM_ONNX)
    return weights | {"bias_ih": biases[0], "bias_hh": biases[1]}


@dataclass(frozen=True)
class Constants:
    """A node's weights, and the names of what it is given."""

    W: Array  # (S, G*H, D)
    R: Array  # (S, G*H, H)
    B: Array | None  # (S, 2*G*H)
    P: Array | None  # (S, 3*H)
    given: dict[str, str]  # the operator's name of an input -> the graph's


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}


def read_constants(node: onnx.NodeProto, graph: Graph, where: str) -> Constants:
    """Raises UnsupportedNode for weights that the graph computes, and for other dtypes than float32 and float64."""
    given = {ours: theirs for ours, theirs in zip(INPUTS, node.input) if theirs}
    constants: dict[str, Array | None] = {}
    for ours in ("W", "R", "B", "P"):
        constants[ours] = graph.constant(given[ours]) if ours in given else None
        if ours in given and constants[ours] is None:
            raise UnsupportedNode(
                f"{where}: {ours}: expected a constant, got {given[ours]!r}, which the graph computes"
            )
    W, R = constants["W"], constants["R"]
    if W is None or R is None or W.dtype not in (np.float32, np.float64):
        raise UnsupportedNode(f"{where}: W: expected float32 or float64, got {None if W is None else W.dtype}")
    return Constants(W, R, constants["B"], constants["P"], given)


# --- What a node computes ---------------------------------------------------------------------------------------------


def run_node(
    kind: str,
    attributes: dict[str, Any],
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
) -> tuple[Array, ...]:
    """What the ONNX operator `kind` computes: Y (T, S, N, H), Y_h (S, N, H) and, of an LSTM, Y_c; with layout=1
    Y (N, T, S, H), Y_h (N, S, H). Arguments are the operator's inputs. Raises UnsupportedNode as `load_layers`."""
    options = read_options(kind, attributes, kind)
    if options.batch_first:
        X = X.swapaxes(0, 1)
        initial_h, initial_c = (None if a is None else a.swapaxes(0, 1) for a in (initial_h, initial_c))
    forward: Any = {"RNN": functional.rnn_forward, "GRU": functional.gru_forward, "LSTM": functional.lstm_forward}[kind]
    T, N, _ = X.shape
    for name, state in (("initial_h", initial_h), ("initial_c", initial_c)):
        if state is not None and state.shape != (len(W), N, R.shape[2]):
            raise ValueError(f"{name}: expected shape {(len(W), N, R.shape[2])} = (S, N, H), got {state.shape}")
    Y = np.empty((T, len(W), N, R.shape[2]), X.dtype)
    states: list[list[Array]] = []
    for s in range(len(W)):
        starts = [initial_h] if kind != "LSTM" else [initial_h, initial_c]
        _, *state_n, _ = forward(
            X,
            *(None if a is None else np.ascontiguousarray(a[s]) for a in starts),
            **read_weights(kind, W, R, B, P, s),
            lengths=sequence_lens,
            reverse=options.direction == "reverse" or s == 1,
            out=Y[:, s],
            training=False,
            **options.functional,
        )
        states.append(state_n)
    results = [Y, *(np.stack(parts) for parts in zip(*states))]
    if options.batch_first:
        results = [Y.transpose(2, 0, 1, 3), *(a.swapaxes(0, 1) for a in results[1:])]
    return tuple(results)
