"""Losses of real numbers, elementwise.

Letters: T time steps, N batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array
from .checks import Reduction, divisor_of, float_array, reduced, targets_like, within_lengths


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
    prediction = float_array("prediction", prediction)
    keep = within_lengths(lengths, prediction.shape, time_axis)
    targets = targets_like("prediction", prediction, targets, keep)
    counted = prediction.size if keep is None else int(np.count_nonzero(keep))
    divisor = divisor_of(reduction, prediction.shape, counted, time_axis)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):  # inf and nan in the answer say it already
        difference = prediction - targets
        losses = np.square(difference)
        dprediction = np.asarray(difference * (2.0 / divisor))
    if keep is not None:
        losses[~keep] = 0.0
        dprediction[~keep] = 0.0
    if reduction == "none":
        return losses, dprediction
    return reduced(losses, reduction, counted, divisor), dprediction
