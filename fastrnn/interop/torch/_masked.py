"""Sequences in which episodes begin. Letters as in `_layers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _modules
from ._report import fell_back, taken


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
    result = _modules._sequence(module, input, hx, mask.cpu().numpy())
    if type(result) is not str:
        taken[name] += 1
        return result
    fell_back(name, result)
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
