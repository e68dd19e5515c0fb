"""Metrics by name: what a trainer reports beside its loss.

A metric is a function of outputs and targets, metric(outputs, targets, sample_weight=None) -> number. It is made of
sums (`sums`, `finish`), so that what an epoch reports is the metric of all its samples, not a mean over batches.

Letters: M classes or outputs; `...` any leading axes, of which sample_weight has the shape of the first ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .. import losses
from .._validate import check_choice, check_size
from .tally import ratio

Array = NDArray[Any]
Average = Literal["auto", "binary", "macro", "micro", "weighted"]


@dataclass(frozen=True)
class Metric:
    """Base class. Outputs are logits, for metrics of classes: (..., M) with integer targets (...), the class of the
    largest; or of one shape with targets, yes where an output is above 0 and a target above 0.5."""

    name: ClassVar[str]
    larger_is_better: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """What a history calls it."""
        return self.name

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        raise NotImplementedError

    def finish(self, sums: Any) -> float:
        raise NotImplementedError

    def __call__(self, outputs: Array, targets: Array, sample_weight: Any = None) -> float:
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        with np.errstate(all="ignore"):
            return self.finish(self.sums(np.asarray(outputs), np.asarray(targets), weights))

    def config(self) -> Any:
        """JSON-able: its name, or its name with options."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"name": self.name, "options": options} if options else self.name


def _mean(values: Array, weights: Array | None) -> tuple[float, float]:
    """Sum of values (...) and of their weights."""
    if weights is None:
        sums = np.count_nonzero(values) if values.dtype == bool else values.sum(dtype=np.float64)
        return float(sums), float(values.size)
    full = np.broadcast_to(weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim)), values.shape)
    return float(np.sum(values * full, dtype=np.float64)), float(full.sum())


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right answers."""

    name = "accuracy"

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        predicted, wanted, _ = _classes(outputs, targets)
        return _mean(predicted == wanted, weights)

    finish = staticmethod(ratio)


@dataclass(frozen=True)
class TopKAccuracy(Metric):
    """Share of targets whose class has one of the k largest outputs."""

    name = "top_k_accuracy"
    k: int = 5

    def __post_init__(self) -> None:
        check_size("k", self.k)

    @property
    def label(self) -> str:
        return self.name if self.k == 5 else f"top_{self.k}_accuracy"

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        if outputs.shape[:-1] != targets.shape:
            raise ValueError(f"targets: expected classes of shape {outputs.shape[:-1]}, got shape {targets.shape}")
        own = np.take_along_axis(outputs, targets[..., None], axis=-1)
        return _mean((outputs > own).sum(axis=-1) < self.k, weights)

    finish = staticmethod(ratio)


@dataclass(frozen=True)
class _OfCounts(Metric):
    """average: "binary", of class 1; "macro", the mean over the classes that occur; "micro", of all of them together;
    "weighted", the mean weighted by how often each is a target; "auto": binary for two classes or one output, else
    macro. As in scikit-learn; what would be 0 / 0 is 0."""

    average: Average = "auto"

    def __post_init__(self) -> None:
        check_choice("average", self.average, ("auto", "binary", "macro", "micro", "weighted"))

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        """(M, 3): right ones, wrongly said, missed."""
        predicted, wanted, M = _classes(outputs, targets)
        w = np.ones(wanted.shape) if weights is None else weights
        w = np.broadcast_to(w.reshape(w.shape + (1,) * (wanted.ndim - w.ndim)), wanted.shape).reshape(-1)
        predicted, wanted = predicted.reshape(-1).astype(np.intp), wanted.reshape(-1).astype(np.intp)
        right = predicted == wanted
        return np.stack(
            [
                np.bincount(wanted, w * right, M),
                np.bincount(predicted, w * ~right, M),
                np.bincount(wanted, w * ~right, M),
            ],
            axis=-1,
        )

    def finish(self, sums: Any) -> float:
        average = ("binary" if len(sums) == 2 else "macro") if self.average == "auto" else self.average
        if average == "binary":
            return float(self._of(sums[1:2])[0])
        if average == "micro":
            return float(self._of(sums.sum(axis=0, keepdims=True))[0])
        each, support = self._of(sums), sums[:, 0] + sums[:, 2]
        chosen = support if average == "weighted" else (sums.sum(axis=1) > 0).astype(np.float64)
        return float((each * chosen).sum() / chosen.sum()) if chosen.sum() else math.nan

    def _of(self, counts: Array) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class F1(_OfCounts):
    """Harmonic mean of precision and recall."""

    name = "f1"

    def _of(self, counts: Array) -> Array:
        return _divided(2 * counts[:, 0], 2 * counts[:, 0] + counts[:, 1] + counts[:, 2])


@dataclass(frozen=True)
class Precision(_OfCounts):
    """Share of what is said to be of a class that is."""

    name = "precision"

    def _of(self, counts: Array) -> Array:
        return _divided(counts[:, 0], counts[:, 0] + counts[:, 1])


@dataclass(frozen=True)
class Recall(_OfCounts):
    """Share of what is of a class that is found."""

    name = "recall"

    def _of(self, counts: Array) -> Array:
        return _divided(counts[:, 0], counts[:, 0] + counts[:, 2])


@dataclass(frozen=True)
class _OfErrors(Metric):
    larger_is_better = False

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        return _mean(self._of(_numbers(outputs, targets)[0] - targets.reshape(_shape(outputs, targets))), weights)

    finish = staticmethod(ratio)

    def _of(self, error: Array) -> Array:
        return np.square(error)


@dataclass(frozen=True)
class MAE(_OfErrors):
    """Mean absolute error."""

    name = "mae"

    def _of(self, error: Array) -> Array:
        return np.abs(error)


@dataclass(frozen=True)
class MSE(_OfErrors):
    """Mean squared error."""

    name = "mse"


@dataclass(frozen=True)
class RMSE(_OfErrors):
    """Root of the mean squared error."""

    name = "rmse"

    def finish(self, sums: Any) -> float:
        return math.sqrt(ratio(sums))


@dataclass(frozen=True)
class R2(Metric):
    """Coefficient of determination, 1 - sum (t - y)^2 / sum (t - mean t)^2, the mean over the outputs (last axis)."""

    name = "r2"

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        """(4, M): weights, targets, their squares, squared errors."""
        y, t = _numbers(outputs, targets)
        single = (weights is not None and y.ndim == weights.ndim) or y.ndim == 1
        y, t = (a.reshape(-1, 1) if single else a.reshape(-1, a.shape[-1]) for a in (y, t))
        if weights is None:
            w = np.ones((len(t), 1))
        else:
            steps = outputs.shape[: max(outputs.ndim - 1, 1)] if not single else outputs.shape
            full = np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(steps) - weights.ndim)), steps)
            w = full.reshape(-1, 1)
        return np.stack([(w * one).sum(axis=0) for one in (np.ones_like(t), t, np.square(t), np.square(t - y))])

    def finish(self, sums: Any) -> float:
        weight, first, second, errors = sums
        spread = second - np.square(first) / weight
        with np.errstate(all="ignore"):
            each = np.where(spread > 0, 1 - errors / spread, np.where(errors > 0, 0.0, 1.0))
        return float(each.mean())


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the mean cross entropy in nats."""

    name = "perplexity"
    larger_is_better = False

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Any:
        each, _ = losses.cross_entropy(outputs, targets, reduction="none")
        return _mean(each, weights)

    def finish(self, sums: Any) -> float:
        exponent = ratio(sums)
        return math.exp(exponent) if exponent < 700 else exponent * math.inf


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (Accuracy(), TopKAccuracy(), F1(), Precision(), Recall(), MAE(), MSE(), RMSE(), R2(), Perplexity())
}
accuracy, top_k_accuracy, f1, precision, recall, mae, mse, rmse, r2, perplexity = METRICS.values()


