"""What a layer says of itself, and what it is told in a forward. `Module` has the methods.

Letters: T time steps, N batch.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


class Time(enum.Enum):
    """What a layer does with the axis of time."""

    PER_STEP = "per step"  # one in x, one in y
    REDUCES = "reduces"  # one in x, none in y
    CREATES = "creates"  # none in x, one in y
    HIDDEN = "hidden"  # none in x, none in y: what one of its layers creates, another reduces

    @classmethod
    def of(cls, in_x: bool, in_y: bool) -> Time:
        """From whether x and y have an axis of time."""
        if in_x:
            return cls.PER_STEP if in_y else cls.REDUCES
        return cls.CREATES if in_y else cls.HIDDEN

    @property
    def in_x(self) -> bool:
        """Whether x has an axis of time."""
        return self in (Time.PER_STEP, Time.REDUCES)

    @property
    def in_y(self) -> bool:
        """Whether y has an axis of time."""
        return self in (Time.PER_STEP, Time.CREATES)


class Layout(enum.Enum):
    """Where a layer expects the axes of time and batch."""

    ANY = "any"  # it does not look at those axes
    TIME_MAJOR = "time-major"  # (T, N, ...)
    BATCH_FIRST = "batch-first"  # (N, T, ...)


class Context(NamedTuple):
    """What a forward is told beside x and the state; None for what there is not."""

    lengths: Array | None = None  # (N,)
    reset_mask: Array | None = None  # (T, N), also where x is batch-first
    targets: Array | None = None  # what the output should be, to be fed back
    steps: int | None = None  # with x None, how many steps to run without input
    teacher_forcing: float | None = None  # the probability with which a target is fed back; None: the layer's own
    trees: Any = None  # the `Trees` whose nodes x belongs to
    mask: Array | None = None  # (T, N), or (N, T) where x is batch-first: which steps are real


NOTHING = Context()
"""The context of a forward that is told nothing beside x and the state."""


@dataclass(frozen=True)
class StateSpec:
    """What a layer's state is: for each of `names` an array (levels * directions, N, width)."""

    names: tuple[str, ...]  # such as ("h", "c")
    widths: tuple[int | None, ...]  # None where only the layer itself knows
    levels: int = 1  # stacked layers
    directions: int = 1
    is_array: bool = True  # a single array rather than a tuple
