"""Stacks of layers in NumPy arrays: what one call of a torch.nn.RNN, GRU or LSTM computes.

Letters: T time steps, N batch, D input_size, L num_layers, W directions * (proj_size or hidden_size), S rows of a
PackedSequence. Arrays are time-major, (T, N, ...); `Layout` says how the caller's tensors are turned into that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastrnn import functional

Array = Any
KERNELS: dict[str, tuple[Callable, Callable]] = {
    "rnn": (functional.rnn_forward, functional.rnn_backward),
    "gru": (functional.gru_forward, functional.gru_backward),
    "lstm": (functional.lstm_forward, functional.lstm_backward),
}
TIME_MAJOR, BATCH_FIRST, UNBATCHED, PACKED = range(4)


class Rows(NamedTuple):
    """Which rows run when."""

    lengths: Array | None = None  # (N,)
    reset_mask: Array | None = None  # (T, N)
    batch_sizes: Any = None  # torch's own, of a PackedSequence
    at: Array | None = None  # (S,): where each packed row lies in (T * N)
    mask: Array | None = None  # (T, N): steps that are real, in Keras's sense

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.batch_sizes), int(self.batch_sizes[0])


NO_ROWS = Rows()


def packed_rows(batch_sizes: Any) -> Rows:
    sizes = batch_sizes.numpy()
    runs = np.arange(sizes[0]) < sizes[:, None]
    if sizes[-1] == sizes[0]:
        return Rows(None, None, batch_sizes, None)
    return Rows(runs.sum(0), None, batch_sizes, np.flatnonzero(runs))


class Call(NamedTuple):
    """What a call is, its tensors aside."""

    kind: str
    options: dict[str, Any]
    layers: int
    directions: int
    bias: bool
    projected: bool
    layout: int
    rows: Rows
    noise: list | None  # of tensors in the caller's layout: what dropout multiplies the output of each layer with
    half: bool = False  # the caller's tensors are bfloat16


def enter(array: Array, layout: int, rows: Rows) -> Array:
    """The caller's sequence as (T, N, ...)."""
    if layout == TIME_MAJOR:
        return array
    if layout == BATCH_FIRST:
        return array.swapaxes(0, 1)
    if layout == UNBATCHED:
        return array[:, None]
    T, N = rows.shape
    if rows.at is None:
        return array.reshape(T, N, array.shape[-1])
    padded = np.zeros((T * N, array.shape[-1]), array.dtype)
    padded[rows.at] = array
    return padded.reshape(T, N, -1)


def leave(array: Array, layout: int, rows: Rows) -> Array:
    """What `enter` did, undone."""
    if layout == TIME_MAJOR:
        return array
    if layout == BATCH_FIRST:
        return array.swapaxes(0, 1)
    if layout == UNBATCHED:
        return array[:, 0]
    flat = array.reshape(-1, array.shape[-1])
    return flat if rows.at is None else flat.take(rows.at, axis=0)


def _noise(call: Call, layer: int) -> Array | None:
    """Of the same memory order as torch draws it in: time-major, or packed."""
    if call.noise is None or layer == call.layers - 1:
        return None
    noise = call.noise[layer].numpy()
    return enter(noise, PACKED, call.rows) if call.layout == PACKED else noise


def weights_of(call: Call, weights: list, k: int) -> tuple[list, dict[str, Array]]:
    """Those of layer and direction k: by place, and weight_hr by name."""
    count = 2 + 2 * call.bias + call.projected
    own = weights[k * count : (k + 1) * count]
    named = {"weight_hr": own[-1]} if call.projected else {}
    return (own[:4] if call.bias else [own[0], own[1], None, None]), named


def forward(call: Call, x: Array, h0: Array, c0: Array, weights: list, training: bool) -> tuple[Any, ...]:
    """Output (T, N, W), h_n (L * directions, N, ...), c_n or None, caches."""
    run, lstm, directions, rows = KERNELS[call.kind][0], call.kind == "lstm", call.directions, call.rows
    h_n, c_n, caches = [], [], []
    options = call.options
    if rows is not NO_ROWS:
        options = options | {"lengths": rows.lengths, "reset_mask": rows.reset_mask, "mask": rows.mask}
    for k in range(call.layers * directions):
        own, named = weights_of(call, weights, k)
        out = None
        if directions == 2:
            width = own[1].shape[1]
            if k % 2 == 0:
                y = np.empty((x.shape[0], x.shape[1], 2 * width), x.dtype)
            out = y[..., k % 2 * width : (k % 2 + 1) * width]
        state = (None if h0 is None else h0[k],)
        if lstm:
            state = (*state, None if c0 is None else c0[k])
        result = run(x, *state, *own, out=out, reverse=k % directions == 1, training=training, **named, **options)
        h_n.append(result[1])
        if lstm:
            c_n.append(result[2])
        caches.append(result[-1])
        if directions == 1:
            y = result[0]
        elif k % 2 == 0:
            continue
        noise = _noise(call, k // directions)
        x = y if noise is None else y * noise
    return y, stacked(h_n), stacked(c_n) if lstm else None, caches


def stacked(parts: list) -> Array:
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def backward(call: Call, caches: list, dy: Array, dh_n: Array, dc_n: Array, need_dx: bool) -> tuple[Any, ...]:
    """dx (T, N, D) or None, dh0, dc0 or None, and the gradients of all weights in their order."""
    run, lstm, directions = KERNELS[call.kind][1], call.kind == "lstm", call.directions
    dh0, dc0 = [None] * len(caches), [None] * len(caches)
    dweights: list = [None] * len(caches)
    names = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * call.bias + ["weight_hr"] * call.projected
    dx = dy
    for layer in reversed(range(call.layers)):
        noise = _noise(call, layer)
        dy = dx if noise is None else dx * noise
        into: dict | None = {"x": None} if layer == 0 and not need_dx else None
        for direction in range(directions):
            k = layer * directions + direction
            width = 0 if dy is None or directions == 1 else dy.shape[-1] // 2
            part = dy if not width else dy[..., direction * width : (direction + 1) * width]
            dstate = (None if dh_n is None else dh_n[k],)
            if lstm:
                dstate = (*dstate, None if dc_n is None else dc_n[k])
            gradients = run(part, *dstate, caches[k], into=into)
            dx, dh0[k] = gradients["x"], gradients["h0"]
            if lstm:
                dc0[k] = gradients["c0"]
            dweights[k] = [gradients[name] for name in names]
            if into is None:
                into = {"x": dx}  # the other direction adds to it
    return dx, stacked(dh0), stacked(dc0) if lstm else None, [g for own in dweights for g in own]
