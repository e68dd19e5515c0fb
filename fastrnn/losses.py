"""Losses: each function returns ``(loss, dlogits)``, the value and its gradient.

Letters: T time steps, N batch, M classes.

All losses share the keyword ``reduction``:

``"mean"``
    the mean over all elements (cross entropy: over all targets that count), as in PyTorch.
``"sum"``
    the sum.
``"sequence"``
    the loss of RNN texts, L = sum_t L_t, where L_t is the mean of step t's elements over every
    other axis, that is over the batch (Goodfellow, Bengio and Courville 2016, section 10.2).
    ``time_axis`` says which axis is time: 0 for time-major (T, N, ...), 1 for (N, T, ...).
``"none"``
    no reduction: the loss is an array, and the gradient is that of its sum.

All take ``lengths`` too, (N,) integers 0..T in any order, for sequences of elements (T, N, ...), or (N, T, ...) with
``time_axis=1``: the steps of sequence n from lengths[n] on count nothing. They may hold anything, NaN and targets out
of range too, and get a gradient of exactly zero. "mean" is then over the elements that count; in "sequence" L_t is
still the mean over the whole batch, so that every sequence keeps its weight however long its neighbours are.

A reduced loss is a Python float, summed in float64. Arrays keep the dtype of the logits. The mean of
no elements at all is nan, with a gradient of zeros, as in PyTorch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from . import _native
from ._validate import Array, check_lengths

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "get", "mse"]

Reduction = Literal["mean", "sum", "none", "sequence"]
REDUCTIONS = get_args(Reduction)


def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    time_axis: int = 0,
    lengths: Array | None = None,
) -> tuple[Any, Array]:
    """Softmax cross entropy of integer classes, -log softmax(logits)[target].

    With p = softmax(logits): loss = logsumexp(logits) - logits[target] and
    dloss/dlogits = p - onehot(target).

    Parameters
    ----------
    logits : float32 or float64, shape (..., M): (N, M), (T, N, M) or any other leading axes.
    targets : integers, shape (...), each in 0..M-1 or equal to ``ignore_index``.
    reduction : "mean" over the targets that are not ignored, "sum", "none" or "sequence".
        In "sequence" an ignored target counts as a zero and L_t is still the mean over the whole
        batch, so that every sequence keeps the same weight however long its neighbours are.
    ignore_index : targets of this value add nothing to the loss and get a gradient of exactly zero.
    time_axis : for "sequence" and ``lengths``: the axis of ``targets`` that is time.
    lengths : (N,) integers: how many steps of each sequence count; see the module's docstring.

    Returns
    -------
    loss : float; with reduction="none" an array of the shape of ``targets``, 0 where ignored.
        Where all targets are ignored, "mean" is nan and the gradient zero.
    dlogits : gradient, shape and dtype of ``logits``.

    Raises
    ------
    TypeError : logits not float32 or float64, targets or lengths not integers.
    ValueError : shapes that do not fit, a target or a length out of range, an unknown reduction.
    """
    logits = _float_array("logits", logits)
    targets = _check_classes(logits, targets)
    num_classes, ignored = logits.shape[-1], operator.index(ignore_index)
    within = _within(lengths, targets.shape, time_axis)
    classes = _as_int64(targets)
    if within is not None:
        classes = np.where(within, classes, ignored)
    classes = classes.reshape(-1)
    counted = _native.count_classes(classes, num_classes, ignored)
    if counted < 0:
        wrong = classes[(classes != ignored) & ((classes < 0) | (classes >= num_classes))][0]
        raise ValueError(f"targets: expected classes 0..{num_classes - 1} (or ignore_index {ignored}), got {wrong}")
    divisor = _divisor(reduction, targets.shape, counted, time_axis)
    flat = np.ascontiguousarray(logits).reshape(-1, num_classes)
    losses, dlogits = _native.cross_entropy(flat, classes, ignored, 1.0 / divisor)
    dlogits = dlogits.reshape(logits.shape)
    if reduction == "none":
        return losses.reshape(targets.shape), dlogits
    return _reduced(losses, reduction, counted, divisor), dlogits


def binary_cross_entropy_with_logits(
    logits: Array, targets: Array, *, reduction: Reduction = "mean", time_axis: int = 0, lengths: Array | None = None
) -> tuple[Any, Array]:
    """Binary cross entropy of sigmoid(logits), elementwise.

    loss = -t log(s) - (1 - t) log(1 - s) with s = sigmoid(x), computed as
    max(x, 0) - x t + log(1 + exp(-|x|)), which overflows for no x; dloss/dx = s - t.

    Parameters
    ----------
    logits : float32 or float64, any shape.
    targets : the same shape, booleans, integers or floats in [0, 1]; converted to the logits' dtype.
    reduction : "mean", "sum", "none" or "sequence"; see the module's docstring.
    time_axis : for "sequence" and ``lengths``: the axis that is time.
    lengths : (N,) integers: how many steps of each sequence count; see the module's docstring.

    Returns
    -------
    loss : float; with reduction="none" an array of the shape of ``logits``.
    dlogits : gradient, shape and dtype of ``logits``.

    Raises
    ------
    TypeError : logits not float32 or float64, targets not real numbers.
    ValueError : shapes that differ, a target outside [0, 1], an unknown reduction.
    """
    logits = _float_array("logits", logits)
    keep = _within(lengths, logits.shape, time_axis)
    targets = _targets_like("logits", logits, targets, keep)
    if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
        raise ValueError(f"targets: expected probabilities in [0, 1], got values in [{targets.min()}, {targets.max()}]")
    counted = logits.size if keep is None else int(np.count_nonzero(keep))
    divisor = _divisor(reduction, logits.shape, counted, time_axis)
    with np.errstate(invalid="ignore", under="ignore"):  # inf * 0 for an infinite logit and its own class: nan
        decayed = np.exp(-np.abs(logits))
        losses = np.maximum(logits, 0) - logits * targets + np.log1p(decayed)
        dlogits = np.where(logits >= 0, 1, decayed) / (1 + decayed)
        dlogits = np.asarray((dlogits - targets) / divisor, dtype=logits.dtype)
    if keep is not None:
        losses[~keep] = 0.0
        dlogits[~keep] = 0.0
    if reduction == "none":
        return losses, dlogits
    return _reduced(losses, reduction, counted, divisor), dlogits


def mse(
    prediction: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
) -> tuple[Any, Array]:
    """Squared error, elementwise: loss = (y - t)^2, dloss/dy = 2 (y - t).

    Parameters
    ----------
    prediction : float32 or float64, any shape.
    targets : the same shape (nothing is broadcast), real numbers; converted to the prediction's dtype.
    reduction : "mean", "sum", "none" or "sequence"; see the module's docstring. L_t is the mean over
        batch and features.
    time_axis : for "sequence" and ``lengths``: the axis that is time.
    lengths : (N,) integers: how many steps of each sequence count; see the module's docstring.

    Returns
    -------
    loss : float; with reduction="none" an array of the shape of ``prediction``.
    dprediction : gradient, shape and dtype of ``prediction``.

    Raises
    ------
    TypeError : prediction not float32 or float64, targets not real numbers.
    ValueError : shapes that differ, an unknown reduction.
    """
    prediction = _float_array("prediction", prediction)
    keep = _within(lengths, prediction.shape, time_axis)
    targets = _targets_like("prediction", prediction, targets, keep)
    counted = prediction.size if keep is None else int(np.count_nonzero(keep))
    divisor = _divisor(reduction, prediction.shape, counted, time_axis)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):  # inf and nan in the answer say it already
        difference = prediction - targets
        losses = np.square(difference)
        dprediction = np.asarray(difference * (2.0 / divisor))
    if keep is not None:
        losses[~keep] = 0.0
        dprediction[~keep] = 0.0
    if reduction == "none":
        return losses, dprediction
    return _reduced(losses, reduction, counted, divisor), dprediction


_LOSSES: dict[str, Callable[..., tuple[Any, Array]]] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy_with_logits,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "mse": mse,
}


def get(loss: str | Callable[..., tuple[Any, Array]]) -> Callable[..., tuple[Any, Array]]:
    """The loss of that name; a callable ``(prediction, targets) -> (loss, gradient)`` is returned as it is.

    Raises ValueError for an unknown name and TypeError for what is neither a name nor callable.
    """
    if callable(loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or a callable, got {type(loss).__name__}")
    try:
        return _LOSSES[loss]
    except KeyError:
        raise ValueError(f"loss: expected one of {', '.join(_LOSSES)}, got {loss!r}") from None


def _float_array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype != np.float32 and array.dtype != np.float64:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def _check_classes(logits: Array, targets: Any) -> Array:
    """Integers, one for each row of logits."""
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected shape (..., M) with M >= 1 classes, got {logits.shape}")
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets: expected integer classes, got {targets.dtype}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets: expected shape {logits.shape[:-1]} for logits of shape {logits.shape}, got {targets.shape}"
        )
    classes: Array = targets
    return classes


def _within(lengths: Any, shape: tuple[int, ...], time_axis: int) -> Array | None:
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


def _targets_like(name: str, like: Array, targets: Any, keep: Array | None) -> Array:
    """Real-valued targets in the dtype and exactly the shape of ``like``, zero where not ``keep``."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets: expected real numbers like {name}, got {targets.dtype}")
    if targets.shape != like.shape:
        raise ValueError(f"targets: expected shape {like.shape} like {name}, got {targets.shape}")
    converted: Array = targets.astype(like.dtype, copy=False)
    return converted if keep is None else np.where(keep, converted, like.dtype.type(0))


def _as_int64(targets: Array) -> Array:
    if targets.dtype == np.uint64:
        targets = np.minimum(targets, np.uint64(2**63 - 1))  # still out of range; cast it would turn negative
    return np.ascontiguousarray(targets, np.int64)


def _divisor(reduction: Reduction, shape: tuple[int, ...], counted: int, time_axis: int) -> int:
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


def _reduced(losses: Array, reduction: Reduction, counted: int, divisor: int) -> float:
    if reduction == "mean" and counted == 0:
        return math.nan
    return float(losses.sum(dtype=np.float64)) / divisor
