"""RNN, GRU and LSTM as operators of torch.library, `fastrnn::sequence` and `fastrnn::sequence_backward`, which stand in
the graphs that torch.compile makes.

Design: a graph holds tensors only, but what a backward needs is an object of ours. The operator returns a ticket, an
empty tensor for which the object is kept as long as the ticket lives; whoever comes without it (a graph that was copied
or is run again) has the forward computed anew.
torch.export keeps torch's own operators, so that what it writes runs where fastrnn is not installed.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from ._autograd import run_backward, run_sequence
from ._layers import BATCH_FIRST, NO_ROWS, TIME_MAJOR, UNBATCHED, Call

KINDS = {
    "LSTM": ("lstm", {}),
    "GRU": ("gru", {}),
    "RNN_TANH": ("rnn", {"nonlinearity": "tanh"}),
    "RNN_RELU": ("rnn", {"nonlinearity": "relu"}),
}
_kept: dict[int, tuple[Any, list]] = {}  # by id of a ticket: a weak reference to it, the caches


def _call(mode: str, layers: int, directions: int, bias: bool, projected: bool, layout: int, noise: list) -> Call:
    kind, options = KINDS[mode]
    return Call(kind, options, layers, directions, bias, projected, layout, NO_ROWS, noise or None)


def _filled(states: list, like: Tensor) -> list:
    """The outputs that stand for states: an operator returns tensors only."""
    return [like.new_empty(0) if s is None else s for s in states]


@torch.library.custom_op("fastrnn::sequence", mutates_args=())
def sequence(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    noise: list[Tensor],
    mode: str,
    layers: int,
    directions: int,
    bias: bool,
    projected: bool,
    layout: int,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, h_n, c_n (empty but for an LSTM) and the ticket."""
    call = _call(mode, layers, directions, bias, projected, layout, noise)
    y, h_n, c_n, caches = run_sequence(call, x, h0, c0, weights, training)
    ticket = torch.empty(0)
    if training:
        key = id(ticket)
        _kept[key] = weakref.ref(ticket, lambda _: _kept.pop(key, None)), caches
    return y, *_filled([h_n, c_n], x), ticket


@sequence.register_fake
def _(
    x: Any,
    h0: Any,
    c0: Any,
    weights: Any,
    noise: Any,
    mode: str,
    layers: int,
    directions: int,
    bias: bool,
    projected: bool,
    layout: int,
    training: bool,
) -> Any:
    H, rows = weights[1].shape[0] // {"l": 4, "g": 3, "r": 1}[KINDS[mode][0][0]], layers * directions
    P = weights[1].shape[1]
    if layout == UNBATCHED:
        y, state = x.new_empty(x.shape[0], directions * P), (rows,)
    else:
        T, N = (x.shape[1], x.shape[0]) if layout == BATCH_FIRST else (x.shape[0], x.shape[1])
        y, state = x.new_empty(T, N, directions * P), (rows, N)
        y = y.transpose(0, 1) if layout == BATCH_FIRST else y
    c_n = x.new_empty(*state, H) if mode == "LSTM" else x.new_empty(0)
    return y, x.new_empty(*state, P), c_n, torch.empty(0)


@torch.library.custom_op("fastrnn::sequence_backward", mutates_args=())
def sequence_backward(
    dy: Tensor,
    dh_n: Tensor,
    dc_n: Tensor | None,
    ticket: Tensor,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    noise: list[Tensor],
    mode: str,
    layers: int,
    directions: int,
    bias: bool,
    projected: bool,
    layout: int,
) -> list[Tensor]:
    """Gradients of x, h0, c0 (of an LSTM), and the weights."""
    call = _call(mode, layers, directions, bias, projected, layout, noise)
    found = _kept.pop(id(ticket), None)
    caches = found[1] if found is not None and found[0]() is ticket else None
    if caches is None:
        caches = run_sequence(call, x, h0, c0, weights, True)[-1]
    dx, dh0, dc0, dweights = run_backward(call, caches, dy, dh_n, dc_n, True)
    return [g.contiguous() for g in (dx, dh0, *(() if dc0 is None else (dc0,)), *dweights)]


@sequence_backward.register_fake
def _(dy: Any, dh_n: Any, dc_n: Any, ticket: Any, x: Any, h0: Any, c0: Any, weights: Any, *rest: Any) -> Any:
    states = [dh_n] if dc_n is None else [dh_n, dc_n]
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, *states, *weights)]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, c0, weights, noise, *ctx.rest, _ = inputs
    ctx.counts = len(weights), len(noise)
    ctx.save_for_backward(x, h0, c0, output[3], *weights, *noise)


def _differentiate(ctx: Any, dy: Any, dh_n: Any, dc_n: Any, _: Any) -> Any:
    x, h0, c0, ticket, *rest = ctx.saved_tensors
    count, lstm = ctx.counts[0], ctx.rest[0] == "LSTM"
    weights, noise = rest[:count], rest[count:]
    dx, dh0, *rest = torch.ops.fastrnn.sequence_backward(
        dy, dh_n, dc_n if lstm else None, ticket, x, h0, c0, weights, noise, *ctx.rest
    )
    dc0 = rest.pop(0) if lstm else None
    return (dx, None if h0 is None else dh0, None if c0 is None else dc0, rest, [None] * ctx.counts[1], *[None] * 7)


sequence.register_autograd(_differentiate, setup_context=_keep)


def in_graph(module: Any, input: Any, hx: Any, noise_of: Any) -> Any:
    """What module(input, hx) returns, as an operator of the graph that torch.compile is making.

    A str, why not, where that is for torch's own forward to do: what is no CPU tensor of float32 or float64, packed
    sequences, autocast, torch.export, and wrong shapes, which torch refuses.
    """
    if torch.compiler.is_exporting():
        return "torch.export"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if not isinstance(input, Tensor):
        return "torch.compile of a PackedSequence"
    lstm = module.mode == "LSTM"
    pair = hx if lstm and hx is not None else (hx, None)
    weights, layers, directions = module._flat_weights, module.num_layers, 2 if module.bidirectional else 1
    tensors = [input, *pair, *weights]
    for t in tensors:
        if t is not None and (t.device.type != "cpu" or t.dtype != input.dtype):
            return "its tensors"
    if input.dtype not in (torch.float32, torch.float64) or input.dim() not in (2, 3) or None in weights:
        return "its tensors"
    layout = UNBATCHED if input.dim() == 2 else BATCH_FIRST if module.batch_first else TIME_MAJOR
    W = module.proj_size or module.hidden_size
    N = () if layout == UNBATCHED else (input.shape[0 if layout == BATCH_FIRST else 1],)
    for state, width in zip(pair, (W, module.hidden_size)):
        if state is not None and tuple(state.shape) != (layers * directions, *N, width):
            return "its tensors"
    if input.shape[-1] != module.input_size:
        return "its tensors"
    noise = noise_of(module, input, layout, W * directions) or []
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, h_n, c_n, _ = torch.ops.fastrnn.sequence(
        input,
        *pair,
        weights,
        noise,
        module.mode,
        layers,
        directions,
        module.bias,
        module.proj_size > 0,
        layout,
        training,
    )
    return y, ((h_n, c_n) if lstm else h_n)
