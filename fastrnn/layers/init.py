"""How weights start. Numbers are drawn in float64 and rounded, so one seed starts float32 and float64 alike.

Letters: D input size, H hidden size, G gates.

Design: a whole number as rng is a seed of which each kind and size of layer makes a stream of its own (NumPy's
SeedSequence with a spawn key), so that layers that are given the same number do not correlate. Two equal layers made
alone from one number are equal, as a seed has to repeat. In one model they must not be: the model draws the second one
anew, from the next stream. It leaves alone what was loaded, trained or changed since it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .weights import Start, Weights

Array = NDArray[Any]


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float, dtype: Any) -> Array:
    """U(-bound, bound). PyTorch's layers take bound = 1/sqrt(H) for recurrent weights and biases of H units, and
    1/sqrt(D) for a linear layer of D inputs."""
    return rng.uniform(-bound, bound, shape).astype(dtype)


def orthogonal_gates(rng: np.random.Generator, gates: int, hidden_size: int, dtype: Any) -> Array:
    """A recurrent weight (G*H, H) of G independent H x H matrices, each orthogonal and uniformly distributed over all
    orthogonal matrices (Saxe, McClelland and Ganguli 2014): powers of them neither grow nor shrink a state.

    The sign correction is Mezzadri's (2007, How to generate random matrices from the classical compact groups):
    without it Q depends on the sign convention of the QR routine and is not uniform.
    """
    q, r = np.linalg.qr(rng.standard_normal((gates, hidden_size, hidden_size)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return q.reshape(gates * hidden_size, hidden_size).astype(dtype)


def tell_apart(leaves: Sequence[Weights]) -> None:
    """Draw layers anew that have the numbers of one before them, as they are of one kind, size and seed."""
    seen: set[tuple[Any, ...]] = set()
    for leaf in leaves:
        start = leaf._start
        if start is None or start.seed is None:
            continue
        while _tag(start) in seen:
            start = replace(start, occurrence=start.occurrence + 1)
        if start != leaf._start and _as_drawn(leaf):
            _draw(leaf, start)
        seen.add(_tag(start))


def _tag(start: Start) -> tuple[Any, ...]:
    return start.seed, start.key, start.occurrence


def _draw(leaf: Any, start: Start) -> None:
    leaf._take_over(type(leaf)(**leaf.arguments(), rng=start.generator()))
    leaf._start = start


def _as_drawn(leaf: Any) -> bool:
    """Whether a layer still has the numbers that its seed gave it."""
    twin = type(leaf)(**leaf.arguments(), rng=leaf._start.generator())
    states = [None if layer._rng is None else layer._rng.bit_generator.state for layer in (leaf, twin)]
    return states[0] == states[1] and all(
        np.array_equal(value, twin.params[name], equal_nan=True) for name, value in leaf.params.items()
    )
