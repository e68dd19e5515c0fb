"""One label for each step of each sequence.

Letters: N samples, T time steps, T_i those of sample i, K classes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from ..functional.activations import ACTIVATIONS
from .estimator import Array, RNNEstimator
from .labels import LabelEstimator


class RNNTagger(LabelEstimator):
    """One label for each step of each sequence. y: a list of N sequences of labels (T_i,), or (N, T); labels are
    numbers, strings, or anything that can be a key of a dict, such as tuples and None.

    class_weight: None, "balanced" or a dict label -> weight. The other arguments as for every estimator here:
    """

    __doc__ += RNNEstimator.__doc__ or ""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RNNTagger:
        """sample_weight: (N,) for sequences, or for steps (N, T) or a list of N (T_i,); None for 1 each."""
        data = self._read(X, reset=True)
        tags = _tags(data, y)
        self.classes_ = _classes(tags)
        places = {label: index for index, label in enumerate(self.classes_.tolist())}
        indices: Any = [np.array([places[label] for label in row], np.int64) for row in tags]
        if not isinstance(data, list):
            indices = np.stack(indices)
        self._train(
            data,
            indices,
            len(self.classes_),
            "cross_entropy",
            weights=sample_weight
            if sample_weight is None or isinstance(sample_weight, list)
            else np.asarray(sample_weight),
            class_weight=self._class_weight(),
            per_step=True,
            keep=self.warm_start,
        )
        return self

    def predict_proba(self, X: Any) -> list[Array]:
        """A list of N arrays (T_i, K)."""
        return [ACTIVATIONS["softmax"][0](np.asarray(part, np.float64)) for part in self._outputs(X)]

    def predict(self, X: Any) -> list[Array]:
        """A list of N arrays of labels (T_i,)."""
        best = [part.argmax(axis=-1) for part in self._outputs(X)]
        return [self.classes_[row] for row in best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of steps that get their right label. sample_weight as in fit."""
        predicted = self.predict(X)
        right = [
            np.array([p == t for p, t in zip(said.tolist(), row)], bool)
            for said, row in zip(predicted, _tags(predicted, y))
        ]
        weights = None if sample_weight is None else np.concatenate(_step_weights(right, sample_weight))
        return float(np.average(np.concatenate(right), weights=weights))


def _tags(data: Any, y: Any) -> list[list[Any]]:
    """The labels of each sequence of `data`, as Python's own objects."""
    if y is None:
        raise ValueError("RNNTagger requires y to be passed, but the target y is None")
    rows = [row.tolist() if isinstance(row, np.ndarray) else list(row) for row in y]
    if len(rows) != len(data):
        raise ValueError(f"y: expected labels for {len(data)} sequences, got {len(rows)}")
    for i, (row, x) in enumerate(zip(rows, data)):
        if len(row) != len(x):
            raise ValueError(f"y: expected {len(x)} labels for sequence {i}, got shape ({len(row)},)")
        wrong = next((label for label in row if not isinstance(label, Hashable)), None)
        if wrong is not None:
            raise ValueError(f"y: expected a label for each step of sequence {i}, got {wrong!r}")
    return rows


def _classes(tags: list[list[Any]]) -> Array:
    """(K,), the labels that occur, sorted where they can be; of objects where they are no numbers and no strings."""
    found = list(dict.fromkeys(label for row in tags for label in row))
    if not found:
        raise ValueError("y: expected at least one label, got none")
    try:
        found.sort()
    except TypeError:
        found.sort(key=repr)
    kinds = {type(label) for label in found}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        return np.array(found)
    classes = np.empty(len(found), object)
    for index, label in enumerate(found):
        classes[index] = label
    return classes


def _step_weights(steps: list[Array], sample_weight: Any) -> list[Array]:
    """A weight for each step."""
    if len(sample_weight) != len(steps):
        raise ValueError(f"sample_weight: expected weights for {len(steps)} sequences, got {len(sample_weight)}")
    rows = [
        np.broadcast_to(np.asarray(w, np.float64), np.shape(w) or row.shape) for w, row in zip(sample_weight, steps)
    ]
    for i, (w, row) in enumerate(zip(rows, steps)):
        if w.shape != row.shape:
            raise ValueError(f"sample_weight: expected one weight, or {len(row)}, for sequence {i}, got {w.shape}")
    return rows
