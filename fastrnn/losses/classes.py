"""Losses of classes: softmax cross entropy and the binary one.

Letters: T time steps, N batch, M classes.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._validate import Array, check_not_negative
from .checks import (
    Reduction,
    divisor_of,
    element_weights,
    elements_of,
    float_array,
    hint_at_pooling,
    quiet,
    reduced,
    targets_like,
    weights_array,
    within_lengths,
)


@quiet
def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
) -> tuple[Any, Array]:
    """Softmax cross entropy of integer classes, -log softmax(logits)[target].

    With p = softmax(logits): loss = logsumexp(logits) - logits[target] and
    dloss/dlogits = p - onehot(target). With label_smoothing = e a target is 1 - e of its class and e / M of each
    (Szegedy et al. 2016); with class_weight = w the loss is -w[target] (1 - e) log p[target] - e / M sum_m w[m] log
    p[m], and "mean" divides by the sum of w[target], all as in PyTorch.

    Parameters
    ----------
    logits : float32 or float64, shape (..., M), with any leading axes.
    targets : integers, shape (...), each in 0..M-1 or equal to ``ignore_index``.
    reduction : "mean" over the targets that are not ignored, "sum", "none" or "sequence".
        In "sequence" an ignored target counts as a zero and L_t is still the mean over the whole
        batch, so that every sequence keeps the same weight however long its neighbours are.
    ignore_index : targets of this value add nothing to the loss and get a gradient of exactly zero.
    time_axis : for "sequence" and ``lengths``: the axis of ``targets`` that is time.
    lengths : (N,) integers: how many steps of each sequence count; see the module's docstring.
    sample_weight : numbers of at least 0, of the shape of the first axes of ``targets``; see the module's docstring.
    class_weight : (M,) numbers of at least 0.
    label_smoothing : a number in [0, 1].

    Returns
    -------
    loss : float; with reduction="none" an array of the shape of ``targets``, 0 where ignored.
    dlogits : gradient, shape and dtype of ``logits``.

    Raises
    ------
    TypeError : logits not float32 or float64, targets or lengths not integers.
    ValueError : shapes or numbers that do not fit, an unknown reduction.
    """
    logits, targets = _check_classes(logits, targets)
    smoothing, ignored = _check_smoothing(label_smoothing), operator.index(ignore_index)
    by_class = _check_class_weight(class_weight, logits)
    weights = element_weights(sample_weight, targets.shape)
    rows = None if weights is None else np.ascontiguousarray(weights).reshape(-1)
    if lengths is None and weights is None and by_class is None and not smoothing and reduction == "mean":
        return _mean_of_all(logits, targets, ignored)
    masks = (within_lengths(lengths, targets.shape, time_axis), None if weights is None else weights > 0)
    classes, total = _classes_that_count(targets, masks, logits.shape[-1], ignored)
    if rows is not None or by_class is not None:
        total = _total(classes, classes != ignored, rows, by_class)
    divisor = divisor_of(reduction, targets.shape, total, time_axis)
    options: dict[str, Any] = {"row_weights": rows, "class_weights": by_class, "smoothing": smoothing}
    losses, dlogits = _native.cross_entropy(_rows(logits), classes, ignored, 1.0 / divisor, **options)
    if reduction == "none":
        return losses.reshape(targets.shape), dlogits.reshape(logits.shape)
    return reduced(losses, reduction, total, divisor), dlogits.reshape(logits.shape)


def _mean_of_all(logits: Array, targets: Array, ignored: int) -> tuple[float, Array]:
    """What is asked for most, in fewer steps."""
    M = logits.shape[-1]
    classes, total = _classes_that_count(targets, (), M, ignored)
    losses, dlogits = _native.cross_entropy(_rows(logits), classes, ignored, 1.0 / (total or 1))
    return reduced(losses, "mean", total, total or 1), dlogits.reshape(logits.shape)


def _rows(logits: Array) -> Array:
    return np.ascontiguousarray(logits).reshape(-1, logits.shape[-1])


def _total(classes: Array, kept: Array, rows: Array | None, by_class: Array | None) -> float:
    """The sum of the weights of the targets that are kept."""
    own = 1.0 if by_class is None else by_class[classes[kept]]
    return float(np.sum(own if rows is None else own * rows[kept], dtype=np.float64))


def _classes_that_count(
    targets: Array, masks: tuple[Array | None, ...], M: int, ignored: int
) -> tuple[NDArray[np.int64], float]:
    """The targets as (N,), the ignored class where a mask says so, and how many are another one."""
    classes = _as_int64(targets)
    for mask in masks:
        if mask is not None:
            classes = np.where(mask, classes, ignored)
    classes = np.ascontiguousarray(classes).reshape(-1)
    counted = _native.count_classes(classes, M, ignored)
    if counted < 0:
        wrong = classes[(classes != ignored) & ((classes < 0) | (classes >= M))][0]
        raise ValueError(f"targets: expected classes 0..{M - 1} (or ignore_index {ignored}), got {wrong}")
    return classes, counted


@quiet
def binary_cross_entropy_with_logits(
    logits: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
) -> tuple[Any, Array]:
    """Binary cross entropy of sigmoid(logits), elementwise.

    loss = -t log(s) - (1 - t) log(1 - s) with s = sigmoid(x), computed as
    max(x, 0) - x t + log(1 + exp(-|x|)), which overflows for no x; dloss/dx = s - t. With pos_weight = w the first
    term counts w times, as in PyTorch. With label_smoothing = e targets are (1 - e) t + e / 2, as in Keras.

    Parameters
    ----------
    logits : float32 or float64, any shape.
    targets : the same shape, booleans, integers or floats in [0, 1]; converted to the logits' dtype.
    reduction : "mean", "sum", "none" or "sequence"; see the module's docstring.
    time_axis : for "sequence" and ``lengths``: the axis that is time.
    lengths : (N,) integers: how many steps of each sequence count; see the module's docstring.
    sample_weight : numbers of at least 0, of the shape of the first axes; see the module's docstring.
    pos_weight : a number of at least 0, or one for each entry of the last axis.
    label_smoothing : a number in [0, 1].

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
    smoothing = _check_smoothing(label_smoothing)
    elements = elements_of(logits.shape, reduction, time_axis, lengths, sample_weight)
    targets = targets_like("logits", logits, targets, elements.keep)
    if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
        raise ValueError(f"targets: expected probabilities in [0, 1], got values in [{targets.min()}, {targets.max()}]")
    if smoothing:
        targets = targets * logits.dtype.type(1 - smoothing) + logits.dtype.type(smoothing / 2)
    decayed = np.exp(-np.abs(logits))
    sigmoid = np.where(logits >= 0, 1, decayed) / (1 + decayed)
    if pos_weight is None:
        # inf * 0 for an infinite logit and its own class: nan
        losses = np.maximum(logits, 0) - logits * targets + np.log1p(decayed)
        slope = sigmoid - targets
    else:
        weight = _check_pos_weight(pos_weight, logits)
        factor = 1 + (weight - 1) * targets
        losses = (1 - targets) * logits + factor * (np.log1p(decayed) + np.maximum(-logits, 0))
        slope = factor * sigmoid - weight * targets
    return elements.finish(np.asarray(losses), np.asarray(slope / elements.divisor, dtype=logits.dtype))


