"""torch.nn's recurrent modules with fastrnn's forward.

Each class is a subclass of torch's own and replaces nothing but `forward`. It decides whether the kernels can take the
call; if not, torch's forward runs, which also raises torch's errors. Letters as in `_layers`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils.rnn import PackedSequence

from . import _packed
from . import _rules as rules
from ._autograd import Sequence, Step, run_cell, run_sequence
from ._layers import BATCH_FIRST, NO_ROWS, PACKED, TIME_MAJOR, UNBATCHED, Call, Rows, packed_rows
from ._operator import KINDS, in_graph
from ._report import fell_back, taken, warn_once

try:  # torch.compile's hook into Python calls: None while it is not at work
    from torch._C._dynamo.eval_frame import get_eval_frame_callback, set_eval_frame
except ImportError:  # an older torch

    def get_eval_frame_callback() -> Any:
        return None


_C = torch._C
ORIGINAL = {
    cls: cls.forward
    for cls in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, torch.nn.RNNCell, torch.nn.GRUCell, torch.nn.LSTMCell)
}


def _weights(module: Any, dtype: Any) -> Any:
    """The module's weights in their order, or why they cannot be used."""
    parameters = module._parameters
    weights = [parameters.get(name) for name in module._flat_weights_names]
    for weight in weights:
        if weight is None:  # computed anew, as by weight_norm
            module._update_flat_weights()
            weights = module._flat_weights
            break
    for weight in weights:
        if type(weight) not in rules.TENSORS or weight.dtype is not dtype or not weight.is_cpu:
            return "weights: " + (rules.unfit(weight, dtype) or "none")
    return weights


def _states(hx: Any, lstm: bool) -> Any:
    if hx is None:
        return None, None
    if not lstm:
        return hx, None
    return tuple(hx) if isinstance(hx, (tuple, list)) and len(hx) == 2 else ("not a pair", None)


def _noise(module: Any, x: Tensor, layout: int, width: int) -> Any:
    """What dropout multiplies the output of each layer but the last with, drawn in torch's order."""
    p = module.dropout
    if not module.training or p == 0 or module.num_layers == 1:
        return None
    *shape, _ = x.shape
    if layout == BATCH_FIRST:
        shape.reverse()
    elif layout == UNBATCHED:
        shape.append(1)
    if p == 1:
        return [x.new_zeros(*shape, width)] * (module.num_layers - 1)
    return [x.new_empty(*shape, width).bernoulli_(1 - p).div_(1 - p) for _ in range(module.num_layers - 1)]


def _loses_on(module: Any, kind: str, input: Tensor) -> bool:
    T, N = input.shape[:2] if input.dim() == 3 else (input.shape[0] if input.dim() else 0, 1)
    if module.batch_first and input.dim() == 3:
        T, N = N, T
    return T <= 2 and rules.loses(kind, T, N, module.hidden_size, torch.is_grad_enabled())


class _Read(NamedTuple):
    """The input of a call, looked at."""

    x: Tensor
    layout: int
    rows: Rows
    N: int


def _read(module: Any, input: Any, reset_mask: Any) -> Any:
    """A `_Read`, or a str: why not."""
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    if type(x) is not Tensor:
        return "input: " + ("a Parameter" if type(x) is Parameter else rules.unfit(x, None))
    if (
        (x.dtype not in rules.DTYPES and x.dtype is not torch.bfloat16)
        or not x.is_cpu
        or x.layout is not torch.strided
        or x.is_neg()
    ):
        return "input: " + rules.unfit(x, x.dtype)
    rows = NO_ROWS if reset_mask is None else Rows(None, reset_mask)
    dim, batch_first = x.dim(), module.batch_first
    if packed:
        rows = packed_rows(input.batch_sizes)
        read = _Read(x, PACKED, rows, rows.shape[1])
    elif dim == 3:
        read = _Read(x, BATCH_FIRST if batch_first else TIME_MAJOR, rows, x.shape[0 if batch_first else 1])
    else:
        read = _Read(x, UNBATCHED, rows, 1)
    if dim != (2 if packed or dim != 3 else 3) or x.shape[-1] != module.input_size or not x.numel():
        return "input: its shape"
    return read


