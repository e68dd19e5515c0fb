"""torch.nn's recurrent modules with fastrnn's forward.

Each class is a subclass of torch's own and replaces nothing but `forward`. It decides whether the kernels can take the
call; if not, torch's forward runs, which also raises torch's errors. Letters as in `_layers`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.nn.utils.rnn import PackedSequence

from ._autograd import Sequence, Step, peek_interpreter_stack, run_cell, run_sequence
from ._layers import BATCH_FIRST, NO_ROWS, PACKED, TIME_MAJOR, UNBATCHED, Call, Rows, packed_rows
from ._report import fallen_back, taken

_C = torch._C
ORIGINAL = {
    cls: cls.forward
    for cls in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, torch.nn.RNNCell, torch.nn.GRUCell, torch.nn.LSTMCell)
}
_KINDS = {
    "LSTM": ("lstm", {}),
    "GRU": ("gru", {}),
    "RNN_TANH": ("rnn", {"nonlinearity": "tanh"}),
    "RNN_RELU": ("rnn", {"nonlinearity": "relu"}),
}
_DTYPES = (torch.float32, torch.float64)
_TENSORS = (Tensor, Parameter)


def _blocked() -> str:
    """Why no call at all can be taken now, "" if it can."""
    if _C._get_tracing_state() is not None:
        return "torch.jit.trace"
    if _C._is_any_autocast_enabled():
        return "autocast"
    if _C._len_torch_dispatch_stack() or _C._len_torch_function_stack():
        return "a torch mode is active"
    if peek_interpreter_stack() is not None:
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return ""


def _unfit(tensor: Any, dtype: Any) -> str:
    if type(tensor) not in _TENSORS:
        return f"a {type(tensor).__name__}"
    if tensor.dtype is not dtype or dtype not in _DTYPES:
        return f"dtype {tensor.dtype}"
    if not tensor.is_cpu:
        return f"device {tensor.device.type}"
    if tensor.layout is not torch.strided or tensor.is_neg():
        return "a tensor that is not strided"
    return ""


_LOSES = "torch is faster at this shape"


def _loses(kind: str, T: int, N: int, H: int, training: bool) -> bool:
    """Where torch's one product beats us, who pack the weights in each call (docs/pytorch.md says how to measure)."""
    if T > 2:
        return False
    if kind == "lstm":
        return training and H > 768
    if training:
        return (384 if T == 2 else 128 if N < 4 else 256) < H
    return T == 1 and N < 4 and H > 128


def _cell_loses(kind: str, N: int, H: int, training: bool) -> bool:
    """The same for a cell, where torch has less to do around its products."""
    if training:
        return kind == "rnn" or (H > 128 if kind == "lstm" or N < 4 else H > 224)
    if N >= 24:
        return (512 if kind == "rnn" else 384) < H or (kind == "rnn" and H < 128)
    return kind == "rnn" or (64 if N >= 4 else 32 if kind == "gru" else 0) < H


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
        if type(weight) not in _TENSORS or weight.dtype is not dtype or not weight.is_cpu:
            return "weights: " + (_unfit(weight, dtype) or "none")
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
    return T <= 2 and _loses(kind, T, N, module.hidden_size, torch.is_grad_enabled())