def _check_smoothing(label_smoothing: Any) -> float:
    smoothing = check_not_negative("label_smoothing", label_smoothing)
    if smoothing > 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing!r}")
    return smoothing


def _check_class_weight(class_weight: Any, logits: Array) -> Array | None:
    if class_weight is None:
        return None
    by_class = weights_array("class_weight", class_weight)
    if by_class.shape != logits.shape[-1:]:
        raise ValueError(f"class_weight: expected shape {logits.shape[-1:]}, got {by_class.shape}")
    return by_class.astype(logits.dtype)


def _check_pos_weight(pos_weight: Any, logits: Array) -> Array:
    weight = weights_array("pos_weight", pos_weight)
    if weight.ndim and weight.shape != logits.shape[-1:]:
        raise ValueError(f"pos_weight: expected a number or shape {logits.shape[-1:]}, got {weight.shape}")
    converted: Array = weight.astype(logits.dtype)
    return converted


def _check_classes(logits: Any, targets: Any) -> tuple[Array, Array]:
    """Logits, and integers, one for each row of them."""
    logits = float_array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected shape (..., M) with M >= 1 classes, got {logits.shape}")
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets: expected integer classes, got {targets.dtype}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets: expected shape {logits.shape[:-1]} for logits of shape {logits.shape}, got {targets.shape}"
            f"{hint_at_pooling(targets.shape, logits.shape)}"
        )
    return logits, targets


def _as_int64(targets: Array) -> Array:
    if targets.dtype == np.uint64:
        targets = np.minimum(targets, np.uint64(2**63 - 1))  # still out of range; cast it would turn negative
    return np.ascontiguousarray(targets, np.int64)
