"""Losses of real numbers, elementwise.

Letters: T time steps, N batch, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._validate import Array, check_positive
from .checks import Reduction, elements_of, float_array, quiet, real_targets, targets_like


@quiet
def mse(
    prediction: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
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
    sample_weight : numbers of at least 0, of the shape of the first axes; see the module's docstring.

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
    elements = elements_of(prediction.shape, reduction, time_axis, lengths, sample_weight)
    difference = prediction - targets_like("prediction", prediction, targets, elements.keep)
    return elements.finish(np.square(difference), np.asarray(difference * (2.0 / elements.divisor)))


@quiet
def mae(
    prediction: Array,
    targets: Array,
    *,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
) -> tuple[Any, Array]:
    """Absolute error, elementwise: loss = |y - t|, dloss/dy = sign(y - t), 0 at y = t as in PyTorch's l1_loss.

    Arguments, returns and errors as of `mse`.
    """
    prediction = float_array("prediction", prediction)
    elements = elements_of(prediction.shape, reduction, time_axis, lengths, sample_weight)
    difference = prediction - targets_like("prediction", prediction, targets, elements.keep)
    return elements.finish(np.abs(difference), np.asarray(np.sign(difference) * (1.0 / elements.divisor)))


@quiet
def huber(
    prediction: Array,
    targets: Array,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
) -> tuple[Any, Array]:
    """Huber's loss (1964), elementwise, as PyTorch's huber_loss: with d = y - t,

    loss = d^2 / 2 and dloss/dy = d where |d| <= delta; delta (|d| - delta / 2) and delta sign(d) elsewhere.

    delta: a number above 0. Other arguments, returns and errors as of `mse`.
    """
    delta = check_positive("delta", delta)
    prediction = float_array("prediction", prediction)
    elements = elements_of(prediction.shape, reduction, time_axis, lengths, sample_weight)
    difference = prediction - targets_like("prediction", prediction, targets, elements.keep)
    clipped = np.clip(difference, -delta, delta)
    losses = clipped * (difference - clipped / 2)
    return elements.finish(losses, np.asarray(clipped * (1.0 / elements.divisor)))


@quiet
def quantile(
    prediction: Array,
    targets: Array,
    *,
    quantiles: float | Sequence[float] = 0.5,
    reduction: Reduction = "mean",
    time_axis: int = 0,
    lengths: Array | None = None,
    sample_weight: Any = None,
) -> tuple[Any, Array]:
    """Pinball loss (Koenker and Bassett 1978), whose least expectation is at the q-quantile: with d = t - y,

    loss = max(q d, (q - 1) d), and dloss/dy = -q where t > y, 1 - q where t < y, 0 at y = t.

    Parameters
    ----------
    prediction : float32 or float64; for one quantile of any shape, for Q of them of shape (..., Q).
    targets : real numbers, of shape (...) without the axis of quantiles.
    quantiles : a number in (0, 1), or a list of Q of them, one for each number of the prediction's last axis.

    Other arguments, returns and errors as of `mse`; "mean" is over the quantiles too.
    """
    prediction, targets = float_array("prediction", prediction), real_targets("prediction", targets)
    levels = np.asarray(quantiles, np.float64)
    if levels.ndim > 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles: expected a number in (0, 1) or a list of them, got {quantiles!r}")
    if levels.ndim:
        if prediction.shape != (*targets.shape, len(levels)):
            raise ValueError(
                f"targets: expected shape {prediction.shape[:-1]} for predictions {prediction.shape} of "
                f"{len(levels)} quantiles, got {targets.shape}"
            )
        targets = np.broadcast_to(targets[..., None], prediction.shape)
    elements = elements_of(prediction.shape, reduction, time_axis, lengths, sample_weight)
    difference = targets_like("prediction", prediction, targets, elements.keep) - prediction
    q = levels.astype(prediction.dtype)
    losses = np.asarray(np.maximum(q * difference, (q - 1) * difference))
    slope = np.where(difference > 0, -q, np.where(difference < 0, 1 - q, difference * 0))  # nan stays nan
    return elements.finish(losses, np.asarray(slope * (1.0 / elements.divisor), prediction.dtype))
