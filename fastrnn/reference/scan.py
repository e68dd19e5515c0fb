"""What the cells share: one step with an output, and the cascade over time.

Letters: T time steps, N batch, D input_size, H hidden_size, M outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from .._validate import Array, Maybe, check_array, check_lengths, check_mask, check_reset_mask
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
    """A recurrence: `step` and `step_backward` know nothing of time. The first state is the output.

    Both take one more argument where the recurrence is dropped out: what the state is multiplied with, (N, P), before
    it meets the recurrent weights.
    """

    name: str
    states: tuple[str, ...]
    step: Callable[..., tuple[States, Any]]  # x, state, weights, options -> next state, gates kept for the backward
    step_backward: Callable[
        ..., tuple[Array, States, Any]
    ]  # dstate, x, state, gates, weights, options -> dx, dstate before, dweights
    output: str = "output"


class Rows(NamedTuple):
    """What the caller says of the rows of a batch; None for what there is not."""

    lengths: Any = None  # (N,)
    reset_mask: Any = None  # (T, N)
    mask: Any = None  # (T, N)
    recurrent_mask: Maybe = None  # (N, P)
    zoneout: tuple[Maybe, ...] = ()  # for each state (T, N, width)


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
    cell: Cell, x: Array, state: States, w: Any, options: Any, told: Rows, reverse: bool, out: Maybe, training: bool
) -> tuple[Any, ...]:
    """The cell over time; the caller has checked x, state, w and options.

    Step k takes the rows that are longer than k from their state to the next. Row n meets x[k, n] there or, in
    reverse, x[lengths[n] - 1 - k, n]; a row that has ended keeps its state. A reset zeroes the state that a row
    brings to the step of its marked x. After that, a row whose step is not real keeps its state, and zoneout keeps a
    part of every state: s_t = k * s_{t-1} + (1 - k) * what the cell makes of it, k = zoneout[t].
    """
    T, N = x.shape[:2]
    lengths = np.full(N, T) if told.lengths is None else check_lengths(told.lengths, T, N)
    reset_mask, mask = check_reset_mask(told.reset_mask, T, N), check_mask(told.mask, T, N)
    shape = (T, *state[0].shape)
    if told.recurrent_mask is not None:
        check_array("recurrent_mask", told.recurrent_mask, state[0].shape, x.dtype)
    for name, part, s in zip(cell.states, told.zoneout, state):
        if part is not None:
            check_array(f"zoneout_{name}", part, (T, *s.shape), x.dtype)
    if out is None:
        out = np.empty(shape, x.dtype)
    check_array("out", out, shape, x.dtype, writable=True)
    state = tuple(s.copy() for s in state)
    steps: list[tuple[Any, ...]] = []
    for k in range(lengths.max()):
        rows = np.flatnonzero(k < lengths)
        at = (lengths[rows] - 1 - k if reverse else np.full(len(rows), k), rows)
        reset = np.zeros(len(rows), bool) if reset_mask is None else reset_mask[at]
        for s in state:
            s[rows[reset]] = 0
        real = np.ones(len(rows), bool) if mask is None else mask[at]
        moving = (at[0][real], rows[real])
        before, dropped = tuple(s[moving[1]] for s in state), _of_rows(told.recurrent_mask, moving[1])
        x_t, kept_parts = x[moving], tuple(None if part is None else part[moving] for part in told.zoneout)
        after, gates = cell.step(x_t, before, w, options, *dropped)
        for s, s_before, s_next, part in zip_longest(state, before, after, kept_parts):
            s[moving[1]] = s_next if part is None else part * s_before + (1 - part) * s_next
        out[at] = state[0][rows]
        if training:
            steps.append((at, reset, moving, x_t, before, gates, dropped, kept_parts))
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
    for at, reset, moving, x_t, before, gates, dropped, kept_parts in reversed(steps):
        dtotal[0][at[1]] += dy[at]
        dafter = tuple(d[moving[1]] for d in dtotal)
        dstep = tuple(d if part is None else (1 - part) * d for d, part in zip_longest(dafter, kept_parts))
        dx[moving], dbefore, dw_t = cell.step_backward(dstep, x_t, before, gates, w, options, *dropped)
        for d, d_before, d_after, part in zip_longest(dtotal, dbefore, dafter, kept_parts):
            d[moving[1]] = d_before if part is None else d_before + part * d_after
            d[at[1][reset]] = 0
        for total, part in zip(dw, dw_t):
            if total is not None:
                total += part
    grads = add_into(into, _name_grads(cell, dx, dtotal, dw), "weight_ih")
    cache.kept = None
    return grads


def _of_rows(recurrent_mask: Maybe, rows: Array) -> tuple[Array, ...]:
    """The last argument of a step with dropout; no argument without."""
    return () if recurrent_mask is None else (recurrent_mask[rows],)


def _name_grads(cell: Cell, dx: Array, dstate: States, dw: Any) -> dict[str, Maybe]:
    """Weights that some forms of a cell do not have at all are left out where they are None; biases are not."""
    weights = {name: d for name, d in dw._asdict().items() if d is not None or name.startswith("bias")}
    return {"x": dx} | {s + "0": d for s, d in zip(cell.states, dstate)} | weights
