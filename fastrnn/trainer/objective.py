"""What a trainer minimises and reports: a loss and metrics of one batch, with the weight each has in an epoch's mean.

Letters: N samples, T time steps, M classes; `...` any axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import losses

Array = NDArray[Any]
Loss = Callable[[Array, Array], "tuple[float, Array]"]
Metric = Callable[[Array, Array], float]
LossName = Literal["cross_entropy", "bce", "binary_cross_entropy_with_logits", "mse", "mae", "huber", "quantile", "ctc"]
MetricName = Literal["accuracy"]


def accuracy(outputs: Array, targets: Array) -> float:
    """Share of right answers: of classes, outputs (..., M) and integer targets (...), by the largest output; of yes or
    no, both of one shape, by outputs > 0 (the logit) against targets > 0.5."""
    if outputs.shape[:-1] == targets.shape:
        right = outputs.argmax(axis=-1) == targets
    elif outputs.shape == targets.shape:
        right = (outputs > 0) == (targets > 0.5)
    else:
        raise ValueError(f"targets: expected shape {outputs.shape[:-1]} or {outputs.shape}, got {targets.shape}")
    return int(np.count_nonzero(right)) / right.size


_METRICS: dict[str, Metric] = {"accuracy": accuracy}


class Objective:
    """`loss`: a name of `fastrnn.losses`, one of its functions, a functools.partial of one with options, such as
    partial(cross_entropy, reduction="sequence"), or any function (outputs, targets) -> (loss, doutputs).
    `metrics`: names ("accuracy") and functions (outputs, targets) -> number, which go by their __name__; None for
    accuracy where the loss is one of classes or of yes and no.
    """

    def __init__(self, loss: LossName | Loss, metrics: Sequence[MetricName | Metric] | None = None) -> None:
        self.loss = losses.get(loss)
        self._function, self._options = _parts(self.loss)
        if metrics is None:
            classifies = self._function in (losses.cross_entropy, losses.binary_cross_entropy_with_logits)
            metrics = ("accuracy",) if classifies else ()
        if not isinstance(metrics, (list, tuple)):
            raise TypeError(f"metrics: expected None or a list of names and functions, got {metrics!r}")
        self.metrics = dict(map(_metric, metrics))

    def __call__(
        self, outputs: Array, targets: Array, samples: int, lengths: Array | None = None
    ) -> tuple[dict[str, tuple[float, int]], Array]:
        """Name -> (value, weight) of the loss and of each metric, and the gradient of the loss.

        Values are means, so the weight is what they are means over: the samples, or the targets that count where
        cross_entropy ignores some. Such targets are kept from the metrics too. With lengths (N,) outputs (T, N, ...)
        count up to them only and the weight is the number of steps that count; a loss or a metric of the user's own is
        then given those steps by themselves, outputs (K, ...) and targets (K, ...).
        """
        if self._one_output and outputs.shape == (*targets.shape, 1):
            targets = targets[..., None]
        keep = None if lengths is None else np.arange(len(targets))[:, None] < lengths
        if keep is None:
            loss, doutputs = self.loss(outputs, targets)
        elif self.is_known:
            loss, doutputs = self.loss(outputs, targets, lengths=lengths)
        else:
            loss, doutputs = math.nan, np.zeros_like(outputs)
            if keep.any():
                loss, doutputs[keep] = self.loss(outputs[keep], targets[keep])
        if not isinstance(loss, float) and np.ndim(loss):
            raise ValueError(f"loss: expected one number, got an array of shape {np.shape(loss)}")
        if self.counts_targets:
            keep = self._classes_that_count(targets, keep)
        weight, counted = samples, samples
        if keep is not None:
            counted = int(np.count_nonzero(keep))
            if self._options.get("reduction", "mean") == "mean":
                weight = counted
            if self.metrics and counted < keep.size:
                outputs, targets = outputs[keep], targets[keep]
        values = {"loss": (float(loss), weight)}
        if counted:
            values |= {name: (float(metric(outputs, targets)), counted) for name, metric in self.metrics.items()}
        return values, doutputs

    @property
    def is_known(self) -> bool:
        """Whether the loss is one of `fastrnn.losses`, so that it takes lengths and can be had in pieces of time."""
        return _is_known(self._function)

    @property
    def _one_output(self) -> bool:
        """Whether targets may come without the axis of features that a single output has."""
        return self.is_known and self._function is not losses.cross_entropy

    @property
    def counts_targets(self) -> bool:
        """Whether weights are numbers of targets also where there are no lengths."""
        return self._function is losses.cross_entropy

    @property
    def is_mean(self) -> bool:
        """Whether a known loss is a mean over what counts, so that pieces of it add up by their weights."""
        return self._options.get("reduction", "mean") == "mean"

    def weight(self, targets: Array, lengths: Array | None) -> int:
        """How many targets, or steps, count of (T, N, ...): what a mean is over."""
        keep = None if lengths is None else np.arange(len(targets))[:, None] < lengths
        if self.counts_targets:
            keep = self._classes_that_count(targets, keep)
        return targets.size if keep is None else int(np.count_nonzero(keep))

    def _classes_that_count(self, targets: Array, within: Array | None) -> Array:
        """Mask of cross_entropy's targets that are not ignored and lie within (T, N) the sequences."""
        counts = targets != self._options.get("ignore_index", -100)
        return counts if within is None else counts & within.reshape(within.shape + (1,) * (counts.ndim - 2))

    def config(self) -> dict[str, Any]:
        """JSON-able. Functions that fastrnn does not have by name are noted as {"function": name}."""
        name = getattr(self._function, "__name__", type(self._function).__name__)
        return {
            "loss": {"name": name, "options": self._options} if self.is_known else {"function": name},
            "metrics": [name if _METRICS.get(name) is f else {"function": name} for name, f in self.metrics.items()],
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
            metrics = saved_metrics
            own = [metric["function"] for metric in saved_metrics if not isinstance(metric, str)]
            if own:
                raise ValueError(f"metrics: expected the functions {', '.join(own)} that it was saved with, got None")
        return cls(loss, metrics)


def _parts(loss: Loss) -> tuple[Any, dict[str, Any]]:
    """The function of fastrnn.losses behind a loss and its options; any other callable as it is."""
    if isinstance(loss, functools.partial) and not loss.args and _is_known(loss.func):
        return loss.func, dict(loss.keywords)
    return loss, {}


def _is_known(function: Any) -> bool:
    name = getattr(function, "__name__", None)
    return name in losses.__all__ and getattr(losses, name) is function and name != "get"


def _metric(metric: MetricName | Metric) -> tuple[str, Metric]:
    if isinstance(metric, str):
        if metric not in _METRICS:
            raise ValueError(f"metrics: expected a function or one of {', '.join(_METRICS)}, got {metric!r}")
        return metric, _METRICS[metric]
    if not callable(metric):
        raise TypeError(f"metrics: expected names and functions, got {metric!r}")
    return getattr(metric, "__name__", type(metric).__name__), metric
