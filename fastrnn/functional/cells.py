"""One step of each cell, with the output of RNN textbooks. Letters as in the package."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from ..activations import ACTIVATIONS
from .checks import Array, Maybe, check, option
from .linear import linear_backward, linear_map
from .sequences import gru_backward, gru_forward, lstm_backward, lstm_forward, rnn_backward, rnn_forward


def rnn_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    nonlinearity: str = "tanh", weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `rnn_forward`: x (N, D) and the state before it, h0 (N, H).

    With weight_hy (M, H) and bias_y (M,) or None it also computes y_t = g2(W_hy h_t + b_y), g2 = output_activation:
    identity, tanh, relu, sigmoid or softmax. Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    return _cell_forward("rnn", rnn_forward, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh),
                         {"nonlinearity": nonlinearity}, weight_hy, bias_y, output_activation)  # fmt: skip


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step from dh_next (N, H) and dy (N, M), None for zeros: a dict with the keys of `rnn_backward`
    and, where the forward had it, weight_hy and bias_y."""
    return _cell_backward("rnn", rnn_backward, (dh_next,), cache, dy)


def gru_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    reset_after: bool = True, gate_activation: str = "sigmoid", activation: str = "tanh",
    weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `gru_forward`; arguments and returned values as in `rnn_cell_forward`."""
    return _cell_forward("gru", gru_forward, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh),
                         {"reset_after": reset_after, "gate_activation": gate_activation, "activation": activation},
                         weight_hy, bias_y, output_activation)  # fmt: skip


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, as in `rnn_cell_backward`."""
    return _cell_backward("gru", gru_backward, (dh_next,), cache, dy)


def lstm_cell_forward(
    x: Array, h0: Maybe, c0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    weight_hr: Maybe = None, weight_peephole: Maybe = None, gate_activation: str = "sigmoid", activation: str = "tanh",
    cell_clip: float | None = None,
    weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `lstm_forward`: returns h_next, c_next, cache; with weight_hy: h_next, c_next, y, cache."""
    options = {
        "weight_hr": weight_hr, "weight_peephole": weight_peephole, "gate_activation": gate_activation,
        "activation": activation, "cell_clip": cell_clip,
    }  # fmt: skip
    return _cell_forward("lstm", lstm_forward, x, (h0, c0), (weight_ih, weight_hh, bias_ih, bias_hh), options,
                         weight_hy, bias_y, output_activation)


def lstm_cell_backward(
    dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None
) -> dict[str, Maybe]:
    """Gradients of one step, also from dc_next (N, H); the dict has c0 too."""
    return _cell_backward("lstm", lstm_backward, (dh_next, dc_next), cache, dy)


class _CellCache:
    """What one step keeps: the cache of its sequence of T = 1, and its output, if it has one."""

    def __init__(self, kind: str, sequence: Any, state: list[Array], head: tuple | None):
        self.kind, self.sequence, self.head = kind, sequence, head
        self.state_shapes, self.dtype = [part.shape for part in state], state[0].dtype


def _cell_forward(kind: str, forward: Callable, x: Any, state: tuple, weights: tuple, options: dict,
                  weight_hy: Maybe, bias_y: Maybe, output_activation: str) -> tuple[Any, ...]:  # fmt: skip
    option("output_activation", output_activation, ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected shape (N, D), came {np.shape(x)}")
    _, *next_state, sequence = forward(x[None], *state, *weights, **options)
    if weight_hy is None:
        return *next_state, _CellCache(kind, sequence, next_state, None)
    h = next_state[0]
    if np.ndim(weight_hy) != 2 or np.shape(weight_hy)[1] != h.shape[1]:
        raise ValueError(f"weight_hy: expected shape (M, {h.shape[1]}), came {np.shape(weight_hy)}")
    check(weight_hy, "weight_hy", weight_hy.shape, h.dtype)
    a, linear = linear_map(h, weight_hy, bias_y, ("h", "weight_hy", "bias_y"))
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN follow IEEE arithmetic, silently
        y = ACTIVATIONS[output_activation][0](a)
    return *next_state, y, _CellCache(kind, sequence, next_state, (linear, output_activation, y))


def _cell_backward(kind: str, backward: Callable, dstate: tuple, cache: Any, dy: Maybe) -> dict[str, Maybe]:
    if not isinstance(cache, _CellCache) or cache.kind != kind:
        came = f"{cache.kind}_cell_forward" if isinstance(cache, _CellCache) else type(cache).__name__
        raise TypeError(f"cache: expected the cache of {kind}_cell_forward, came {came}")
    for name, array, shape in zip(("dh_next", "dc_next"), dstate, cache.state_shapes):
        if array is not None:
            check(array, name, shape, cache.dtype)
    if cache.head is None:
        if dy is not None:
            raise ValueError("dy: expected None, as the forward had no weight_hy")
        gradients = backward(None, *dstate, cache.sequence)
        return gradients | {"x": gradients["x"][0]}
    linear, output_activation, y = cache.head
    if dy is None:
        dy = np.zeros_like(y)
    check(dy, "dy", y.shape, y.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        da = ACTIVATIONS[output_activation][1](dy, y)
    head = linear_backward(da, linear)
    gradients = backward(head["x"][None], *dstate, cache.sequence)
    return gradients | {"x": gradients["x"][0], "weight_hy": head["weight"], "bias_y": head["bias"]}
