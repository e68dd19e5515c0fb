"""Which calls the kernels can take, and which torch computes faster. Letters as in `_layers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from ._autograd import peek_interpreter_stack

_C = torch._C
DTYPES = (torch.float32, torch.float64)
TENSORS = (Tensor, Parameter)
_HAS_BFLOAT16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def blocked() -> str:
    """Why no call at all can be taken now, "" if it can."""
    if _C._is_any_autocast_enabled():
        return "autocast"
    if _C._len_torch_dispatch_stack() or _C._len_torch_function_stack():
        return "a torch mode is active"
    if peek_interpreter_stack() is not None:
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return ""


def unfit(tensor: Any, dtype: Any) -> str:
    if type(tensor) not in TENSORS:
        return f"a {type(tensor).__name__}"
    if tensor.dtype is not dtype or dtype not in (*DTYPES, torch.bfloat16):
        return f"dtype {tensor.dtype}"
    if not tensor.is_cpu:
        return f"device {tensor.device.type}"
    if tensor.layout is not torch.strided or tensor.is_neg():
        return "a tensor that is not strided"
    return ""


LOSES = "torch is faster at this shape"


WIDE = 700  # from which H on weights are too many to stay packed
RNN_WIDE = 448 if hasattr(Tensor, "__dlpack_c_exchange_api__") else 128  # of one row of an RNNCell: see _packed


def loses(kind: str, T: int, N: int, H: int, training: bool) -> bool:
    """Where torch's one product beats us, who pack the weights in each call that trains (docs/pytorch.md)."""
    if T > 2:
        return False
    if kind == "lstm":
        return training and H > 768
    if training:
        return (384 if T == 2 else 0 if kind == "rnn" else 128 if N < 4 else 192) < H
    return T == 1 and H > WIDE


def half_loses(kind: str, N: int, H: int, training: bool) -> bool:
    """Where the processor multiplies bfloat16 itself: torch's LSTM does that, while we compute in float32."""
    return _HAS_BFLOAT16 and (not training or N > 4 if kind == "lstm" else H > 256 and N > 4)


def cell_loses(kind: str, N: int, H: int, training: bool) -> bool:
    """The same for a cell, where torch has less to do around its products."""
    if training:
        return kind == "rnn" or (H > 128 if kind == "lstm" or N < 4 else H > 224)
    return H > WIDE or (kind == "rnn" and N == 1 and H > RNN_WIDE)
