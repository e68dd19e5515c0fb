"""Recurrent networks over trees in plain NumPy, node by node: what `fastrnn.functional.tree` is tested against.

Letters: V nodes of all trees, K trees, D input_size, H hidden_size, N children per node in the N-ary forms.
C(j) are the children of node j, l(k) is the position of child k, 0..N-1, among its parent's.

Each function takes `trees`, a `fastrnn.Trees` (only its arrays parent, position, root and leaf are read), and x:
(V, D), one row per node, or (leaves, D), one row per leaf, in which case all other nodes have x_j = 0.
All arrays of a call share one dtype, float32 or float64. Equations and their numbers are those of Tai, Socher and
Manning (2015, Improved semantic representations from tree-structured long short-term memory networks,
arXiv:1503.00075); their u is g here, as in `fastrnn.reference`. s is the logistic sigmoid, * elementwise, d<name> the
gradient of the loss with respect to <name>. A recursion over the tree is a loop in which children come before their
parents, backward the other way round. This module is written for reading: the layers and the compiled core check
arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array, Children, Maybe, Nonlinearity
from .activations import GATE_ACTIVATIONS, NONLINEARITIES
from .cache import ieee

__all__ = ["tree_lstm_backward", "tree_lstm_forward", "tree_rnn_backward", "tree_rnn_forward"]

_sigmoid, _ = GATE_ACTIVATIONS["sigmoid"]


def _children_first(parent: Array) -> tuple[list[int], list[list[int]]]:
    """All nodes, each after its children; and the children of each node."""
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if above >= 0:
            children[above].append(node)
    order = [node for node, above in enumerate(parent) if above < 0]
    for node in order:  # grows while it is walked: parents first
        order += children[node]
    return order[::-1], children


def _inputs(x: Array, trees: Any) -> Array:
    """One row of x per node: zeros for those without an input."""
    if len(x) == len(trees.parent):
        return x
    full = np.zeros((len(trees.parent), x.shape[1]), x.dtype)
    full[trees.leaf] = x
    return full


def _operand(h: Array, nodes: list[int], trees: Any, children: Children) -> Array:
    """What the recurrent weights multiply: h~ = sum of the children's h (H,), or [h_1; ...; h_N] (N*H,), with zeros for
    children that are not there."""
    H = h.shape[1]
    if children == "sum":
        return np.asarray(h[nodes].sum(axis=0))
    operand = np.zeros(int(children) * H, h.dtype)
    for k in nodes:
        operand[trees.position[k] * H :][:H] = h[k]
    return operand


def _operand_backward(d: Array, k: int, H: int, trees: Any, children: Children) -> Array:
    """The part of an operand's gradient that belongs to child k."""
    return d if children == "sum" else d[trees.position[k] * H :][:H]


def _start_backward(dh: Maybe, dh_root: Maybe, shape: tuple[int, ...], dtype: Any, trees: Any) -> Array:
    total = np.zeros(shape, dtype) if dh is None else dh.copy()
    if dh_root is not None:
        total[trees.root] += dh_root
    return total


def _finish_backward(grads: dict[str, Any], x: Array, trees: Any, into: dict[str, Array] | None) -> dict[str, Maybe]:
    if len(x) != len(trees.parent):
        grads["x"] = grads["x"][trees.leaf]
    for name, target in (into or {}).items():
        target += grads[name]
    return grads | (into or {})


# --- TreeRNN ----------------------------------------------------------------------------------------------------------


@ieee
def tree_rnn_forward(
    x: Array,
    trees: Any,
    weight_ih: Array,
    weight_hh: Array,
    bias: Maybe,
    *,
    nonlinearity: Nonlinearity = "tanh",
    children: Children = "sum",
    training: bool = True,
) -> tuple[Any, ...]:
    """The recursive network over trees (Goller and Kuechler 1996; Socher et al. 2011):

        h_j = g(W x_j + U sum over k in C(j) of h_k + b)             children="sum"
        h_j = g(W x_j + sum over k in C(j) of U_l(k) h_k + b)        children=N

    weight_ih is W (H, D); weight_hh is U (H, H), or [U_0, ..., U_{N-1}] (H, N*H); bias is b (H,) or None.
    Returns h (V, H), h_root (K, H) and the cache for one `tree_rnn_backward`, None unless training.
    """
    g, _ = NONLINEARITIES[nonlinearity]
    inputs = _inputs(x, trees)
    h = np.empty((len(trees.parent), len(weight_ih)), x.dtype)
    order, below = _children_first(trees.parent)
    for j in order:
        a = weight_ih @ inputs[j] + weight_hh @ _operand(h, below[j], trees, children)
        h[j] = g(a if bias is None else a + bias)
    cache = (x, inputs, trees, weight_ih, weight_hh, bias, nonlinearity, children, h) if training else None
    return h, h[trees.root], cache


