"""Numbers that are made of sums: parts of a batch, of an epoch, or of time add up to those of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Finish = Callable[[Any], float]


class Tally:
    """Sums, a few numbers or an array in float64, and the function that makes a number of them.

    count: of a loss, how much its gradient is to count beside those of other batches in one update.
    """

    __slots__ = ("count", "finish", "sums")

    def __init__(self, sums: Any, finish: Finish, count: float = 0.0) -> None:
        self.sums, self.finish, self.count = sums, finish, count

    def plus(self, other: Tally) -> Tally:
        if isinstance(self.sums, tuple):  # of two, quicker than an array
            sums: Any = (self.sums[0] + other.sums[0], self.sums[1] + other.sums[1])
        else:
            sums = self.sums + other.sums
        return Tally(sums, self.finish, self.count + other.count)

    def result(self) -> float:
        return self.finish(self.sums)

    @property
    def weight(self) -> float:
        """Of a mean: what it is over."""
        return float(self.sums[1])


Values = dict[str, Tally]


def ratio(sums: Any) -> float:
    """The first sum over the second: a mean; nan where nothing counted."""
    return float(sums[0]) / float(sums[1]) if sums[1] else math.nan


def mean(value: float, weight: float, count: float = 0.0) -> Tally:
    """A mean whose weight is the number of what it is over."""
    return Tally((value * weight if weight else 0.0, float(weight)), ratio, count)


class Means:
    """What the batches of an epoch gave, added up."""

    def __init__(self) -> None:
        self.tallies: Values = {"loss": mean(0.0, 0)}

    def add(self, values: Values) -> None:
        tallies = self.tallies
        for name, tally in values.items():
            before = tallies.get(name)
            tallies[name] = tally if before is None else before.plus(tally)

    def result(self) -> dict[str, float]:
        """The loss is nan where nothing counted."""
        return {name: tally.result() for name, tally in self.tallies.items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: np.asarray(tally.sums).tolist() for name, tally in self.tallies.items()}

    def load_state_dict(self, state: dict[str, Any], finish: Callable[[str], Finish]) -> None:
        self.tallies = {}
        for name, saved in state.items():
            sums = tuple(saved) if finish(name) is ratio else np.array(saved, np.float64)
            self.tallies[name] = Tally(sums, finish(name))