def _misfit(module: Any, h0: Any, c0: Any, read: _Read, W: int) -> str:
    """What is wrong with the initial states, "" if nothing."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    for state, width in ((h0, W), (c0, module.hidden_size)):
        if state is not None:
            reason = rules.unfit(state, read.x.dtype)
            shape = (rows, width) if read.layout == UNBATCHED else (rows, read.N, width)
            if reason or state.shape != shape:
                return "hx: " + (reason or "its shape")
    return ""


def _sequence(module: Any, input: Any, hx: Any, reset_mask: Any = None) -> Any:
    """Output and states like torch's, or a str: why not. What costs least to find out comes first."""
    kind, options = KINDS[module.mode]
    if type(input) is Tensor and reset_mask is None and _loses_on(module, kind, input):
        return rules.LOSES
    reason = rules.blocked()
    if reason:
        return reason
    still = not torch.is_grad_enabled() and not (module.training and module.dropout)
    if still and reset_mask is None and _packed.TABLE is None:
        found = _packed.quick(module, module._flat_weights_names, input, hx, kind, options, False)
        if found is not None:
            return found
    read = _read(module, input, reset_mask)
    if type(read) is str:
        return read
    x, layout, rows, N = read
    half = x.dtype is torch.bfloat16
    if half and rules.half_loses(kind, N, module.hidden_size, torch.is_grad_enabled()):
        return rules.LOSES
    weights = _weights(module, x.dtype)
    if type(weights) is str:
        return weights
    h0, c0 = _states(hx, kind == "lstm")
    W, directions = module.proj_size or module.hidden_size, 2 if module.bidirectional else 1
    reason = _misfit(module, h0, c0, read, W)
    if reason:
        return reason
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, h0, c0, *weights))
    noise = _noise(module, x, layout, W * directions)
    if half:
        x, h0, c0, *weights = (t if t is None else t.float() for t in (x, h0, c0, *weights))
        noise = noise and [n.float() for n in noise]
    projected = module.proj_size > 0
    call = Call(kind, options, module.num_layers, directions, module.bias, projected, layout, rows, noise, half)
    packed = layout == PACKED
    if packed and input.sorted_indices is not None:
        h0, c0 = (None if s is None else s.index_select(1, input.sorted_indices) for s in (h0, c0))
    if training:
        y, *states = Sequence.apply(call, x, h0, c0, *weights)
    else:
        found = None if noise or half else _packed.run_sequence(module, call, x, h0, c0, weights)
        y, *states = found or run_sequence(call, x, h0, c0, weights, False)[: 3 if kind == "lstm" else 2]
    if half:
        y, *states = (t.bfloat16() for t in (y, *states))
    if packed:
        y = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        if input.unsorted_indices is not None:
            states = [s.index_select(1, input.unsorted_indices) for s in states]
    return y, (tuple(states) if kind == "lstm" else states[0])


_CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _cell(module: Any, kind: str, options: dict, input: Any, hx: Any) -> Any:
    """The next state like torch's, or a str: why not. What costs least to find out comes first."""
    N = input.shape[0] if type(input) is Tensor and input.dim() == 2 else 1
    if rules.cell_loses(kind, N, module.hidden_size, torch.is_grad_enabled()):
        return rules.LOSES
    reason = rules.blocked()
    if reason:
        return reason
    if not torch.is_grad_enabled() and _packed.TABLE is None:
        found = _packed.quick(module, _CELL_WEIGHTS, input, hx, kind, options, True)
        if found is not None:
            return found
    x, dtype, H = input, getattr(input, "dtype", None), module.hidden_size
    reason = rules.unfit(x, dtype)
    if reason or dtype not in rules.DTYPES:
        return "input: " + (reason or f"dtype {dtype}")
    shape = x.shape
    if x.dim() not in (1, 2) or shape[-1] != module.input_size or not x.numel():
        return "input: its shape"
    h, c = _states(hx, kind == "lstm")
    training = x.requires_grad
    for state in (h, c):
        if state is not None:
            reason = rules.unfit(state, dtype)
            if reason or state.shape != (*shape[:-1], H):
                return "hx: " + (reason or "its shape")
            training = training or state.requires_grad
    parameters = module._parameters
    weights = [parameters[n] if n in parameters else getattr(module, n) for n in _CELL_WEIGHTS]
    for weight in weights:
        if weight is None:
            continue
        if type(weight) not in rules.TENSORS or weight.dtype is not dtype or not weight.is_cpu:
            return "weights: " + rules.unfit(weight, dtype)
        training = training or weight.requires_grad
    training = training and torch.is_grad_enabled()
    if training:
        return Step.apply(kind, options, x, h, c, *weights)
    h, c = (
        _packed.run_cell(module, kind, options, x, h, c, weights)
        or run_cell(kind, options, x, h, c, *weights, False)[:2]
    )
    return (h, c) if kind == "lstm" else h


def _unwatched(forward: Any, watcher: Any, *args: Any) -> Any:
    """forward(*args) while torch.compile looks away: it would compile our own Python, and NumPy's."""
    set_eval_frame(None)
    try:
        return forward(*args)
    finally:
        set_eval_frame(watcher)


def _sequence_forward(cls: Any) -> Any:
    """The forward that stands for that of `cls`, one of RNN, GRU and LSTM."""
    original, name = ORIGINAL[cls], cls.__name__

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if torch.compiler.is_compiling():
            result = in_graph(self, input, hx, _noise)
            if type(result) is not str:
                return result
            warn_once(name, result)
            return original(self, input, hx)
        watcher = get_eval_frame_callback()
        if watcher is not None:
            return _unwatched(forward, watcher, self, input, hx)
        if not torch.is_grad_enabled():
            result = _packed.at_once(self, input, hx)
            if result is not None:
                taken[name] += 1
                return result
        result = _sequence(self, input, hx) if _C._get_tracing_state() is None else "torch.jit.trace"
        if type(result) is str:
            fell_back(name, result)
            return original(self, input, hx)
        taken[name] += 1
        return result

    return forward


def _cell_forward(cls: Any) -> Any:
    """The same for the cells. torch.compile judges a function by its code, which is why these have one of their own."""
    original, name = ORIGINAL[cls], cls.__name__
    kind = name.removesuffix("Cell").lower()

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if torch.compiler.is_compiling():
            warn_once(name, "torch.export" if torch.compiler.is_exporting() else "torch.compile of a cell")
            return original(self, input, hx)
        watcher = get_eval_frame_callback()
        if watcher is not None:
            return _unwatched(forward, watcher, self, input, hx)
        if not torch.is_grad_enabled():
            result = _packed.at_once_cell(self, input, hx)
            if result is not None:
                taken[name] += 1
                return result
        options = {"nonlinearity": self.nonlinearity} if kind == "rnn" else {}
        result = _cell(self, kind, options, input, hx) if _C._get_tracing_state() is None else "torch.jit.trace"
        if type(result) is str:
            fell_back(name, result)
            return original(self, input, hx)
        taken[name] += 1
        return result

    return forward


FORWARD = {cls: (_cell_forward if cls.__name__.endswith("Cell") else _sequence_forward)(cls) for cls in ORIGINAL}


class _Ours:
    def __prepare_scriptable__(self) -> Any:
        """torch.jit.script compiles the source of torch's own forward: the module becomes torch's again."""
        object.__setattr__(self, "__class__", next(base for base in type(self).__mro__ if base in ORIGINAL))
        return self