@ieee
def tree_rnn_backward(
    dh: Maybe, dh_root: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through structure, from dh (V, H) and dh_root (K, H), each None for zeros:

        da_j = dh_j * g'(a_j),  dh_k += U^T da_j  (U_l(k)^T da_j)  for k in C(j)
        dx_j = W^T da_j,  dW += da_j x_j^T,  dU += da_j (sum of h_k)^T  (dU_l(k) += da_j h_k^T),  db += da_j

    Returns a dict with keys x, weight_ih, weight_hh, bias; `into` as in `fastrnn.reference`.
    """
    x, inputs, trees, weight_ih, weight_hh, bias, nonlinearity, children, h = cache
    _, g_backward = NONLINEARITIES[nonlinearity]
    dh = _start_backward(dh, dh_root, h.shape, h.dtype, trees)
    dx, dw_ih, dw_hh = np.empty_like(inputs), np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    db = np.zeros(len(weight_ih), h.dtype)
    order, below = _children_first(trees.parent)
    for j in reversed(order):
        da = g_backward(dh[j], h[j])
        dx[j] = weight_ih.T @ da
        dw_ih += np.outer(da, inputs[j])
        dw_hh += np.outer(da, _operand(h, below[j], trees, children))
        db += da
        d = weight_hh.T @ da
        for k in below[j]:
            dh[k] += _operand_backward(d, k, h.shape[1], trees, children)
    grads = {"x": dx, "weight_ih": dw_ih, "weight_hh": dw_hh, "bias": None if bias is None else db}
    return _finish_backward(grads, x, trees, into)


# --- TreeLSTM ---------------------------------------------------------------------------------------------------------


@ieee
def tree_lstm_forward(
    x: Array,
    trees: Any,
    weight_ih: Array,
    weight_hh: Array,
    bias: Maybe,
    *,
    children: Children = "sum",
    training: bool = True,
) -> tuple[Any, ...]:
    """Long short-term memory over trees, children="sum" (equations 2 to 8) or children=N (9 to 14), with the operand
    h~_j = sum over C(j) of h_k, or [h_0; ...; h_{N-1}], zeros for children that are not there:

        i_j  = s(W_i x_j + U_i h~_j + b_i)                     (3) (9)
        f_jk = s(W_f x_j + U_f h_k + b_f)                      (4)  children="sum": one gate per child, one U_f
        f_jk = s(W_f x_j + U_f,l(k) h~_j + b_f)                (10) children=N: U_f,l (H, N*H) sees all children
        o_j  = s(W_o x_j + U_o h~_j + b_o)                     (5) (11)
        g_j  = tanh(W_g x_j + U_g h~_j + b_g)                  (6) (12)
        c_j  = i_j * g_j + sum over C(j) of f_jk * c_k         (7) (13)
        h_j  = o_j * tanh(c_j)                                 (8) (14)

    weight_ih (4H, D) and bias (4H,), or None, have rows i, f, g, o. weight_hh has rows i, f, g, o (4H, H), or
    i, f_0, ..., f_{N-1}, g, o ((3+N)H, N*H): with one child per node, in either form, it is the LSTM of a sequence.
    Returns h (V, H), h_root and c_root (K, H) and the cache for one `tree_lstm_backward`, None unless training.
    """
    H = len(weight_ih) // 4
    inputs = _inputs(x, trees)
    h, c = np.empty((2, len(trees.parent), H), x.dtype)
    kept: dict[int, Any] = {}
    order, below = _children_first(trees.parent)
    for j in order:
        a = weight_ih @ inputs[j]
        a_i, a_f, a_g, a_o = np.split(a if bias is None else a + bias, 4)
        operand = _operand(h, below[j], trees, children)
        U_i, U_f, U_g, U_o = _recurrent(weight_hh, H)
        i, g, o = _sigmoid(a_i + U_i @ operand), np.tanh(a_g + U_g @ operand), _sigmoid(a_o + U_o @ operand)
        c[j], f = i * g, {}
        for k in below[j]:
            f[k] = _sigmoid(a_f + (U_f[0] @ h[k] if children == "sum" else U_f[trees.position[k]] @ operand))
            c[j] += f[k] * c[k]
        h[j] = o * np.tanh(c[j])
        kept[j] = i, f, g, o, operand
    cache = (x, inputs, trees, weight_ih, weight_hh, bias, children, h, c, kept) if training else None
    return h, h[trees.root], c[trees.root], cache


def _recurrent(weight_hh: Array, H: int) -> tuple[Array, Array, Array, Array]:
    """Views of weight_hh: U_i, U_f (forget gates, H, W), U_g, U_o."""
    blocks = weight_hh.reshape(-1, H, weight_hh.shape[1])
    return blocks[0], blocks[1:-2], blocks[-2], blocks[-1]


@ieee
def tree_lstm_backward(
    dh: Maybe, dh_root: Maybe, dc_root: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through structure, from dh (V, H), dh_root and dc_root (K, H), each None for zeros.

        dc_j  = dc_j + dh_j * o_j * (1 - tanh(c_j)^2)
        da_i  = dc_j * g_j * i_j (1 - i_j),   da_g = dc_j * i_j * (1 - g_j^2),   da_o = dh_j * tanh(c_j) * o_j (1 - o_j)
        da_fk = dc_j * c_k * f_jk (1 - f_jk),   da_f = sum over C(j) of da_fk,   dc_k = dc_j * f_jk
        dx_j  = W_i^T da_i + W_f^T da_f + W_g^T da_g + W_o^T da_o
        dh~_j = U_i^T da_i + U_g^T da_g + U_o^T da_o  (+ sum over C(j) of U_f,l(k)^T da_fk)
        dh_k += dh~_j + U_f^T da_fk                   (the part of dh~_j at l(k))

    and each weight's gradient adds up da times what the weight multiplied. The dict is as in `tree_rnn_backward`.
    """
    x, inputs, trees, weight_ih, weight_hh, bias, children, h, c, kept = cache
    H = h.shape[1]
    dh, dc = _start_backward(dh, dh_root, h.shape, h.dtype, trees), np.zeros_like(c)
    if dc_root is not None:
        dc[trees.root] = dc_root
    dx, dw_ih, dw_hh = np.empty_like(inputs), np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    db = np.zeros(len(weight_ih), h.dtype)
    U_i, U_f, U_g, U_o = _recurrent(weight_hh, H)
    dU_i, dU_f, dU_g, dU_o = _recurrent(dw_hh, H)
    order, below = _children_first(trees.parent)
    for j in reversed(order):
        i, f, g, o, operand = kept[j]
        tanh_c = np.tanh(c[j])
        dc_j = dc[j] + dh[j] * o * (1 - tanh_c**2)
        da_i, da_g, da_o = dc_j * g * i * (1 - i), dc_j * i * (1 - g * g), dh[j] * tanh_c * o * (1 - o)
        da_f = np.zeros_like(da_i)
        doperand = U_i.T @ da_i + U_g.T @ da_g + U_o.T @ da_o
        for dU, da in ((dU_i, da_i), (dU_g, da_g), (dU_o, da_o)):
            dU += np.outer(da, operand)
        for k in below[j]:
            da_fk = dc_j * c[k] * f[k] * (1 - f[k])
            da_f += da_fk
            dc[k] = dc_j * f[k]
            if children == "sum":
                dU_f[0] += np.outer(da_fk, h[k])
                dh[k] += U_f[0].T @ da_fk
            else:
                dU_f[trees.position[k]] += np.outer(da_fk, operand)
                doperand += U_f[trees.position[k]].T @ da_fk
        for k in below[j]:
            dh[k] += _operand_backward(doperand, k, H, trees, children)
        da = np.concatenate([da_i, da_f, da_g, da_o])
        dx[j] = weight_ih.T @ da
        dw_ih += np.outer(da, inputs[j])
        db += da
    grads = {"x": dx, "weight_ih": dw_ih, "weight_hh": dw_hh, "bias": None if bias is None else db}
    return _finish_backward(grads, x, trees, into)
