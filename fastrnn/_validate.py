"""Checks of arguments that several layers share. Each raises one error that names the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np


def check_size(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {value!r}") from None
    if size < least or isinstance(value, bool):
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return size


def check_number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_probability(name: str, value: Any) -> float:
    """A dropout probability, 0 <= p < 1: at 1 nothing would be left to scale up."""
    try:
        p = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a probability, got {value!r}") from None
    if not 0 <= p < 1:
        raise ValueError(f"{name}: expected a probability 0 <= p < 1, got {value!r}")
    return p


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    if value not in (known := tuple(known)):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def check_dtype(name: str, value: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}") from None
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {dtype}")
    return dtype


def check_lengths(lengths: Any, T: int, N: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """How many steps of each of N sequences count: integers 0..T, shape (N,)."""
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    if lengths.shape != (N,):
        raise ValueError(f"lengths: expected shape ({N},), got {lengths.shape}")
    for n in (lengths.min(initial=0), lengths.max(initial=0)):
        if not 0 <= n <= T:
            raise ValueError(f"lengths: expected 0..{T}, got {n}")
    return lengths.astype(np.intp)


def kind_of(value: Any) -> str:
    """What was given, in words."""
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__


def as_generator(name: str, rng: Any) -> np.random.Generator:
    """The Generator itself, one with that whole number as its seed, or a freshly seeded one for None."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    try:
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(f"{name}: expected None, a whole number or a numpy Generator, got {rng!r}") from None
    if seed < 0:
        raise ValueError(f"{name}: expected a seed of at least 0, got {seed}")
    return np.random.default_rng(seed)


def own_generator(rng: np.random.Generator) -> np.random.Generator:
    """A new Generator seeded by a draw from `rng`: its owner can save and restore it without touching others'."""
    return np.random.default_rng(rng.integers(2**63))
