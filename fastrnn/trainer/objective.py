"""What a trainer minimises and reports: a loss and metrics of one batch, as sums that add up to those of an epoch.

Letters: N samples, T time steps, M classes; `...` any axes.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import losses
from ..layers.layout import RealSteps
from ..losses.registry import LOSSES
from . import metrics as _metrics
from .metrics import METRICS as _METRICS
from .metrics import Metric as KnownMetric
from .metrics import accuracy as accuracy
from .tally import Finish, Tally, Values, mean, ratio
from .weights import EQUAL, Weighting

Array = NDArray[Any]
Loss = Callable[[Array, Array], "tuple[float, Array]"]
Metric = Callable[[Array, Array], float]
LossName = Literal[
    "cross_entropy", "bce", "binary_cross_entropy_with_logits", "mse", "mae", "huber", "quantile", "ctc", "nll"
]
MetricName = Literal[
    "accuracy", "top_k_accuracy", "f1", "precision", "recall", "mae", "mse", "rmse", "r2", "perplexity"
]


class Objective:
    """`loss`: a name of `fastrnn.losses`, one of its functions, a functools.partial of one with options, such as
    partial(cross_entropy, reduction="sequence"), or any function (outputs, targets) -> (loss, doutputs).
    `metrics`: names and objects of `fastrnn.metrics`, and functions (outputs, targets) -> number, which go by their
    __name__; None for accuracy where the loss is one of classes or of yes and no.
    """

    def __init__(self, loss: LossName | Loss, metrics: Sequence[MetricName | Metric] | None = None) -> None:
        self.loss = losses.get(loss)
        self._function, self._options = _parts(self.loss)
        # Whether the loss is one of `fastrnn.losses`, so that it takes lengths and weights.
        self.is_known = _is_known(self._function)
        # Whether a known loss is a mean over what counts, so that pieces of it add up by their weights.
        self.is_mean = self._options.get("reduction", "mean") == "mean"
        # Whether weights are numbers of targets also where there are no lengths.
        self.counts_targets = self._function is losses.cross_entropy
        if metrics is None:
            classifies = self._function in (losses.cross_entropy, losses.binary_cross_entropy_with_logits)
            metrics = ("accuracy",) if classifies else ()
        if not isinstance(metrics, (list, tuple)):
            raise TypeError(f"metrics: expected None or a list of names and functions, got {metrics!r}")
        self.metrics = dict(map(_metric, metrics))
        self._loss_is_nats = self.counts_targets and not self._options  # so that the perplexity follows from it

    def __call__(
        self,
        outputs: Array,
        targets: Array,
        samples: int,
        lengths: Array | None = None,
        weighting: Weighting = EQUAL,
        mask: Array | None = None,
    ) -> tuple[Values, Array]:
        """Tallies of the loss and of each metric by name, and the gradient of the loss.

        Values are means, so the weight is what they are means over: the samples, or the targets that count where
        cross_entropy ignores some; or the sum of their weights. Such targets are kept from the metrics too. With
        lengths (N,) outputs (T, N, ...) count up to them only and the weight is the number of steps that count; a loss
        or a metric of the user's own is then given those steps by themselves, outputs (K, ...) and targets (K, ...).
        mask (T, N): the steps of outputs that are real, of which the same holds.
        """
        if mask is not None and not mask.all():
            return self._of_real_steps(RealSteps(mask, lengths), outputs, targets, samples, weighting)
        if self._one_output and outputs.shape == (*targets.shape, 1):
            targets = targets[..., None]
        keep = None if lengths is None or not self.per_step else np.arange(len(targets))[:, None] < lengths
        loss, doutputs = self._loss_and_gradient(outputs, targets, lengths, keep, weighting)
        if not isinstance(loss, float) and np.ndim(loss):
            raise ValueError(f"loss: expected one number, got an array of shape {np.shape(loss)}")
        if self.counts_targets:
            keep = self._classes_that_count(targets, keep)
        counted = samples if keep is None else int(np.count_nonzero(keep))
        weight: float = counted if self.is_mean else samples
        if weighting.loss is not None and self.is_mean:
            weight, rows = _weight(weighting.loss, targets.shape, keep)
            doutputs *= doutputs.dtype.type(weight / (rows * weighting.mean)) if rows else 0
        count = samples if not self.is_mean else targets.size if keep is None else counted
        values = {"loss": mean(float(loss), weight, count)}
        if counted:
            nats = values["loss"] if self._loss_is_nats and weighting.loss is weighting.metrics else None
            values |= self._measure(outputs, targets, keep, weighting.metrics, counted, nats)
        return values, doutputs

    def _of_real_steps(
        self, real: RealSteps, outputs: Array, targets: Array, samples: int, weighting: Weighting
    ) -> tuple[Values, Array]:
        """Of the real steps, moved to the front of their rows: a loss that takes lengths need not know of masks."""
        if self.per_step:
            targets = real.first(targets)
            weighting = weighting.map(real.first)
        values, doutputs = self(real.first(outputs), targets, samples, real.counts, weighting)
        return values, real.back(doutputs)

    def _loss_and_gradient(
        self, outputs: Array, targets: Array, lengths: Array | None, keep: Array | None, weighting: Weighting
    ) -> tuple[Any, Array]:
        if self.is_known:
            options: dict[str, Any] = {} if lengths is None else {"lengths": lengths}
            if weighting.loss is not None:
                options["sample_weight"] = weighting.loss
            known: Any = self.loss
            return known(outputs, targets, **options)
        if weighting.loss is not None:
            raise ValueError("sample_weight, class_weight: expected a loss of fastrnn with them, got a function")
        if keep is None:
            return self.loss(outputs, targets)
        loss, doutputs = math.nan, np.zeros_like(outputs)
        if keep.any():
            loss, doutputs[keep] = self.loss(outputs[keep], targets[keep])
        return loss, doutputs

    def _measure(
        self,
        outputs: Array,
        targets: Array,
        keep: Array | None,
        weights: Array | None,
        counted: int,
        nats: Tally | None,
    ) -> Values:
        values = {}
        if keep is not None and counted < keep.size and self.metrics:
            if weights is not None:
                weights = np.broadcast_to(
                    weights.reshape(weights.shape + (1,) * (keep.ndim - weights.ndim)), keep.shape
                )
                weights = weights[keep]
            outputs, targets = outputs[keep], targets[keep]
        for name, metric in self.metrics.items():
            if nats is not None and metric is _metrics.perplexity:
                values[name] = Tally(nats.sums, metric.finish)
            elif isinstance(metric, KnownMetric):
                values[name] = Tally(metric.sums(outputs, targets, weights), metric.finish)
            else:
                some = slice(None) if weights is None or weights.ndim > targets.ndim else weights > 0
                values[name] = mean(float(metric(outputs[some], targets[some])), counted)
        return values

    def finish(self, name: str) -> Finish:
        """The function that makes of a tally's sums the loss or the metric of this name."""
        metric = self.metrics.get(name)
        return metric.finish if isinstance(metric, KnownMetric) else ratio

    @property
    def in_pieces(self) -> bool:
        """Whether the loss can be had in pieces of time."""
        return self.is_known and self.per_step

    @property
    def per_step(self) -> bool:
        """Whether a model with an output at every step has a target at every step too, not labels without times."""
        return self._function is not losses.ctc

    @property
    def _one_output(self) -> bool:
        """Whether targets may come without the axis of features that a single output has."""
        return self.is_known and self._function not in (losses.cross_entropy, losses.ctc)

    @property
    def ignored(self) -> int | None:
        """The target that counts nothing."""
        return self._options.get("ignore_index", -100) if self.counts_targets else None

    @property
    def is_sum(self) -> bool:
        return self._options.get("reduction") == "sum"

    def weight(self, targets: Array, lengths: Array | None, mask: Array | None = None) -> int:
        """How many targets, or steps, count of (T, N, ...): what a mean is over."""
        keep = None if lengths is None else np.arange(len(targets))[:, None] < lengths
        if mask is not None:
            keep = mask if keep is None else keep & mask
        if self.counts_targets:
            keep = self._classes_that_count(targets, keep)
        return targets.size if keep is None else int(np.count_nonzero(keep))

    def _classes_that_count(self, targets: Array, within: Array | None) -> Array:
        """Mask of cross_entropy's targets that are not ignored and lie within (T, N) the sequences."""
        counts = targets != self.ignored
        return counts if within is None else counts & within.reshape(within.shape + (1,) * (counts.ndim - 2))

    def config(self) -> dict[str, Any]:
        """JSON-able. Functions that fastrnn does not have by name are noted as {"function": name}."""
        name = getattr(self._function, "__name__", type(self._function).__name__)
        return {
            "loss": {"name": name, "options": self._options} if self.is_known else {"function": name},
            "metrics": [
                metric.config() if isinstance(metric, KnownMetric) else {"function": name}
                for name, metric in self.metrics.items()
            ],
        }

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        loss: LossName | Loss | None = None,
        metrics: Sequence[MetricName | Metric] | None = None,
    ) -> Objective:
        """From `config()`; `loss` and `metrics` replace what it says, and have to where that was a function of the
        user's own: ValueError otherwise."""
        if loss is None:
            saved = config["loss"]
            if "function" in saved:
                raise ValueError(f"loss: expected the function {saved['function']} that it was saved with, got None")
            function = losses.get(saved["name"])
            loss = functools.partial(function, **saved["options"]) if saved["options"] else function
        if metrics is None:
            saved_metrics: Any = config["metrics"]
            own = [one["function"] for one in saved_metrics if not isinstance(one, str) and "function" in one]
            if own:
                raise ValueError(f"metrics: expected the functions {', '.join(own)} that it was saved with, got None")
            metrics = list(map(_metrics.from_config, saved_metrics))
        return cls(loss, metrics)


