"""The kernels as torch.autograd.Functions: sequences, and single steps for cells.

Memory is shared both ways. `save_for_backward` holds what the caller could change before the backward, so that torch
raises its own error if he does. The output is the one exception: torch allows changing an LSTM's output in place, but
our cache refers to it. Then, and in a second backward through the same graph, the forward is computed again.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import _VF, Tensor

from fastrnn import get_matmul_precision, get_num_threads, set_matmul_precision, set_num_threads

from . import _layers
from ._layers import KERNELS, PACKED, Call

try:
    from torch._C._functorch import peek_interpreter_stack
except ImportError:

    def peek_interpreter_stack() -> Any:
        return None


from_numpy = torch.from_numpy


def array(tensor: Any) -> Any:
    if tensor is None:
        return None
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


_views: dict[int, tuple] = {}  # by id: a weak reference, where the data lies, its size, the NumPy view


def weight_view(weight: Any) -> Any:
    """A weight's memory as an array. Making one takes 2.5 us, finding it again 0.4.

    A view keeps its memory, so other memory of the same address cannot come up while it is here.
    """
    if weight is None:
        return None
    key = id(weight)
    found = _views.get(key)
    if (
        found is not None
        and found[0]() is weight
        and found[1] == weight.data_ptr()
        and found[2] == weight.numel()
        and weight.is_contiguous()
    ):
        return found[3]
    view = weight.detach().numpy()
    if weight.is_leaf and weight.is_contiguous():
        reference = weakref.ref(weight, lambda _: _views.pop(key, None))
        _views[key] = reference, weight.data_ptr(), weight.numel(), view
    return view


def follow_threads() -> None:
    """fastrnn computes with as many threads as torch."""
    threads = torch.get_num_threads()
    if threads != get_num_threads():
        set_num_threads(threads)


def _directly(run: Any, *args: Any) -> Any:
    return run(*args)


def _in_bfloat16(run: Any, *args: Any) -> Any:
    """Where the machine multiplies bfloat16 itself, tensors that were bfloat16 need no more."""
    precision = get_matmul_precision()
    set_matmul_precision("medium")
    try:
        return run(*args)
    finally:
        set_matmul_precision(precision)


def run_sequence(call: Call, x: Tensor, h0: Any, c0: Any, weights: list, training: bool) -> tuple[Any, ...]:
    """Tensors in, tensors out: output, h_n, c_n or None, caches."""
    follow_threads()
    run = _in_bfloat16 if call.half else _directly
    y, h_n, c_n, caches = run(
        _layers.forward,
        call,
        _layers.enter(array(x), call.layout, call.rows),
        _enter_state(call, h0),
        _enter_state(call, c0),
        [weight_view(w) for w in weights],
        training,
    )
    y = _layers.leave(y, call.layout, call.rows)
    return from_numpy(y), _leave_state(call, h_n), _leave_state(call, c_n), caches


def run_backward(call: Call, caches: list, dy: Any, dh_n: Any, dc_n: Any, need_dx: bool) -> tuple[Any, ...]:
    """Tensors in, tensors out: dx or None, dh0, dc0 or None, gradients of the weights."""
    follow_threads()
    run = _in_bfloat16 if call.half else _directly
    dx, dh0, dc0, dweights = run(
        _layers.backward,
        call,
        caches,
        None if dy is None else _layers.enter(dy.numpy(), call.layout, call.rows),
        _enter_state(call, dh_n),
        _enter_state(call, dc_n),
        need_dx,
    )
    dx = from_numpy(_layers.leave(dx, call.layout, call.rows)) if need_dx else None
    return dx, _leave_state(call, dh0), _leave_state(call, dc0), [from_numpy(g) for g in dweights]


def _enter_state(call: Call, state: Any) -> Any:
    if state is None:
        return None
    state = array(state)
    return state[:, None] if call.layout == _layers.UNBATCHED else state


def _leave_state(call: Call, state: Any) -> Any:
    if state is None:
        return None
    return from_numpy(state[:, 0] if call.layout == _layers.UNBATCHED else state)


class Sequence(torch.autograd.Function):
    """apply(call, x, h0, c0, *weights) -> output, h_n and, of an LSTM, c_n."""

    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, h0: Any, c0: Any, *weights: Tensor) -> Any:
        y, h_n, c_n, ctx.caches = run_sequence(call, x, h0, c0, weights, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, *weights)
        ctx.call, ctx.watched = call, y.detach()  # which has y's counter of changes
        return (y, h_n) if c_n is None else (y, h_n, c_n)

    @staticmethod
    def backward(ctx: Any, dy: Any, dh_n: Any, dc_n: Any = None) -> Any:
        saved, call = ctx.saved_tensors, ctx.call
        if torch.is_grad_enabled() or peek_interpreter_stack() is not None:
            return (None, *again(_in_torch(call), saved, ctx.needs_input_grad[1:], (dy, dh_n, dc_n)))
        caches, ctx.caches = ctx.caches, None
        if caches is None or ctx.watched._version:
            caches = run_sequence(call, *saved[:3], saved[3:], True)[-1]
        needs = ctx.needs_input_grad
        dx, dh0, dc0, dweights = run_backward(call, caches, dy, dh_n, dc_n, needs[1])
        return (
            None,
            dx,
            dh0 if needs[2] else None,
            dc0 if needs[3] else None,
            *(g if need else None for need, g in zip(needs[4:], dweights)),
        )


def _in_torch(call: Call) -> Any:
    """The same computation in torch's operations, layer by layer with the noise that was drawn: for double backward."""
    if call.rows.reset_mask is not None or call.rows.mask is not None:
        raise RuntimeError("reset_mask, mask: expected no double backward, got create_graph=True")
    name = call.kind if call.kind != "rnn" else f"rnn_{call.options['nonlinearity']}"

    def run(x: Tensor, h0: Any, c0: Any, *weights: Tensor) -> Any:
        if call.layout in (_layers.BATCH_FIRST, _layers.UNBATCHED):
            x = x.transpose(0, 1) if call.layout == _layers.BATCH_FIRST else x.unsqueeze(1)
        N = x.shape[1] if call.layout != PACKED else int(call.rows.batch_sizes[0])
        count, directions = len(weights) // call.layers, call.directions
        h_n, c_n = [], []
        for layer in range(call.layers):
            own = list(weights[layer * count : (layer + 1) * count])
            sizes = (own[1].shape[1], own[-1].shape[1] if call.projected else own[1].shape[1])
            state = [
                x.new_zeros(directions, N, size)
                if s is None
                else (s if s.dim() == 3 else s.unsqueeze(1))[layer * directions : (layer + 1) * directions]
                for s, size in zip((h0, c0), sizes)
            ]
            hx = tuple(state) if call.kind == "lstm" else state[0]
            rest = (hx, own, call.bias, 1, 0.0, False, directions == 2)
            if call.layout == PACKED:
                x, *state = getattr(_VF, name)(x, call.rows.batch_sizes, *rest)
            else:
                x, *state = getattr(_VF, name)(x, *rest, False)
            h_n.append(state[0])
            c_n.append(state[-1])
            if call.noise is not None and layer < call.layers - 1:
                x = x * call.noise[layer]
        outputs = [torch.cat(h_n), torch.cat(c_n)][: 1 + (call.kind == "lstm")]
        if call.layout == _layers.UNBATCHED:
            return x.squeeze(1), *(part.squeeze(1) for part in outputs)
        return x.transpose(0, 1) if call.layout == _layers.BATCH_FIRST else x, *outputs

    return run