class RNN(_Ours, torch.nn.RNN):
    """torch.nn.RNN on fastrnn's kernels: h' = act(x W_ih^T + b_ih + h W_hh^T + b_hh), act tanh or relu. A subclass with
    torch's arguments, parameters, names, random numbers and hooks; only `forward` is another.

    output, h_n = module(input, hx=None), tensors on the CPU of the weights' dtype, float32, float64 or bfloat16. With T
    steps, N batch, D input_size, H hidden_size, S directions, L num_layers:
    input: (T, N, D), (N, T, D) with batch_first, (T, D) without a batch, or a PackedSequence.
    hx: (L*S, N, H), or (L*S, H) without a batch; None for zeros.
    output: as input, S*H wide, packed if input is; h_n: as hx.

    Whatever the kernels do not take runs in torch's own forward, which raises torch's errors: other devices and dtypes,
    autocast, torch.jit.trace, torch.export, torch.func, tensors that are empty or of a wrong shape, and shapes at which
    torch is faster. `fastrnn.interop.torch.report()` counts both kinds and says why.
    """

    forward = FORWARD[torch.nn.RNN]


class GRU(_Ours, torch.nn.GRU):
    """torch.nn.GRU on fastrnn's kernels: gates r, z, n, the reset gate behind the recurrent product. A subclass with
    torch's arguments, parameters, names, random numbers and hooks; only `forward` is another.

    output, h_n = module(input, hx=None): shapes, dtypes, errors and what falls back as of `RNN`.
    """

    forward = FORWARD[torch.nn.GRU]


class LSTM(_Ours, torch.nn.LSTM):
    """torch.nn.LSTM on fastrnn's kernels: gates i, f, g, o, with `proj_size` too. A subclass with torch's arguments,
    parameters, names, random numbers and hooks; only `forward` is another.

    output, (h_n, c_n) = module(input, hx=None): dtypes, errors and what falls back as of `RNN`. With W the width of h,
    proj_size or else H:
    input: (T, N, D), (N, T, D) with batch_first, (T, D) without a batch, or a PackedSequence.
    hx: (h_0, c_0), (L*S, N, W) and (L*S, N, H), without N where there is no batch; None for zeros.
    output: as input, S*W wide, packed if input is; (h_n, c_n): as hx.
    """

    forward = FORWARD[torch.nn.LSTM]


class RNNCell(_Ours, torch.nn.RNNCell):
    """torch.nn.RNNCell on fastrnn's kernels: one step of an `RNN`, with torch's arguments, parameters and errors.

    h' = module(input, hx=None), tensors on the CPU of the weights' dtype, float32 or float64: input (N, D) or (D,), hx
    and h' (N, H) or (H,), None for zeros.

    Whatever the kernels do not take runs in torch's own forward, which raises torch's errors: what `RNN` names, and
    bfloat16 and torch.compile besides. `fastrnn.interop.torch.report()` counts both kinds and says why.
    """

    forward = FORWARD[torch.nn.RNNCell]


class GRUCell(_Ours, torch.nn.GRUCell):
    """torch.nn.GRUCell on fastrnn's kernels: one step of a `GRU`, with torch's arguments, parameters and errors.

    h' = module(input, hx=None): shapes, dtypes and what falls back as of `RNNCell`.
    """

    forward = FORWARD[torch.nn.GRUCell]


class LSTMCell(_Ours, torch.nn.LSTMCell):
    """torch.nn.LSTMCell on fastrnn's kernels: one step of an `LSTM`, with torch's arguments, parameters and errors.

    h', c' = module(input, hx=None): input (N, D) or (D,), hx and the result pairs (h, c) of (N, H) or (H,), None for
    zeros; dtypes and what falls back as of `RNNCell`.
    """

    forward = FORWARD[torch.nn.LSTMCell]


OURS = {
    torch.nn.RNN: RNN,
    torch.nn.GRU: GRU,
    torch.nn.LSTM: LSTM,
    torch.nn.RNNCell: RNNCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.LSTMCell: LSTMCell,
}
