"""What the losses share: checks of their arguments, masks, weights and reductions."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .._validate import Array, check_lengths, plain

Reduction = Literal["mean", "sum", "none", "sequence"]
REDUCTIONS = get_args(Reduction)

# A loss says with inf, nan and 0 what happened; whether NumPy is to warn or raise elsewhere is the caller's matter.
quiet = np.errstate(all="ignore")


@dataclass
class Elements:
    """How the elements of an elementwise loss are weighted and reduced."""

    keep: Array | None  # which of them count; None: all
    weights: Array | None  # what each counts for, broadcast to their shape
    reduction: Reduction
    total: float  # the sum of all weights
    divisor: float

    def finish(self, losses: Array, gradient: Array) -> tuple[Any, Array]:
        """The reduced loss and the gradient, from those of the elements, the gradient divided already."""
        if self.weights is not None:
            losses = np.asarray(losses * self.weights, losses.dtype)
            gradient = np.asarray(gradient * self.weights, gradient.dtype)
        if self.keep is not None:
            losses[~self.keep] = 0.0
            gradient[~self.keep] = 0.0
        if self.reduction == "none":
            return losses, gradient
        return reduced(losses, self.reduction, self.total, self.divisor), gradient


def elements_of(
    shape: tuple[int, ...], reduction: Reduction, time_axis: int, lengths: Any, sample_weight: Any
) -> Elements:
    keep = within_lengths(lengths, shape, time_axis)
    weights = element_weights(sample_weight, shape)
    total: float = math.prod(shape) if keep is None else int(np.count_nonzero(keep))
    if weights is not None:
        weights = weights if keep is None else np.where(keep, weights, 0.0)
        keep = weights > 0
        total = float(weights.sum())
        keep = None if keep.all() else keep
    return Elements(keep, weights, reduction, total, divisor_of(reduction, shape, total, time_axis))


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


def element_weights(sample_weight: Any, shape: tuple[int, ...]) -> Array | None:
    """Weights of the elements in float64, broadcast to their shape from its first axes; None for 1 each."""
    if sample_weight is None:
        return None
    weights = weights_array("sample_weight", sample_weight)
    if weights.shape != shape[: weights.ndim]:
        raise ValueError(f"sample_weight: expected the first axes of {shape}, got shape {weights.shape}")
    return np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape)


def weights_array(name: str, values: Any) -> Array:
    """Finite numbers of at least 0, in float64."""
    weights = plain(name, values)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {weights.dtype}")
    weights = weights.astype(np.float64)
    wrong = weights[~(np.isfinite(weights) & (weights >= 0))]
    if wrong.size:
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {wrong.flat[0]}")
    return weights


def targets_like(name: str, like: Array, targets: Any, keep: Array | None) -> Array:
    """Real-valued targets in the dtype and exactly the shape of ``like``, zero where not ``keep``."""
    targets = real_targets(name, targets)
    if targets.shape != like.shape:
        hint = hint_at_pooling(targets.shape, like.shape)
        raise ValueError(f"targets: expected shape {like.shape} like {name}, got {targets.shape}{hint}")
    converted: Array = targets.astype(like.dtype, copy=False)
    return converted if keep is None else np.where(keep, converted, like.dtype.type(0))


def hint_at_pooling(targets: tuple[int, ...], prediction: tuple[int, ...]) -> str:
    """Where there is one target for each sequence, and an output at each of its steps."""
    one_each = len(prediction) == 3 and len(targets) in (1, 2) and targets[0] in prediction[:2]
    if not one_each or (len(targets) == 2 and targets[1] != prediction[2]):
        return ""
    return "; for one target for each sequence put LastStep, or another pooling layer, behind the recurrent layers"


def real_targets(name: str, targets: Any) -> Array:
    array = np.asarray(targets)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"targets: expected real numbers like {name}, got {array.dtype}")
    return array


def divisor_of(reduction: Reduction, shape: tuple[int, ...], counted: float, time_axis: int) -> float:
    """What the sum of the element losses is divided by (1 where there is nothing to divide)."""
    if reduction == "mean":
        return counted if counted > 0 else 1
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


def reduced(losses: Array, reduction: Reduction, counted: float, divisor: float) -> float:
    if reduction == "mean" and counted == 0:
        return math.nan
    return float(losses.sum(dtype=np.float64)) / divisor
