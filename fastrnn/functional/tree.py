"""Recurrent networks over trees, compiled: the twin of `fastrnn.reference.tree`, which has the equations.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node in the N-ary forms.

x (V, D), one row per node, or (leaves, D), one row per leaf in the order of `trees.leaf`, in which case all other nodes
have no input (x_j = 0) and none is computed for them. All arrays of a call share one dtype, float32 or float64. A level
of all trees goes through the register tiles at once; the GIL is released for a whole pass and results do not depend on
the number of threads. Raises TypeError for a wrong type or dtype, ValueError for a wrong shape, an unknown option or a
node with more than N children, RuntimeError for a cache that an earlier backward has consumed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _native
from .._validate import Array, Children, Maybe, Nonlinearity, check_children
from .spec import CellSpec, spec_of
from .tree_batch import Trees

__all__ = ["tree_lstm_backward", "tree_lstm_forward", "tree_rnn_backward", "tree_rnn_forward"]


def tree_rnn_forward(
    x: Array,
    trees: Trees,
    weight_ih: Array,
    weight_hh: Array,
    bias: Maybe,
    *,
    nonlinearity: Nonlinearity = "tanh",
    children: Children = "sum",
    training: bool = True,
) -> tuple[Any, ...]:
    """h_j = g(W x_j + U * sum of the children's h + b), or with a U per position for children=N.

    weight_ih (H, D), weight_hh (H, H) or (H, N*H), bias (H,) or None; nonlinearity tanh, relu, sigmoid or identity.
    Returns h (V, H), h_root (K, H) and the cache for one `tree_rnn_backward`, None unless training.
    """
    h, _, cache = run_trees(spec_of("rnn", nonlinearity), x, trees, weight_ih, weight_hh, bias, children, training)
    return h, h[trees.root], cache


def tree_rnn_backward(
    dh: Maybe, dh_root: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Gradients from dh (V, H) and dh_root (K, H), each None for zeros: a dict with keys x, weight_ih, weight_hh, bias.
    `into`, a dict of arrays under any of these keys, has the gradients added to it, and the dict then holds those."""
    grads: dict[str, Maybe] = _native.tree_backward(False, cache, dh, dh_root, None, into)
    return grads


def tree_lstm_forward(
    x: Array,
    trees: Trees,
    weight_ih: Array,
    weight_hh: Array,
    bias: Maybe,
    *,
    children: Children = "sum",
    training: bool = True,
) -> tuple[Any, ...]:
    """The child-sum (children="sum") or N-ary (children=N) TreeLSTM of Tai, Socher and Manning (2015).

    weight_ih (4H, D) and bias (4H,) or None have rows i, f, g, o; weight_hh has rows i, f, g, o (4H, H), or
    i, f_0, ..., f_{N-1}, g, o ((3+N)H, N*H).
    Returns h (V, H), h_root and c_root (K, H) and the cache for one `tree_lstm_backward`, None unless training.
    """
    h, c_root, cache = run_trees(spec_of("lstm"), x, trees, weight_ih, weight_hh, bias, children, training)
    return h, h[trees.root], c_root, cache


def tree_lstm_backward(
    dh: Maybe, dh_root: Maybe, dc_root: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Gradients, also from dc_root (K, H); the rest as in `tree_rnn_backward`."""
    grads: dict[str, Maybe] = _native.tree_backward(True, cache, dh, dh_root, dc_root, into)
    return grads


def run_trees(
    spec: CellSpec,
    x: Any,
    trees: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias: Any,
    children: Any,
    training: bool,
    stack: _native.TreeStack | None = None,
) -> tuple[Array, Maybe, Any]:
    """h, c_root (None where the cell has no c) and the cache, None unless training.

    stack: keeps these weights packed for calls without training, and has been asked to `look`."""
    if not isinstance(trees, Trees):
        raise TypeError(f"trees: expected fastrnn.Trees, got {type(trees).__name__}")
    children = check_children(children)
    if children != "sum" and trees.max_children > children:
        node = int((np.where(trees.parent >= 0, trees.position, -1) >= children).argmax())
        raise ValueError(
            f"trees: expected at most {children} children, in positions below {children}, got position "
            f"{trees.position[node]} for {trees.name_of(node)}"
        )
    result: tuple[Array, Maybe, Any] = _native.tree_forward(
        spec.compiled,
        x,
        children=0 if children == "sum" else children,
        levels=trees.levels,
        num_trees=trees.num_trees,
        weight_ih=weight_ih,
        weight_hh=weight_hh,
        bias=bias,
        training=bool(training),
        stack=stack,
    )
    return result
