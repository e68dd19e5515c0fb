"""nll: for models that put out the losses of their targets themselves."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .._validate import Array
from .checks import Reduction, divisor_of, float_array, reduced, within_lengths


def nll(
    outputs: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    time_axis: int = 0,
    lengths: Array | None = None,
) -> tuple[Any, Array]:
    """The losses that a model has put out, such as -log p of each target by an `AdaptiveSoftmax`: what counts of them.

    outputs: float32 or float64, of the shape of the targets, or with one more axis of size 1. The options, and what is
    returned, as for `cross_entropy`; the gradient is 1 over what the mean is over, or 0. Raises TypeError and
    ValueError as that does."""
    outputs, classes = float_array("outputs", outputs), np.asarray(targets)
    if outputs.shape == (*classes.shape, 1):
        classes = classes[..., None]
    if classes.shape != outputs.shape:
        raise ValueError(f"targets: expected shape {outputs.shape} like outputs, got {classes.shape}")
    counts = classes != operator.index(ignore_index)
    within = within_lengths(lengths, outputs.shape, time_axis)
    counts = counts if within is None else counts & within
    counted = int(np.count_nonzero(counts))
    divisor = divisor_of(reduction, outputs.shape, counted, time_axis)
    losses = np.where(counts, outputs, outputs.dtype.type(0))
    gradient = counts.astype(outputs.dtype) / outputs.dtype.type(divisor)
    if reduction == "none":
        return losses, gradient
    return reduced(losses, reduction, counted, divisor), gradient