def _sequence(module: Any, input: Any, hx: Any, reset_mask: Any = None) -> Any:
    """Output and states like torch's, or a str: why not. What costs least to find out comes first."""
    kind, options = _KINDS[module.mode]
    if type(input) is Tensor and reset_mask is None and _loses_on(module, kind, input):
        return _LOSES
    reason = _blocked()
    if reason:
        return reason
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    if type(x) is not Tensor or x.dtype not in _DTYPES or not x.is_cpu or x.layout is not torch.strided or x.is_neg():
        return "input: " + _unfit(x, getattr(x, "dtype", None)) if type(x) is not Parameter else "input: a Parameter"
    H, W, layers, directions = module.hidden_size, module.proj_size or module.hidden_size, module.num_layers, 1
    if module.bidirectional:
        directions = 2
    rows = NO_ROWS if reset_mask is None else Rows(None, reset_mask)
    if packed:
        layout, rows = PACKED, packed_rows(input.batch_sizes)
        N = rows.shape[1]
    elif x.dim() == 3:
        layout = BATCH_FIRST if module.batch_first else TIME_MAJOR
        N = x.shape[0 if module.batch_first else 1]
    else:
        layout, N = UNBATCHED, 1
    if (
        x.dim() != (3 if layout in (BATCH_FIRST, TIME_MAJOR) else 2)
        or x.shape[-1] != module.input_size
        or not x.numel()
    ):
        return "input: its shape"
    weights = _weights(module, x.dtype)
    if type(weights) is str:
        return weights
    h0, c0 = _states(hx, kind == "lstm")
    for state, width in ((h0, W), (c0, H)):
        if state is not None:
            reason = _unfit(state, x.dtype)
            shape = (layers * directions, width) if layout == UNBATCHED else (layers * directions, N, width)
            if reason or state.shape != shape:
                return "hx: " + (reason or "its shape")
    training = torch.is_grad_enabled() and (
        x.requires_grad
        or any(w.requires_grad for w in weights)
        or (h0 is not None and h0.requires_grad)
        or (c0 is not None and c0.requires_grad)
    )
    noise = _noise(module, x, layout, W * directions)
    call = Call(kind, options, layers, directions, module.bias, module.proj_size > 0, layout, rows, noise)
    if packed and input.sorted_indices is not None:
        h0, c0 = (None if s is None else s.index_select(1, input.sorted_indices) for s in (h0, c0))
    if training:
        y, *states = Sequence.apply(call, x, h0, c0, *weights)
    else:
        y, *states = run_sequence(call, x, h0, c0, weights, False)[: 3 if kind == "lstm" else 2]
    if packed:
        y = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        if input.unsorted_indices is not None:
            states = [s.index_select(1, input.unsorted_indices) for s in states]
    return y, (tuple(states) if kind == "lstm" else states[0])


_CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _cell(module: Any, kind: str, options: dict, input: Any, hx: Any) -> Any:
    """The next state like torch's, or a str: why not. What costs least to find out comes first."""
    N = input.shape[0] if type(input) is Tensor and input.dim() == 2 else 1
    if _cell_loses(kind, N, module.hidden_size, torch.is_grad_enabled()):
        return _LOSES
    reason = _blocked()
    if reason:
        return reason
    x, dtype, H = input, getattr(input, "dtype", None), module.hidden_size
    reason = _unfit(x, dtype)
    if reason:
        return "input: " + reason
    shape = x.shape
    if x.dim() not in (1, 2) or shape[-1] != module.input_size or not x.numel():
        return "input: its shape"
    h, c = _states(hx, kind == "lstm")
    training = x.requires_grad
    for state in (h, c):
        if state is not None:
            reason = _unfit(state, dtype)
            if reason or state.shape != (*shape[:-1], H):
                return "hx: " + (reason or "its shape")
            training = training or state.requires_grad
    parameters = module._parameters
    weights = [parameters[n] if n in parameters else getattr(module, n) for n in _CELL_WEIGHTS]
    for weight in weights:
        if weight is None:
            continue
        if type(weight) not in _TENSORS or weight.dtype is not dtype or not weight.is_cpu:
            return "weights: " + _unfit(weight, dtype)
        training = training or weight.requires_grad
    training = training and torch.is_grad_enabled()
    if training:
        return Step.apply(kind, options, x, h, c, *weights)
    h, c, _ = run_cell(kind, options, x, h, c, *weights, False)
    return (h, c) if kind == "lstm" else h


def _forward_of(cls: Any) -> Any:
    """The forward that stands for that of `cls`."""
    original, name = ORIGINAL[cls], cls.__name__
    is_cell, kind = name.endswith("Cell"), name.removesuffix("Cell").lower()

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if torch.compiler.is_compiling():
            return original(self, input, hx)
        if not is_cell:
            result = _sequence(self, input, hx)
        elif kind == "rnn":
            result = _cell(self, kind, {"nonlinearity": self.nonlinearity}, input, hx)
        else:
            result = _cell(self, kind, {}, input, hx)
        if type(result) is str:
            fallen_back[name, result] += 1
            return original(self, input, hx)
        taken[name] += 1
        return result

    return forward


