"""What a trainer is given: samples of equal or differing length, cut into batches, padded, read in pieces of time.

Letters: N samples, T time steps, T_i those of sample i. Data are samples first, (N, T, ...).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import as_real, check_lengths, check_plain, plain
from ..layers.layout import without_rest
from .weights import EQUAL, DataWeights, Weighting

Array = NDArray[Any]

POOL = 50  # batches that are sorted by length together, so that an epoch's order stays random


class Data:
    """x, y, lengths, reset_mask and mask of N samples, checked against one another.

    x: array (N, ...), or a list of N arrays (T_i, ...), whose lengths are then those of the data.
    y: array (N, ...); with `steps`, that is for targets at every step, also a list of N arrays (T_i, ...); or None.
    lengths: (N,) whole numbers 0..T, or None. reset_mask, mask: array (N, T) or list of arrays (T_i,), bool, or None.
    may_be_empty: whether N may be 0.
    dtype: what x is converted to, of any real dtype; None leaves it as it is.
    labels: y is sequences of labels without times, in rows of any lengths.
    Raises ValueError for shapes that do not fit, TypeError for lengths and resets of another type and for what cannot
    be converted.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        lengths: Any = None,
        reset_mask: Any = None,
        mask: Any = None,
        *,
        steps: bool = False,
        dtype: np.dtype[Any] | None = None,
        labels: bool = False,
        may_be_empty: bool = False,
    ) -> None:
        # What is mapped from disk is converted batch by batch.
        mapped = isinstance(x, np.memmap) and x.dtype.kind in "fiub"
        self.dtype = dtype if mapped else None
        self.x: Any = _samples(x, x.dtype if mapped else dtype, may_be_empty)  # an array, or a list of arrays
        self.ragged = isinstance(self.x, list)
        if self.ragged:
            if lengths is not None:
                raise ValueError("lengths: expected None, as x is a list of sequences, which have their own")
            self.lengths: Any = np.array([len(sequence) for sequence in self.x])
            self.T: Any = int(self.lengths.max())  # None where x has no time axis
        else:
            self.T = self.x.shape[1] if self.x.ndim > 1 else None
            self.lengths = None
            if lengths is not None:
                if self.T is None:
                    raise ValueError(f"lengths: expected None for x without time steps, got x of shape {self.x.shape}")
                self.lengths = check_lengths(plain("lengths", lengths), self.T, len(self.x))
        y = _padded_labels(y) if labels and isinstance(y, (list, tuple)) else y
        self.y: Any = None if y is None else self._targets(y, steps)
        self.reset_mask: Any = None if reset_mask is None else self._flags("reset_mask", reset_mask)
        self.mask: Any = None if mask is None else self._flags("mask", mask)
        self.steps = steps
        self.weights: DataWeights | None = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, part: slice) -> Data:
        """Some of the samples."""
        some = copy.copy(self)
        some.x = self.x[part]
        some.y = None if self.y is None else self.y[part]
        some.lengths = None if self.lengths is None else self.lengths[part]
        some.reset_mask = None if self.reset_mask is None else self.reset_mask[part]
        some.mask = None if self.mask is None else self.mask[part]
        some.weights = None if self.weights is None else self.weights.rows(part)
        return some

    def _targets(self, y: Any, steps: bool) -> Array | list[Array]:
        if steps and isinstance(y, (list, tuple)) and any(np.ndim(targets) for targets in y):
            y = _one_per_sample("y", [plain("y", targets) for targets in y], len(self))
            if self.lengths is None and len({targets.shape for targets in y}) == 1:
                return np.stack(y)
            for i, targets in enumerate(y):
                expected = self.T if self.lengths is None else self.lengths[i]
                if not targets.ndim or len(targets) != expected:
                    raise ValueError(f"y: expected {expected} targets for sequence {i}, got shape {targets.shape}")
                if targets.shape[1:] != y[0].shape[1:]:
                    raise ValueError(
                        f"y: expected targets of one shape, (T_{i}, ...) as {y[0].shape}, got {targets.shape} at {i}"
                    )
            return y
        y = _one_per_sample("y", plain("y", y), len(self))
        if y.dtype.kind in "OSU":
            raise TypeError(
                f"y: expected numbers, got {y.dtype}; number the classes from 0, or take an estimator of "
                "fastrnn.sklearn, which takes labels of any kind"
            )
        if steps and self.lengths is not None and y.shape[1:2] != (self.T,):
            raise ValueError(f"y: expected a target at each step, ({len(self)}, {self.T}, ...), got shape {y.shape}")
        return y

    def _flags(self, name: str, mask: Any) -> Array | list[Array]:
        """A reset mask, or a mask of real steps."""
        if self.T is None:
            raise ValueError(f"{name}: expected None for x without time steps, got x of shape {self.x.shape}")
        rows = isinstance(mask, (list, tuple)) and self.ragged
        mask = _one_per_sample(name, [plain(name, row) for row in mask], len(self)) if rows else plain(name, mask)
        n, T = len(self), self.T
        expected = [(int(length),) for length in self.lengths] if rows else [(n, T)]
        for i, (part, shape) in enumerate(zip(mask if rows else [mask], expected)):
            where = f" for sequence {i}" if rows else ""
            if part.dtype != bool:
                raise TypeError(f"{name}: expected bool{where}, got {part.dtype}; 0 and 1 are flags by .astype(bool)")
            if part.shape != shape:
                hint = f"; write {name}.T" if part.shape == (T, n) else ""
                axes = "" if rows else " = (N, T)"
                raise ValueError(f"{name}: expected shape {shape}{axes}{where}, got {part.shape}{hint}")
        return mask

    def real_steps(self) -> Array:
        """The mask as an array (N, T)."""
        if isinstance(self.mask, np.ndarray):
            return self.mask
        padded = np.zeros((len(self), self.T), bool)
        for row, part in zip(padded, self.mask):
            row[: len(part)] = part
        return padded

    def step_counts(self) -> Array:
        """(N,), how many steps of each sample count."""
        if self.mask is None:
            counts: Array = np.full(len(self), self.T) if self.lengths is None else self.lengths
            return counts
        real = self.real_steps()
        return (real if self.lengths is None else real & (np.arange(self.T) < self.lengths[:, None])).sum(axis=1)

    def order(
        self, batch_size: int, rng: np.random.Generator | None = None, bucket: bool = False
    ) -> list[Array | slice]:
        """The rows of each batch, in a random order if `rng` is given; with `bucket` those of similar length
        together."""
        n = len(self)
        if rng is None and not bucket:
            if not n:
                return [slice(0, 0)]  # a batch of none, which tells the shape of what comes out
            return [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        rows = np.arange(n) if rng is None else rng.permutation(n)
        if bucket:
            pool = n if rng is None else POOL * batch_size
            pools = [rows[start : start + pool] for start in range(0, n, pool)]
            rows = np.concatenate([part[self.lengths[part].argsort(kind="stable")] for part in pools])
        batches: list[Array | slice] = [rows[start : start + batch_size] for start in range(0, n, batch_size)]
        if bucket and rng is not None:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        return batches

    def batches(self, batch_size: int) -> Iterator[Batch]:
        return (Batch(self, rows) for rows in self.order(batch_size))

    def joined(self, outputs: list[Array], *, steps: bool) -> Any:
        """What a model gave for each of the batches, samples first, as one array (N, ...). With `steps`, that is for
        outputs at every step: with zeros past the lengths, and for a list of sequences a list of arrays (T_i, ...)."""
        if not steps or self.lengths is None:
            return np.concatenate(outputs)
        rows = [row[:length] for row, length in zip((row for part in outputs for row in part), self.lengths)]
        if self.ragged:
            return [row.copy() for row in rows]
        padded = np.zeros((len(self), self.T, *rows[0].shape[1:]), rows[0].dtype)
        for row, given in zip(padded, rows):
            row[: len(given)] = given
        return padded


class Batch:
    """Some rows of the data, up to the longest among them, of which any piece of time can be had.

    Arrays are samples first; a piece is a view of the data where it can be, and padded with zeros where it must be.
    """

    def __init__(self, data: Data, rows: Array | slice) -> None:
        if isinstance(rows, np.ndarray) and (np.diff(rows) == 1).all():
            rows = slice(int(rows[0]), int(rows[-1]) + 1)  # a view, where the data are an array
        self._data, self._rows = data, rows
        self._indices = np.arange(len(data))[rows]
        self.lengths: Array | None = None if data.lengths is None else data.lengths[rows]
        self.T: Any = data.T if self.lengths is None else max(int(self.lengths.max()), 1)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def has_targets(self) -> bool:
        return self._data.y is not None

    @property
    def masked(self) -> bool:
        return self._data.mask is not None

    def x(self, start: int = 0, stop: int | None = None) -> Array:
        piece = self._piece(self._data.x, start, stop)
        if self._data.mask is not None:
            piece = without_rest(piece, None, True, self.mask(start, stop))
        return piece if self._data.dtype is None else piece.astype(self._data.dtype, copy=False)

    def y(self, start: int = 0, stop: int | None = None, *, steps: bool) -> Array:
        """The targets: with `steps` those from start to stop."""
        return self._piece(self._data.y, start, stop) if steps else self._data.y[self._rows]

    def weighting(self, start: int = 0, stop: int | None = None) -> Weighting:
        """Weights of the samples, or of their steps from start to stop."""
        weights = self._data.weights
        if weights is None or weights.loss is None:
            return EQUAL
        parts = [None if part is None else self._weights(part, start, stop) for part in (weights.loss, weights.sample)]
        return Weighting(parts[0], parts[1], weights.mean)

    def _weights(self, values: Any, start: int, stop: int | None) -> Array:
        if isinstance(values, np.ndarray) and (values.ndim == 1 or not self._data.steps):
            return values[self._rows]
        return self._piece(values, start, stop)

    def reset_mask(self, start: int = 0, stop: int | None = None) -> Array | None:
        """(T, N), as layers take it."""
        mask = self._data.reset_mask
        return None if mask is None else np.ascontiguousarray(self._piece(mask, start, stop).T)

    def mask(self, start: int = 0, stop: int | None = None) -> Array | None:
        """(N, T), which steps are real; None where all are."""
        mask = self._data.mask
        return None if mask is None else self._piece(mask, start, stop)

    def lengths_in(self, start: int = 0, stop: int | None = None) -> Array | None:
        """How many steps of each row lie in start:stop; None where the data have no lengths."""
        return None if self.lengths is None else self.counts_in(start, self.T if stop is None else stop)

    def counts_in(self, start: int, stop: int) -> Array:
        """The same, with numbers for data without lengths too."""
        whole = np.full(len(self), self.T) if self.lengths is None else self.lengths
        return (whole - start).clip(0, stop - start)

    def _piece(self, values: Array | list[Array], start: int, stop: int | None) -> Array:
        if isinstance(values, np.ndarray):
            if self.lengths is None and not start and stop is None:
                return values[self._rows]
            stop = self.T if stop is None else stop
            piece = values[self._rows, start:stop]
            if self.lengths is None or values is not self._data.x:
                return piece
            return without_rest(piece, self.counts_in(start, stop), True)
        stop = self.T if stop is None else stop
        parts = [values[i][start:stop] for i in self._indices]
        if len(parts) == 1 and len(parts[0]) == stop - start:
            return parts[0][None]
        padded = np.zeros((len(parts), stop - start, *parts[0].shape[1:]), parts[0].dtype)
        for row, part in zip(padded, parts):
            row[: len(part)] = part
        return padded


def _padded_labels(y: Any) -> Array:
    """Rows of labels of any lengths as one array, -1 past their ends."""
    rows = [np.asarray(row) if np.size(row) else np.zeros(0, np.int64) for row in y]
    for row in rows:
        if row.ndim != 1 or row.dtype.kind not in "iu":
            raise TypeError(f"y: expected sequences of labels, integers, got {row.dtype} of shape {row.shape}")
    padded = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for into, row in zip(padded, rows):
        into[: len(row)] = row
    return padded


def _samples(x: Any, dtype: np.dtype[Any] | None, may_be_empty: bool = False) -> Any:
    """x as an array, or where it is a list of sequences as a list of arrays, of one dtype and one shape per step."""
    check_plain("x", x)
    if not isinstance(x, (list, tuple)):
        x = np.asarray(x)
        if x.dtype == object and x.ndim == 1 and len(x) and all(np.ndim(part) for part in x):
            x = list(x)  # an object array, or a pandas Series, of sequences
    if not isinstance(x, (list, tuple)) or not x:
        x = _converted(np.asarray(x), dtype)
        return x if may_be_empty and x.ndim else _at_least_one(x)
    parts = [plain("x", sequence) for sequence in x]
    if all(not part.ndim for part in parts):
        return _converted(np.asarray(x), dtype)
    if not any(isinstance(sequence, np.ndarray) for sequence in x) and len({part.shape for part in parts}) == 1:
        return _converted(np.asarray(x), dtype)  # nested lists of an array's shape
    first = next((part for part in parts if part.size), parts[0])
    if first.ndim > 1:  # an empty list does not tell its shape per step
        parts = [np.empty((0, *first.shape[1:]), first.dtype) if part.shape == (0,) else part for part in parts]
    parts = [_converted(part, dtype) for part in parts]
    first = parts[0]
    for i, part in enumerate(parts):
        if not part.ndim or part.shape[1:] != first.shape[1:]:
            expected = f"(T_{i}{''.join(f', {size}' for size in first.shape[1:])})"
            raise ValueError(f"x: expected sequences of one shape per step, {expected}, got {part.shape} at {i}")
        if part.dtype != first.dtype:
            raise TypeError(f"x: expected sequences of one dtype, {first.dtype}, got {part.dtype} at {i}")
    return parts


def _converted(x: Array, dtype: np.dtype[Any] | None) -> Array:
    """x in the dtype of the model's layers, itself where it has it."""
    return as_real("x", x, dtype or x.dtype)


def _at_least_one(x: Array) -> Array:
    if not x.ndim or not len(x):
        raise ValueError(f"x: expected samples first, at least one, got shape {x.shape}")
    return x


def _one_per_sample(name: str, values: Array | list[Array], n: int) -> Any:
    one = "one target" if name == "y" else "one entry"
    if isinstance(values, list):
        if len(values) != n:
            raise ValueError(f"{name}: expected {one} per sample of x, {n} of them, got a list of {len(values)}")
    elif not values.ndim or len(values) != n:
        raise ValueError(f"{name}: expected {one} per sample of x, {n} of them, got shape {values.shape}")
    return values
