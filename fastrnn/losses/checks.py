"""What the losses share: checks of their arguments, masks, and reductions."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, get_args

import numpy as np

from .._validate import Array, check_lengths

Reduction = Literal["mean", "sum", "none", "sequence"]
REDUCTIONS = get_args(Reduction)


def float_array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype != np.float32 and array.dtype != np.float64:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def within_lengths(lengths: Any, shape: tuple[int, ...], time_axis: int) -> Array | None:
    """Mask of the elements that lie within their sequence's length; None for all."""
    if lengths is None:
        return None
    axis = operator.index(time_axis)
    if len(shape) < 2 or axis not in (0, 1):
        raise ValueError(
            f"lengths: expected None without axes of time and batch in front, got elements of shape {shape} with "
            f"time_axis={time_axis}"
        )
    lengths = check_lengths(lengths, shape[axis], shape[1 - axis])
    mask = np.arange(shape[axis])[:, None] < lengths  # (T, N)
    mask = mask.T if axis else mask
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - 2)), shape)


def targets_like(name: str, like: Array, targets: Any, keep: Array | None) -> Array:
    """Real-valued targets in the dtype and exactly the shape of ``like``, zero where not ``keep``."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets: expected real numbers like {name}, got {targets.dtype}")
    if targets.shape != like.shape:
        raise ValueError(f"targets: expected shape {like.shape} like {name}, got {targets.shape}")
    converted: Array = targets.astype(like.dtype, copy=False)
    return converted if keep is None else np.where(keep, converted, like.dtype.type(0))


def divisor_of(reduction: Reduction, shape: tuple[int, ...], counted: int, time_axis: int) -> int:
    """What the sum of the element losses is divided by (1 where there is nothing to divide)."""
    if reduction == "mean":
        return max(counted, 1)
    if reduction == "sum" or reduction == "none":
        return 1
    if reduction != "sequence":
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if len(shape) < 2:
        raise ValueError(f'reduction: "sequence" needs a time and a batch axis, got elements of shape {shape}')
    axis = operator.index(time_axis)
    if not 0 <= axis < len(shape):
        raise ValueError(f"time_axis: expected an axis 0..{len(shape) - 1}, got {time_axis}")
    return max(math.prod(shape[:axis] + shape[axis + 1 :]), 1)


def reduced(losses: Array, reduction: Reduction, counted: int, divisor: int) -> float:
    if reduction == "mean" and counted == 0:
        return math.nan
    return float(losses.sum(dtype=np.float64)) / divisor
