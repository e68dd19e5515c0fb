"""What a forward keeps for its backward, what a backward adds into, and states that stand for zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._validate import Array, Maybe, check_array

# Infinities, NaN and numbers that round to zero follow IEEE arithmetic without a warning, as in the compiled kernels,
# whatever the caller's np.seterr.
ieee = np.errstate(over="ignore", under="ignore", invalid="ignore")


class Cache:
    """What a forward keeps for its backward, which consumes it."""

    def __init__(self, owner: str, kept: tuple[Any, ...]) -> None:
        self.owner, self.kept = owner, kept

    def __repr__(self) -> str:
        return f"<cache of {self.owner}{', used up' if self.kept is None else ''}>"


def kept(cache: Any, owner: str) -> tuple[Any, ...]:
    got = cache.owner if isinstance(cache, Cache) else type(cache).__name__
    if got != owner:
        raise TypeError(f"cache: expected the cache of {owner} in training, got {got}")
    if cache.kept is None:
        raise RuntimeError(f"cache: already consumed by an earlier backward; run {owner} again")
    return tuple(cache.kept)


def add_into(into: dict[str, Array] | None, grads: dict[str, Maybe], like: str) -> dict[str, Maybe]:
    for name, target in (into or {}).items():
        grad = grads.get(name)
        if grad is None:
            keys = ", ".join(key for key, grad in grads.items() if grad is not None)
            raise ValueError(f"into: expected keys among {keys}, got {name!r}")
        if name == "x" and target is None:
            continue  # not wanted
        check_array(f"into[{name!r}]", target, grad.shape, grad.dtype, like, writable=True)
    for name, target in (into or {}).items():
        if target is not None:
            target += grads[name]
    return grads | (into or {})


def check_states(
    names: Sequence[str], arrays: Sequence[Maybe], shapes: Sequence[tuple[int, ...]], dtype: Any
) -> tuple[Array, ...]:
    """Arrays of known shapes, of which None stands for zeros."""
    for name, array, shape in zip(names, arrays, shapes):
        if array is not None:
            check_array(name, array, shape, dtype)
    return tuple(np.zeros(shape, dtype) if array is None else array for array, shape in zip(arrays, shapes))