def by_name(name: str) -> Metric | None:
    """The metric of that name; of "top_3_accuracy" that of k = 3."""
    top = re.fullmatch(r"top_(\d+)_accuracy", name)
    return TopKAccuracy(int(top[1])) if top and int(top[1]) else METRICS.get(name)


def from_config(config: Any) -> Metric:
    if isinstance(config, str):
        return METRICS[config]
    return type(METRICS[config["name"]])(**config["options"])


def larger_is_better(name: str) -> bool:
    """Whether more is better of the number that a history has under this name."""
    metric = by_name(name.removeprefix("val_"))
    return metric.larger_is_better if metric else name.endswith("accuracy")


def _classes(outputs: Array, targets: Array) -> tuple[Array, Array, int]:
    """What was said and what is right, as class numbers or as truths, and how many classes there are."""
    if outputs.shape[:-1] == targets.shape:
        return outputs.argmax(axis=-1), targets, outputs.shape[-1]
    if outputs.shape == targets.shape:
        return outputs > 0, targets > 0.5, 2
    raise ValueError(f"targets: expected shape {outputs.shape[:-1]} or {outputs.shape}, got {targets.shape}")


def _shape(outputs: Array, targets: Array) -> tuple[int, ...]:
    return outputs.shape if targets.size == outputs.size else targets.shape


def _numbers(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Outputs and targets of one shape, in float64."""
    if outputs.shape != targets.shape and outputs.shape != (*targets.shape, 1):
        raise ValueError(f"targets: expected shape {outputs.shape} like outputs, got {targets.shape}")
    return outputs.astype(np.float64), targets.reshape(outputs.shape).astype(np.float64)


def _divided(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
