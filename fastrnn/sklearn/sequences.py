"""One label or number for each sequence.

Letters: N samples, T time steps, D features, M outputs, K classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array

from ..functional.activations import ACTIVATIONS
from .estimator import Array, RNNEstimator
from .labels import LabelEstimator


class RNNClassifier(ClassifierMixin, LabelEstimator):
    """One label for each sequence, by the state after its last step; labels of any type.

    class_weight: None, "balanced" or a dict label -> weight. The other arguments as for every estimator here:
    """

    __doc__ += RNNEstimator.__doc__ or ""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RNNClassifier:
        """X as above, y (N,) labels, sample_weight (N,) or None."""
        data, labels = self._read_labelled(X, y, reset=True)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        return self._fit(data, indices, sample_weight, None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> RNNClassifier:
        """One more pass, over these samples. classes: all labels there will be, needed at the first call."""
        first = not hasattr(self, "model_")
        data, labels = self._read_labelled(X, y, reset=first)
        if first:
            self.classes_ = np.unique(labels if classes is None else classes)
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y: expected labels among {list(self.classes_)}, got {list(unknown)}; name all in classes"
            )
        return self._fit(data, np.searchsorted(self.classes_, labels), sample_weight, 1)

    def _read_labelled(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        labels = _labels(self, y)
        check_classification_targets(labels)
        data = self._read(X, reset=reset)
        if len(labels) != len(data):
            raise ValueError(f"y: expected one label per sample of X, {len(data)} of them, got {len(labels)}")
        return data, labels

    def _fit(self, data: Any, indices: Array, sample_weight: Any, epochs: int | None) -> RNNClassifier:
        stratify = indices if self.early_stopping and np.bincount(indices).min() > 1 else None
        self._train(
            data,
            indices,
            len(self.classes_),
            "cross_entropy",
            weights=_weights(sample_weight, data),
            class_weight=self._class_weight(),
            epochs=epochs,
            stratify=stratify,
            keep=self.warm_start or epochs is not None,
        )
        return self

    def predict_proba(self, X: Any) -> Array:
        """(N, K): the probability of each of classes_."""
        p = ACTIVATIONS["softmax"][0](np.asarray(self._outputs(X), np.float64))
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Array:
        """(N,): the most probable label of each sequence."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]


class RNNRegressor(MultiOutputMixin, RegressorMixin, RNNEstimator):
    """One number, or M of them, for each sequence, by the state after its last step; squared error.

    y (N,) or (N, M); it is standardised inside. The arguments:
    """

    __doc__ += RNNEstimator.__doc__ or ""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RNNRegressor:
        """X as above, y (N,) or (N, M), sample_weight (N,) or None."""
        return self._fit(X, y, sample_weight, None)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> RNNRegressor:
        """One more pass, over these samples."""
        return self._fit(X, y, sample_weight, 1)

    def _fit(self, X: Any, y: Any, sample_weight: Any, epochs: int | None) -> RNNRegressor:
        first = not (epochs is not None and hasattr(self, "model_"))
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        data = self._read(X, reset=first)
        if len(y) != len(data):
            raise ValueError(f"y: expected one target per sample of X, {len(data)} of them, got {len(y)}")
        self._flat = y.ndim == 1
        y = y.reshape(len(y), -1)
        if first:
            deviation = y.std(axis=0)
            self._y_mean, self._y_deviation = y.mean(axis=0), np.where(deviation > 0, deviation, 1)
        scaled = (y - self._y_mean) / self._y_deviation
        weights, keep = _weights(sample_weight, data), self.warm_start or epochs is not None
        self._train(data, scaled, y.shape[1], "mse", weights=weights, epochs=epochs, keep=keep)
        return self

    def predict(self, X: Any) -> Array:
        """(N,) or (N, M), like y."""
        outputs = self._outputs(X)
        y = outputs * self._y_deviation + self._y_mean
        return y[:, 0] if self._flat else y


# --- Targets and their weights ---


def _labels(estimator: Any, y: Any) -> Array:
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn("A column-vector y was passed when a 1d array was expected.", DataConversionWarning, stacklevel=4)
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"y: expected one label per sequence, shape (N,), got {labels.shape}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("Input y contains NaN or infinity")
    return labels


def _weights(sample_weight: Any, data: Any) -> Array | None:
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, np.empty((len(data), 1)), dtype=np.float64))