def _weight(weights: Array, shape: tuple[int, ...], keep: Array | None) -> tuple[float, int]:
    """The sum of the weights of the targets that count, each the mean over its features, and how many these are."""
    if keep is None:
        axes = min(weights.ndim, 1 if len(shape) < 2 else 2)
        rows = weights.reshape(*weights.shape[:axes], -1).mean(axis=-1)
        return float(rows.sum()), rows.size
    full = weights.reshape(weights.shape + (1,) * (keep.ndim - weights.ndim))
    rows = full.reshape(*full.shape[: keep.ndim], -1).mean(axis=-1)
    rows = np.broadcast_to(rows, keep.shape)[keep]
    return float(rows.sum()), rows.size


def _parts(loss: Loss) -> tuple[Any, dict[str, Any]]:
    """The function of fastrnn.losses behind a loss and its options, JSON-able; any other callable as it is."""
    if isinstance(loss, functools.partial) and not loss.args and _is_known(loss.func):
        options = {name: _plain(value) for name, value in loss.keywords.items()}
        try:
            json.dumps(options)
        except TypeError:
            raise TypeError(f"loss: expected options that a checkpoint can hold, got {loss.keywords}") from None
        return loss.func, options
    return loss, {}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _is_known(function: Any) -> bool:
    return any(function is known for known in LOSSES.values())


def _metric(metric: MetricName | Metric) -> tuple[str, Metric]:
    if isinstance(metric, str):
        known = _metrics.by_name(metric)
        if known is None:
            raise ValueError(f"metrics: expected a function or one of {', '.join(_METRICS)}, got {metric!r}")
        return known.label, known
    if isinstance(metric, KnownMetric):
        return metric.label, metric
    if not callable(metric):
        raise TypeError(f"metrics: expected names and functions, got {metric!r}")
    return getattr(metric, "__name__", type(metric).__name__), metric
