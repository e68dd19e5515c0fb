"""What the cells share: one step with an output, and the cascade over time.

Letters: T time steps, N batch, D input_size, H hidden_size, M outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._validate import Array, Maybe, check_array, check_lengths, check_reset_mask
from .activations import OUTPUT_ACTIVATIONS, activation_of
from .cache import Cache, add_into, check_states, ieee, kept
from .linear import affine, affine_backward

States = tuple[Array, ...]


class Weights(NamedTuple):
    weight_ih: Array  # (G*H, D)
    weight_hh: Array  # (G*H, H), with a projection (G*H, P)
    bias_ih: Maybe  # (G*H,)
    bias_hh: Maybe  # (G*H,)


class Cell(NamedTuple):
    """A recurrence: `step` and `step_backward` know nothing of time. The first state is the output."""

    name: str
    states: tuple[str, ...]
    step: Callable[..., tuple[States, Any]]  # x, state, weights, options -> next state, gates kept for the backward
    step_backward: Callable[
        ..., tuple[Array, States, Any]
    ]  # dstate, x, state, gates, weights, options -> dx, dstate before, dweights
    output: str = "output"


Checked = tuple[Cell, Array, States, Any, Any]  # a cell, and its x, state, weights and options, checked


@ieee
def cell_forward(
    cell: Cell, x: Array, state: States, w: Any, options: Any, weight_hy: Maybe, bias_y: Maybe, output_activation: str
) -> tuple[Any, ...]:
    """One step and, with weight_hy, its output; the caller has checked all but the last three."""
    g = activation_of("output_activation", output_activation, OUTPUT_ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    state_next, gates = cell.step(x, state, w, options)
    if weight_hy is None:
        return *state_next, Cache(cell.name + "_cell_forward", (x, state, gates, w, options, None))
    M, _ = check_array("weight_hy", weight_hy, ("M", state[0].shape[1]), x.dtype)
    if bias_y is not None:
        check_array("bias_y", bias_y, (M,), x.dtype)
    y = g[0](affine(state_next[0], weight_hy, bias_y))
    head = (state_next[0], weight_hy, bias_y, g, y)
    return *state_next, y, Cache(cell.name + "_cell_forward", (x, state, gates, w, options, head))


@ieee
def cell_backward(cell: Cell, dstate: tuple[Maybe, ...], cache: Any, dy: Maybe) -> dict[str, Maybe]:
    x, state, gates, w, options, head = kept(cache, cell.name + "_cell_forward")
    after = check_states([f"d{s}_next" for s in cell.states], dstate, [s.shape for s in state], x.dtype)
    head_grads: dict[str, Maybe] = {}
    if head is None and dy is not None:
        raise ValueError("dy: expected None, as the forward had no weight_hy")
    if head is not None:
        h_next, weight_hy, bias_y, g, y = head
        (dy,) = check_states(["dy"], (dy,), (y.shape,), x.dtype)
        dh, dweight_hy, dbias_y = affine_backward(g[1](dy, y), h_next, weight_hy, bias_y)
        after = (after[0] + dh, *after[1:])
        head_grads = {"weight_hy": dweight_hy, "bias_y": dbias_y}
    dx, before, dw = cell.step_backward(after, x, state, gates, w, options)
    cache.kept = None
    return _name_grads(cell, dx, before, dw) | head_grads


@ieee
def forward(
    cell: Cell,
    x: Array,
    state: States,
    w: Any,
    options: Any,
    lengths: Any,
    reset_mask: Any,
    reverse: bool,
    out: Maybe,
    training: bool,
) -> tuple[Any, ...]:
    """The cell over time; the caller has checked x, state, w and options.

    Step k takes the rows that are longer than k from their state to the next. Row n meets x[k, n] there or, in
    reverse, x[lengths[n] - 1 - k, n]; a row that has ended keeps its state. A reset zeroes the state that a row
    brings to the step of its marked x.
    """
    T, N = x.shape[:2]
    lengths = np.full(N, T) if lengths is None else check_lengths(lengths, T, N)
    reset_mask = check_reset_mask(reset_mask, T, N)
    shape = (T, *state[0].shape)
    if out is None:
        out = np.empty(shape, x.dtype)
    check_array("out", out, shape, x.dtype, writable=True)
    state = tuple(s.copy() for s in state)
    steps: list[tuple[Any, ...]] = []
    for k in range(lengths.max()):
        rows = np.flatnonzero(k < lengths)
        at = (lengths[rows] - 1 - k if reverse else np.full(len(rows), k), rows)
        reset = np.zeros(len(rows), bool) if reset_mask is None else reset_mask[at]
        before = tuple(s[rows] for s in state)
        for s in before:
            s[reset] = 0
        x_t = x[at]
        after, gates = cell.step(x_t, before, w, options)
        for s, s_next in zip(state, after):
            s[rows] = s_next
        out[at] = after[0]
        if training:
            steps.append((at, reset, x_t, before, gates))
    out[np.arange(T)[:, None] >= lengths] = 0
    cache = Cache(cell.name + "_forward", (x, [s.shape for s in state], steps, w, options)) if training else None
    return out, *state, cache


@ieee
def backward(
    cell: Cell, doutput: Maybe, dstate: tuple[Maybe, ...], cache: Any, into: dict[str, Array] | None
) -> dict[str, Maybe]:
    """The cascade in reverse: the gradient of a row's final state enters at its last step, through dstate."""
    x, state_shapes, steps, w, options = kept(cache, cell.name + "_forward")
    (dy,) = check_states(["d" + cell.output], (doutput,), ((len(x), *state_shapes[0]),), x.dtype)
    arrives = check_states([f"d{s}_n" for s in cell.states], dstate, state_shapes, x.dtype)
    dtotal = tuple(d.copy() for d in arrives)
    dx = np.zeros(x.shape, x.dtype)
    dw = type(w)(*(None if a is None else np.zeros(a.shape, a.dtype) for a in w))
    for at, reset, x_t, before, gates in reversed(steps):
        _, rows = at
        dh, *dothers = (d[rows] for d in dtotal)
        dx[at], dbefore, dw_t = cell.step_backward((dy[at] + dh, *dothers), x_t, before, gates, w, options)
        for d, d_before in zip(dtotal, dbefore):
            d[rows] = d_before
            d[rows[reset]] = 0
        for total, part in zip(dw, dw_t):
            if total is not None:
                total += part
    grads = add_into(into, _name_grads(cell, dx, dtotal, dw), "weight_ih")
    cache.kept = None
    return grads


def _name_grads(cell: Cell, dx: Array, dstate: States, dw: Any) -> dict[str, Maybe]:
    """Weights that some forms of a cell do not have at all are left out where they are None; biases are not."""
    weights = {name: d for name, d in dw._asdict().items() if d is not None or name.startswith("bias")}
    return {"x": dx} | {s + "0": d for s, d in zip(cell.states, dstate)} | weights
