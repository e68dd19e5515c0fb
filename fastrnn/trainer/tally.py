"""Numbers that are made of sums: parts of a batch, of an epoch, or of time add up to those of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Finish = Callable[[Array], float]


class Tally:
    """Sums in float64, and the function that makes a number of them.

    count: of a loss, how much its gradient is to count beside those of other batches in one update.
    """

    def __init__(self, sums: Any, finish: Finish, count: float = 0.0) -> None:
        self.sums: Array = np.asarray(sums, np.float64)
        self.finish = finish
        self.count = count

    def plus(self, other: Tally) -> Tally:
        return Tally(self.sums + other.sums, self.finish, self.count + other.count)

    def result(self) -> float:
        return self.finish(self.sums)

    @property
    def weight(self) -> float:
        """Of a mean: what it is over."""
        return float(self.sums[1])


Values = dict[str, Tally]


def ratio(sums: Array) -> float:
    """The first sum over the second: a mean; nan where nothing counted."""
    return float(sums[0]) / float(sums[1]) if sums[1] else math.nan


def mean(value: float, weight: float, count: float = 0.0) -> Tally:
    """A mean whose weight is the number of what it is over."""
    return Tally([value * weight if weight else 0.0, weight], ratio, count)


class Means:
    """What the batches of an epoch gave, added up."""

    def __init__(self) -> None:
        self.tallies: Values = {"loss": mean(0.0, 0)}

    def add(self, values: Values) -> None:
        for name, tally in values.items():
            self.tallies[name] = self.tallies[name].plus(tally) if name in self.tallies else tally

    def result(self) -> dict[str, float]:
        """The loss is nan where nothing counted."""
        return {name: tally.result() for name, tally in self.tallies.items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: tally.sums.tolist() for name, tally in self.tallies.items()}

    def load_state_dict(self, state: dict[str, Any], finish: Callable[[str], Finish]) -> None:
        self.tallies = {name: Tally(sums, finish(name)) for name, sums in state.items()}
