"""What samples, steps and classes count for in a loss.

Letters: N samples, T time steps, T_i those of sample i.

Design: within a batch the loss is the weighted mean, sum w l / sum w, as in scikit-learn and PyTorch. Its gradient is
multiplied by the batch's mean weight over that of all data: so a sample's weight counts as much in a batch of one as in
one of all, and the scale of the weights does not matter. Class weights are weights of their targets, in the loss alone;
metrics take sample weights only.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..losses.checks import weights_array

if TYPE_CHECKING:
    from .data import Data

Array = NDArray[Any]
ClassWeight = Mapping[Any, float]


@dataclass
class Weighting:
    """Weights of the targets of a batch, of the shape of their first axes; None: 1 each."""

    loss: Array | None = None
    metrics: Array | None = None
    mean: float = 1.0  # of the loss's weights over all data

    def map(self, function: Any) -> Weighting:
        if self.loss is None and self.metrics is None:
            return self
        parts = [None if part is None else function(part) for part in (self.loss, self.metrics)]
        return Weighting(parts[0], parts[1], self.mean)


EQUAL = Weighting()


class DataWeights:
    """Weights of all samples of `data`.

    sample_weight: (N,), or with `steps` (N, T) or for a list of sequences a list of (T_i,). class_weight: class to
    weight, an array (M,), or "balanced", by which every class counts the same in all (scikit-learn's rule). ignored: a
    target that counts nothing, or None. Raises TypeError and ValueError for what does not fit.
    """

    def __init__(self, data: Data, sample_weight: Any, class_weight: Any, *, steps: bool, ignored: int | None) -> None:
        self.sample = None if sample_weight is None else _sample_weights(data, sample_weight, steps)
        self.loss = self.sample
        self.counts = _counts(data, steps, ignored)
        self.lengths = data.step_counts() if isinstance(data.y, list) else None
        if class_weight is not None:
            table = as_class_weight(class_weight, data.y, self.counts)
            self.loss = _times(by_class(data.y, table), self.sample)
        self.mean = self._mean()

    def _mean(self) -> float:
        if self.loss is None:
            return 1.0
        if isinstance(self.loss, np.ndarray) and self.lengths is not None and np.any(self.lengths):
            return float(np.average(self.loss, weights=self.lengths)) or 1.0
        return _mean(self.loss, self.counts)

    def rows(self, part: slice) -> DataWeights:
        """Those of some samples."""
        some = copy.copy(self)
        for name in ("sample", "loss", "counts", "lengths"):
            value = getattr(self, name)
            setattr(some, name, None if value is None else value[part])
        some.mean = some._mean()
        return some


def as_class_weight(class_weight: Any, y: Any = None, counts: Any = None) -> ClassWeight:
    """Class -> weight. "balanced" counts the targets y, those of them that count."""
    if isinstance(class_weight, str):
        if class_weight != "balanced" or y is None:
            wanted = "a dict" if y is None else "a dict, an array or 'balanced'"
            raise ValueError(f"class_weight: expected {wanted}, got {class_weight!r}")
        return _balanced(y, counts)
    if isinstance(class_weight, Mapping):
        weights_array("class_weight", list(class_weight.values()))
        wrong = [key for key in class_weight if not isinstance(key, (int, float, np.integer, np.floating, np.bool_))]
        if wrong:
            raise TypeError(f"class_weight: expected classes as y has them, numbers, got {wrong[0]!r}")
        return class_weight
    return dict(enumerate(weights_array("class_weight", class_weight).reshape(-1).tolist()))


def by_class(y: Any, table: ClassWeight) -> Any:
    """The weight of each target, 1 of a class that is not in the table; for a list of arrays a list."""
    if isinstance(y, list):
        return [by_class(part, table) for part in y]
    y = np.asarray(y)
    if y.dtype.kind not in "iub" and not (y == np.floor(y)).all():
        raise ValueError("class_weight: expected targets that are classes, got numbers between them")
    weights = np.ones(y.shape)
    classes, places = np.unique(y, return_inverse=True)
    known = np.array([float(table.get(value, 1.0)) for value in classes.tolist()])
    weights[...] = known[places.reshape(y.shape)] if classes.size else 1.0
    return weights


def _balanced(y: Any, counts: Any) -> ClassWeight:
    flat = [part.reshape(-1) for part in _kept(y, counts)]
    classes, numbers = np.unique(np.concatenate(flat), return_counts=True)
    return dict(zip(classes.tolist(), (numbers.sum() / (len(classes) * numbers)).tolist()))


def _kept(values: Any, counts: Any) -> list[Array]:
    """The values of the targets that count."""
    if isinstance(values, list):
        return [part if one is None else part[one] for part, one in zip(values, counts or [None] * len(values))]
    return [values if counts is None else values[counts]]


def _counts(data: Data, steps: bool, ignored: int | None) -> Any:
    """Which targets count: a mask (N,) or (N, T), a list of (T_i,), or None for all."""
    real = data.mask if steps else None
    if isinstance(data.y, list):
        if ignored is None and real is None:
            return None
        return [
            (part != ignored if ignored is not None else np.ones(part.shape, bool))
            & (True if real is None else _like(real[i][: len(part)], part))
            for i, part in enumerate(data.y)
        ]
    mask = None
    if steps and data.lengths is not None:
        mask = np.arange(data.T) < np.asarray(data.lengths)[:, None]
    if real is not None:
        mask = data.real_steps() if mask is None else mask & data.real_steps()
    if ignored is not None and data.y is not None:
        known = np.asarray(data.y) != ignored
        mask = known if mask is None else known & _like(mask, known)
    return None if mask is None or mask.all() else mask


def _sample_weights(data: Data, given: Any, steps: bool) -> Any:
    n = len(data)
    if isinstance(given, (list, tuple)) and any(np.ndim(part) for part in given):
        rows = [weights_array("sample_weight", part) for part in given]
        if len({row.shape for row in rows}) > 1 or data.ragged:
            expected = [(int(length),) for length in data.lengths] if data.lengths is not None else [(data.T,)] * n
            if not steps or [row.shape for row in rows] != expected:
                raise ValueError("sample_weight: expected a weight for each sequence, or for each of its steps")
            return rows
        given = np.stack(rows)
    weights = weights_array("sample_weight", given)
    shapes = [(n,)] + ([(n, data.T)] if steps and data.T is not None and not data.ragged else [])
    if weights.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"sample_weight: expected shape {wanted}, got {weights.shape}")
    return weights


def _times(targets: Any, sample: Any) -> Any:
    """Weights of the targets times those of their samples or steps."""
    if sample is None:
        return targets
    if isinstance(targets, list):
        return [part * own for part, own in zip(targets, sample)]
    if isinstance(sample, list):
        raise ValueError("sample_weight: expected an array like y, got a list of sequences")
    if sample.ndim > targets.ndim:
        return sample * targets.reshape(targets.shape + (1,) * (sample.ndim - targets.ndim))
    return targets * sample.reshape(sample.shape + (1,) * (targets.ndim - sample.ndim))


def _mean(weights: Any, counts: Any) -> float:
    if isinstance(weights, list):
        kept = np.concatenate([part.reshape(-1) for part in _kept(weights, counts)])
    elif counts is None:
        kept = weights
    else:
        axes = min(weights.ndim, counts.ndim)
        full = weights.reshape(weights.shape + (1,) * (counts.ndim - axes))
        kept = np.broadcast_to(full, (*counts.shape, *weights.shape[counts.ndim :]))[counts]
    return float(kept.mean()) if kept.size and kept.any() else 1.0


def _like(flags: Array, targets: Array) -> Array:
    """Flags of the first axes of targets, with axes for the others."""
    return flags.reshape(flags.shape + (1,) * (targets.ndim - flags.ndim))
