"""Nested states: None, an array, or a tuple of states. All that walks through one is here.

A function that returns a state returns tuples, also where it was given lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = Any  # None | Array | tuple[State, ...]: a recursive type would force casts on whoever unpacks one


def map(function: Callable[..., Any], state: State, *others: State) -> State:
    """The state with function(array) in the place of each array. Arrays of other states of the same structure follow as
    further arguments."""
    if state is None:
        return None
    if isinstance(state, (tuple, list)):
        return tuple(map(function, *parts) for parts in zip(state, *others, strict=True))
    return function(state, *others)


def arrays(state: State) -> Iterator[Array]:
    """The arrays in their order, without the Nones."""
    if isinstance(state, (tuple, list)):
        for part in state:
            yield from arrays(part)
    elif state is not None:
        yield state


def flatten(state: State) -> list[Array]:
    """`arrays` as a list."""
    return list(arrays(state))


def unflatten(like: State, values: Iterable[Any]) -> State:
    """A state structured as `like`, with these values in the places of its arrays. Raises ValueError where their number
    differs from that of the arrays."""
    remaining = list(values)
    wanted = len(flatten(like))
    if len(remaining) != wanted:
        raise ValueError(f"state: expected {wanted} arrays, got {len(remaining)}")
    following = iter(remaining)
    return map(lambda _: next(following), like)


def parts(state: State) -> tuple[State, ...]:
    """The entries of the outermost level: () for None, (array,) for an array."""
    if state is None:
        return ()
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def copy(state: State) -> State:
    """The state with a copy of every array."""
    return map(np.copy, state)


def take_rows(state: State, rows: Any, axis: int = 1) -> State:
    """These rows of the batch of every array, copied. rows: indices or a mask; axis: where the batch is."""
    index = (slice(None),) * axis + (rows,)
    return map(lambda a: a[index], state)


def with_rows(state: State, rows: Any, values: State, axis: int = 1) -> State:
    """A copy whose rows are those of `values`: a state of the same structure, or a number for all of them."""
    index = (slice(None),) * axis + (rows,)

    def replaced(a: Array, *value: Any) -> Array:
        a = a.copy()
        a[index] = value[0] if value else values
        return a

    return map(replaced, state) if np.isscalar(values) else map(replaced, state, values)


def zero_rows(state: State, rows: Any, axis: int = 1) -> State:
    """A copy whose rows are zeros."""
    return with_rows(state, rows, 0, axis)


def shapes(state: State) -> str:
    """The shapes of the outermost level in words, for errors."""
    return " and ".join(str(np.shape(part)) for part in parts(state))


def describe(state: State, named: dict[str, Array], prefix: str = "state") -> Any:
    """The structure as None, names and lists, JSON-able; the arrays go to `named`, under "prefix.0.1"."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return [describe(part, named, f"{prefix}.{k}") for k, part in enumerate(state)]
    if not isinstance(state, np.ndarray):
        raise TypeError(f"state: expected None, arrays and tuples of them, got {type(state).__name__}")
    named[prefix] = state
    return prefix


def rebuild(named: Mapping[str, Array], description: Any) -> State:
    """The state that `describe` described: its names are looked up in `named`."""
    return map(lambda name: named[name], description)
