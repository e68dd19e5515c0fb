"""Connectionist temporal classification: labels in order, without the steps that they belong to.

Letters: T time steps, N batch, M classes, U labels of the longest sequence, U_n those of sequence n.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .. import _native
from .._validate import Array, check_boolean, check_lengths
from .checks import REDUCTIONS, Reduction, element_weights, float_array, quiet, reduced


@quiet
def ctc(
    logits: Array,
    targets: Any,
    *,
    reduction: Reduction = "mean",
    blank: int = 0,
    target_lengths: Any = None,
    zero_infinity: bool = False,
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
) -> tuple[Any, Array]:
    """CTC loss (Graves et al. 2006): -log of the probability that the network says the labels of a sequence in their
    order, each for one step or several in a row, with blanks between where it likes, summed over all such paths.

    dloss/dlogits = softmax(logits) - the posterior probability of each class at each step, which the forward-backward
    algorithm gives; `fastrnn.reference.ctc` derives it. PyTorch's ctc_loss(log_softmax(logits)) has the same values.

    Parameters
    ----------
    logits : float32 or float64, (T, N, M), or (N, T, M) with time_axis=1; softmax is part of the loss.
    targets : integers (N, U), or a list of N sequences of integers: labels 0..M-1 other than ``blank``. In an array a
        negative number ends a sequence's labels, unless ``target_lengths`` says how many there are.
    reduction : "mean": each sequence's loss divided by its number of labels, then the mean over the batch, as in
        PyTorch; "sequence": the mean over the batch; "sum"; or "none", (N,).
    blank : the class that stands for no label.
    target_lengths : (N,) integers: how many labels of each row count.
    zero_infinity : the loss of a sequence too short for its labels is 0, not infinity, the gradient 0, not nan.
    lengths : (N,) integers: how many steps of each sequence count, PyTorch's input_lengths. None: all.
    sample_weight : (N,) numbers of at least 0; see the module's docstring.

    Returns
    -------
    loss : float; with reduction="none" an array (N,).
    dlogits : gradient, shape and dtype of ``logits``.

    Raises
    ------
    TypeError : logits not float32 or float64, labels that are no integers.
    ValueError : shapes that do not fit, a label or length out of range, an unknown reduction.
    """
    logits, axis, blank = _check(logits, time_axis, blank, reduction)
    time_major = logits if axis == 0 else logits.swapaxes(0, 1)
    T, N, M = time_major.shape
    labels, counts = _labels(targets, target_lengths, N)
    _check_labels(labels, M, blank)
    steps = np.full(N, T, np.int64) if lengths is None else check_lengths(lengths, T, N).astype(np.int64)
    weights = element_weights(sample_weight, (N,))
    weights = np.ones(N) if weights is None else np.array(weights)
    steps[weights == 0] = 0
    total = float(weights.sum())
    divisor = (total or 1.0) if reduction == "mean" else max(N, 1) if reduction == "sequence" else 1
    factors = weights / np.maximum(counts, 1) if reduction == "mean" else weights
    dlogits, zeros = np.zeros_like(logits, order="C"), check_boolean("zero_infinity", zero_infinity)
    into = dlogits if axis == 0 else dlogits.swapaxes(0, 1)
    losses = _native.ctc(time_major, into, labels, np.cumsum(counts), steps, blank, factors / divisor, zeros)
    losses = np.where(weights > 0, losses * factors, 0.0)
    if reduction == "none":
        return losses.astype(logits.dtype), dlogits
    return reduced(losses, reduction, total, divisor), dlogits


def _check(logits: Any, time_axis: int, blank: int, reduction: str) -> tuple[Array, int, int]:
    logits, axis, blank = float_array("logits", logits), operator.index(time_axis), operator.index(blank)
    if logits.ndim != 3 or not logits.shape[-1] or axis not in (0, 1):
        raise ValueError(f"logits: expected shape (T, N, M), or (N, T, M) with time_axis=1, got {logits.shape}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not 0 <= blank < logits.shape[-1]:
        raise ValueError(f"blank: expected a class 0..{logits.shape[-1] - 1}, got {blank}")
    return logits, axis, blank


def _labels(targets: Any, target_lengths: Any, N: int) -> tuple[Array, Array]:
    """The labels of all sequences, one after the other, and how many each has, both int64."""
    if isinstance(targets, (list, tuple)):
        rows = [np.asarray(row) if np.size(row) else np.zeros(0, np.int64) for row in targets]
        if target_lengths is not None:
            raise ValueError("target_lengths: expected None, as targets is a list, whose sequences have their own")
    else:
        array = np.asarray(targets)
        if array.ndim != 2:
            raise ValueError(f"targets: expected shape (N, U) or a list of sequences, got {array.shape}")
        rows = list(array)
    if len(rows) != N:
        raise ValueError(f"targets: expected {N} sequences of labels, got {len(rows)}")
    for row in rows:
        if row.dtype.kind not in "iu" or row.ndim != 1:
            raise TypeError(f"targets: expected sequences of integers, got {row.dtype} of shape {row.shape}")
    if target_lengths is not None:
        rows = [row[:n] for row, n in zip(rows, check_lengths(target_lengths, array.shape[1], N))]
    elif not isinstance(targets, (list, tuple)):
        rows = [row[: int((row < 0).argmax())] if (row < 0).any() else row for row in rows]
    counts = np.array([len(row) for row in rows], np.int64)
    return np.concatenate([np.zeros(0, np.int64), *(row.astype(np.int64) for row in rows)]), counts


def _check_labels(labels: Array, M: int, blank: int) -> None:
    wrong = labels[(labels < 0) | (labels >= M) | (labels == blank)]
    if wrong.size:
        raise ValueError(f"targets: expected labels 0..{M - 1} other than the blank {blank}, got {wrong[0]}")
