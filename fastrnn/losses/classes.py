"""Losses of classes: softmax cross entropy and the binary one.

Letters: T time steps, N batch, M classes.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .. import _native
from .._validate import Array
from .checks import Reduction, divisor_of, float_array, reduced, targets_like, within_lengths


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
    logits = float_array("logits", logits)
    targets = _check_classes(logits, targets)
    num_classes, ignored = logits.shape[-1], operator.index(ignore_index)
    within = within_lengths(lengths, targets.shape, time_axis)
    classes = _as_int64(targets)
    if within is not None:
        classes = np.where(within, classes, ignored)
    classes = classes.reshape(-1)
    counted = _native.count_classes(classes, num_classes, ignored)
    if counted < 0:
        wrong = classes[(classes != ignored) & ((classes < 0) | (classes >= num_classes))][0]
        raise ValueError(f"targets: expected classes 0..{num_classes - 1} (or ignore_index {ignored}), got {wrong}")
    divisor = divisor_of(reduction, targets.shape, counted, time_axis)
    flat = np.ascontiguousarray(logits).reshape(-1, num_classes)
    losses, dlogits = _native.cross_entropy(flat, classes, ignored, 1.0 / divisor)
    dlogits = dlogits.reshape(logits.shape)
    if reduction == "none":
        return losses.reshape(targets.shape), dlogits
    return reduced(losses, reduction, counted, divisor), dlogits


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
    logits = float_array("logits", logits)
    keep = within_lengths(lengths, logits.shape, time_axis)
    targets = targets_like("logits", logits, targets, keep)
    if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
        raise ValueError(f"targets: expected probabilities in [0, 1], got values in [{targets.min()}, {targets.max()}]")
    counted = logits.size if keep is None else int(np.count_nonzero(keep))
    divisor = divisor_of(reduction, logits.shape, counted, time_axis)
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
    return reduced(losses, reduction, counted, divisor), dlogits


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


def _as_int64(targets: Array) -> Array:
    if targets.dtype == np.uint64:
        targets = np.minimum(targets, np.uint64(2**63 - 1))  # still out of range; cast it would turn negative
    return np.ascontiguousarray(targets, np.int64)