FORWARD = {cls: _forward_of(cls) for cls in ORIGINAL}


class _Ours:
    def __prepare_scriptable__(self) -> Any:
        """torch.jit.script compiles the source of torch's own forward: the module becomes torch's again."""
        object.__setattr__(self, "__class__", next(base for base in type(self).__mro__ if base in ORIGINAL))
        return self


class RNN(_Ours, torch.nn.RNN):
    __doc__ = torch.nn.RNN.__doc__
    forward = FORWARD[torch.nn.RNN]


class GRU(_Ours, torch.nn.GRU):
    __doc__ = torch.nn.GRU.__doc__
    forward = FORWARD[torch.nn.GRU]


class LSTM(_Ours, torch.nn.LSTM):
    __doc__ = torch.nn.LSTM.__doc__
    forward = FORWARD[torch.nn.LSTM]


class RNNCell(_Ours, torch.nn.RNNCell):
    __doc__ = torch.nn.RNNCell.__doc__
    forward = FORWARD[torch.nn.RNNCell]


class GRUCell(_Ours, torch.nn.GRUCell):
    __doc__ = torch.nn.GRUCell.__doc__
    forward = FORWARD[torch.nn.GRUCell]


class LSTMCell(_Ours, torch.nn.LSTMCell):
    __doc__ = torch.nn.LSTMCell.__doc__
    forward = FORWARD[torch.nn.LSTMCell]


OURS = {
    torch.nn.RNN: RNN,
    torch.nn.GRU: GRU,
    torch.nn.LSTM: LSTM,
    torch.nn.RNNCell: RNNCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.LSTMCell: LSTMCell,
}


def masked(module: Any, input: Tensor, hx: Any = None, *, reset_mask: Any) -> Any:
    """A one-directional module over sequences in which episodes begin: where reset_mask is True, the state is zeroed
    before that step. One call in place of a loop over episode starts.

    reset_mask: bool, (T, N), with batch_first (N, T), of an unbatched input (T,). Returns what module(input, hx) does.
    """
    if not isinstance(module, torch.nn.RNNBase) or module.bidirectional:
        raise ValueError("module: expected an RNN, GRU or LSTM of one direction")
    if isinstance(input, PackedSequence):
        raise TypeError("input: expected a tensor, got a PackedSequence")
    mask = torch.as_tensor(reset_mask)
    if mask.dtype is not torch.bool or mask.shape != input.shape[:-1]:
        raise ValueError(
            f"reset_mask: expected bool of shape {tuple(input.shape[:-1])}, got {mask.dtype} "
            f"of shape {tuple(mask.shape)}"
        )
    if input.dim() == 2:
        mask = mask[:, None]
    elif module.batch_first:
        mask = mask.T
    name = type(module).__name__
    if torch.compiler.is_compiling():
        return _masked_in_torch(module, input, hx, mask)
    result = _sequence(module, input, hx, mask.cpu().numpy())
    if type(result) is not str:
        taken[name] += 1
        return result
    fallen_back[name, result] += 1
    return _masked_in_torch(module, input, hx, mask)


def _masked_in_torch(module: Any, input: Tensor, hx: Any, mask: Tensor) -> Any:
    """Step by step; a state of None is zeros, which a reset leaves alone."""
    time = 1 if module.batch_first and input.dim() == 3 else 0
    outputs = []
    for t, x in enumerate(input.split(1, time)):
        if hx is not None and mask[t].any():
            resets = mask[t].to(input.device)
            resets = resets if input.dim() == 2 else resets[:, None]
            pair = isinstance(hx, (tuple, list))
            hx = tuple(h.masked_fill(resets, 0) for h in hx) if pair else hx.masked_fill(resets, 0)
        y, hx = module(x, hx)
        outputs.append(y)
    return torch.cat(outputs, time), hx
