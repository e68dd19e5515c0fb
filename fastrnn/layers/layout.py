"""What layers over time share: layouts, and what lengths say of them.

Letters: T time steps, N batch, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import as_real, check_lengths, check_reset_mask

Array = NDArray[Any]


def time_major(name: str, a: Any, dtype: np.dtype[Any] | None, batch_first: bool, columns: int | None = None) -> Array:
    """The (T, N, D) view of x as the user gave it: (T, N, D), (N, T, D) with batch_first, or (T, D) for one sequence.

    columns: D, None for any. dtype: what real numbers of any other dtype, and lists, are converted to; None where the
    compiled core checks it. Raises TypeError for what is neither, ValueError for a wrong shape.
    """
    if dtype is not None:
        a = as_real(name, a, dtype)
    elif not isinstance(a, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(a).__name__}")
    if a.ndim not in (2, 3) or (columns is not None and a.shape[-1] != columns):
        layout, last = "N, T" if batch_first else "T, N", "D" if columns is None else columns
        raise ValueError(f"{name}: expected shape ({layout}, {last}) or (T, {last}), got {a.shape}")
    if a.ndim == 2:
        return a[:, None]
    return a.swapaxes(0, 1) if batch_first else a


def as_given(a: Array, batched: bool, batch_first: bool) -> Array:
    """The view of a time-major array that has the layout of x."""
    if not batched:
        return a[:, 0]
    return a.swapaxes(0, 1) if batch_first else a


def read_doutput(doutput: Any, shape: tuple[int, ...], batched: bool, batch_first: bool, dtype: np.dtype[Any]) -> Array:
    """The time-major view of the gradient of an output of this time-major shape."""
    dy = time_major("doutput", doutput, None, batch_first, shape[-1])
    if dy.shape != shape or (doutput.ndim == 3) != batched:
        expected = as_given(np.empty(shape), batched, batch_first).shape
        raise ValueError(f"doutput: expected shape {expected} like output, got {doutput.shape}")
    if dy.dtype != dtype:
        raise TypeError(f"doutput: expected {dtype} like output, got {dy.dtype}")
    return dy


def without_rest(x: Array, lengths: Array | None, batch_first: bool | None, mask: Array | None = None) -> Array:
    """x (T, N, ...), or (N, T, ...) with batch_first, with zeros past the lengths and where the mask, of the first axes
    of x, is False: anything may stand there, NaN too. Finite numbers do no harm there and stay: x itself is returned.
    """
    T = x.shape[1 if batch_first else 0]
    if lengths is not None and (lengths >= T).all():
        lengths = None
    if (lengths is None and mask is None) or (x.dtype.kind == "f" and np.isfinite(x).all()):
        return x
    real = mask
    if lengths is not None:
        within = np.arange(T) < lengths[:, None]
        within = within if batch_first else within.T
        real = within if mask is None else within & mask
    assert real is not None
    return np.where(real.reshape(real.shape + (1,) * (x.ndim - real.ndim)), x, x.dtype.type(0))


def time_major_mask(mask: Any, T: int, N: int, batched: bool, batch_first: bool) -> Array | None:
    """The (T, N) view of a mask with the axes of x, (T, N), (N, T) with batch_first, (T,) for one sequence; None where
    all steps are real."""
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask: expected a NumPy array of bool, got {got}")
    shape, axes = ((T,), "(T,)") if not batched else ((N, T), "(N, T)") if batch_first else ((T, N), "(T, N)")
    if mask.shape != shape:
        raise ValueError(f"mask: expected shape {shape} = {axes}, got {mask.shape}")
    if mask.all():
        return None
    return mask[:, None] if not batched else mask.T if batch_first else mask


class RealSteps:
    """The real steps of each row, in front and in their order: what is made of rows with lengths is then made of rows
    with masked steps too, for one copy. mask (T, N), lengths (N,) or None. counts: (N,), how many are real."""

    def __init__(self, mask: Array, lengths: Array | None = None) -> None:
        if lengths is not None:
            mask = mask & (np.arange(len(mask))[:, None] < lengths)
        self.order = np.argsort(~mask, axis=0, kind="stable")
        self.rows = np.arange(mask.shape[1])
        self.counts: Array = mask.sum(axis=0)

    def first(self, a: Array) -> Array:
        """(T, N, ...), the real steps in front, behind them the others."""
        return a[self.order, self.rows]

    def back(self, a: Array) -> Array:
        """The other way round."""
        there = np.empty_like(a)
        there[self.order, self.rows] = a
        return there


def active_lengths(lengths: Any, T: int, N: int, batched: bool = True) -> Array | None:
    """lengths (N,) of integers 0..T in any order, as intp; None where every sequence has all T steps."""
    if lengths is None:
        return None
    if not batched:
        raise ValueError(f"lengths: expected None for x without a batch axis, got {lengths!r}")
    lengths = check_lengths(lengths, T, N)
    return None if (lengths == T).all() else lengths


def resets_of_directions(reset_mask: Any, lengths: Any, S: int, T: int, N: int) -> list[Array | None]:
    """The mask (T, N) for each of S directions: a boundary before step t is one before step t - 1 in the direction from
    the end."""
    if S == 1 or check_reset_mask(reset_mask, T, N) is None:
        return [reset_mask if S == 1 else None] * S
    reverse = np.zeros_like(reset_mask)
    reverse[:-1] = reset_mask[1:]
    if lengths is not None and T:
        lengths = check_lengths(lengths, T, N)
        reverse[np.maximum(lengths, 1) - 1, np.arange(N)] = False  # what stands past the end is no boundary
    return [reset_mask, reverse]