def again(run: Any, saved: Any, needs: Any, doutputs: Any) -> list:
    """Gradients by torch's own operations, which can be differentiated once more and vmapped.

    Aliases stand for the saved tensors: one of them may have been computed from another.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            t if t is None or not need else t.view_as(t) if graph else t.detach().requires_grad_()
            for t, need in zip(saved, needs)
        ]
        outputs = run(*inputs)
        pairs = [(y, dy) for y, dy in zip(outputs, doutputs) if dy is not None]
        wanted = [t for t, need in zip(inputs, needs) if need]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs], wanted, [dy for _, dy in pairs], create_graph=graph, allow_unused=True
            )
        )
    return [next(found) if need else None for need in needs]


def run_cell(
    kind: str,
    options: dict,
    x: Tensor,
    h: Any,
    c: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Any,
    b_hh: Any,
    training: bool,
) -> tuple[Any, ...]:
    """One step: h (N, H), c or None, the cache. A vector x is one row."""
    follow_threads()
    x, single = array(x), x.dim() == 1
    x = x[None, None] if single else x[None]
    if h is not None:
        h = array(h)
        h = h[None] if single else h
    weights = weight_view(w_ih), weight_view(w_hh), weight_view(b_ih), weight_view(b_hh)
    if kind != "lstm":
        _, h, cache = KERNELS[kind][0](x, h, *weights, training=training, **options)
        return from_numpy(h[0] if single else h), None, cache
    if c is not None:
        c = array(c)
        c = c[None] if single else c
    _, h, c, cache = KERNELS["lstm"][0](x, h, c, *weights, training=training)
    return from_numpy(h[0] if single else h), from_numpy(c[0] if single else c), cache


class Step(torch.autograd.Function):
    """apply(kind, options, x, h, c, w_ih, w_hh, b_ih, b_hh) -> h, or h and c of an LSTM."""

    @staticmethod
    def forward(ctx: Any, kind: str, options: dict, *tensors: Any) -> Any:
        h, c, ctx.cache = run_cell(kind, options, *tensors, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.kind, ctx.options = kind, options
        return h if c is None else (h, c)

    @staticmethod
    def backward(ctx: Any, dh: Any, dc: Any = None) -> Any:
        saved, kind, needs = ctx.saved_tensors, ctx.kind, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or peek_interpreter_stack() is not None:
            return (None, None, *again(_step_in_torch(kind, ctx.options), saved, needs, (dh, dc)))
        cache, ctx.cache = ctx.cache, None
        if cache is None:
            cache = run_cell(kind, ctx.options, *saved, True)[-1]
        follow_threads()
        single = saved[0].dim() == 1
        dstate = [array(dh), array(dc)][: 1 + (kind == "lstm")]
        if single:
            dstate = [d if d is None else d[None] for d in dstate]
        gradients = KERNELS[kind][1](None, *dstate, cache, into=None if needs[0] else {"x": None})
        dx, dh0, dc0 = gradients["x"], gradients["h0"], gradients.get("c0")
        if single:
            dx, dh0, dc0 = None if dx is None else dx[:, 0], dh0[0], None if dc0 is None else dc0[0]
        return (
            None,
            None,
            from_numpy(dx[0]) if needs[0] else None,
            from_numpy(dh0) if needs[1] else None,
            from_numpy(dc0) if needs[2] else None,
            *(from_numpy(gradients[name]) if need else None for need, name in zip(needs[3:], _STEP_WEIGHTS)),
        )


_STEP_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _step_in_torch(kind: str, options: dict) -> Any:
    step = getattr(_VF, f"{kind}_cell" if kind != "rnn" else f"rnn_{options['nonlinearity']}_cell")

    def run(x: Tensor, h: Any, c: Any, *weights: Any) -> Any:
        single = x.dim() == 1
        x = x.unsqueeze(0) if single else x
        zeros = x.new_zeros(x.shape[0], weights[1].shape[1])
        h, c = (zeros if s is None else s.unsqueeze(0) if single else s for s in (h, c))
        result = step(x, (h, c), *weights) if kind == "lstm" else (step(x, h, *weights),)
        return [part.squeeze(0) if single else part for part in result]

    return run
