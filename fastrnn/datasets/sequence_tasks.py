"""Tasks that are made, not read: copy and reverse a sequence, put dates into one form, add two marked numbers.

Of pairs of sequences both are integer tokens; `characters` says which of them are reserved.

Letters: N samples, T source steps, T' target steps.
"""

from __future__ import annotations

import calendar
import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validate import as_generator, check_size
from .characters import END, IGNORED, PADDING, RESERVED, START, Characters

__all__ = [
    "END",
    "IGNORED",
    "PADDING",
    "START",
    "Characters",
    "Dates",
    "SequencePairs",
    "adding_problem",
    "copy_task",
    "dates",
    "reverse_task",
]

Array = NDArray[Any]


class SequencePairs(NamedTuple):
    """source (N, T) and targets (N, T'), integers."""

    source: Array
    targets: Array


def copy_task(samples: int, max_length: int = 10, symbols: int = 8, rng: Any = None) -> SequencePairs:
    """Write down what was read: sequences of 1..max_length symbols, tokens 3..symbols+2, and the same as targets."""
    return _pairs(samples, max_length, symbols, rng, lambda sequence: sequence)


def reverse_task(samples: int, max_length: int = 10, symbols: int = 8, rng: Any = None) -> SequencePairs:
    """As `copy_task`, the targets from the last symbol to the first."""
    return _pairs(samples, max_length, symbols, rng, lambda sequence: sequence[::-1])


def _pairs(samples: int, max_length: int, symbols: int, rng: Any, written: Any) -> SequencePairs:
    N, T, V = (check_size(*size) for size in (("samples", samples), ("max_length", max_length), ("symbols", symbols)))
    rng = as_generator("rng", rng)
    source, targets = np.full((N, T), PADDING), np.full((N, T + 1), IGNORED)
    for n, length in enumerate(rng.integers(1, T + 1, N)):
        sequence = rng.integers(RESERVED, RESERVED + V, length)
        source[n, :length], targets[n, :length], targets[n, length] = sequence, written(sequence), END
    return SequencePairs(source, targets)


class Dates(NamedTuple):
    """source (N, T) and targets (N, T'), integers; the texts that they are; what maps between the two."""

    source: Array
    targets: Array
    source_texts: list[str]
    target_texts: list[str]
    source_characters: Characters
    target_characters: Characters


def dates(samples: int, rng: Any = None, first_year: int = 1950, last_year: int = 2049) -> Dates:
    """Dates as people write them, in eight forms, and as ISO 8601 has them: "Friday, 12 March 2021", "Mar 12, 2021",
    "12.03.2021" and so on to "2021-03-12". Names of months and days are those of `calendar`, all days equally likely.
    """
    N, rng = check_size("samples", samples), as_generator("rng", rng)
    begin, stop = datetime.date(first_year, 1, 1).toordinal(), datetime.date(last_year, 12, 31).toordinal() + 1
    if begin >= stop:
        raise ValueError(f"last_year: expected at least first_year, {first_year}, got {last_year}")
    days = [datetime.date.fromordinal(day) for day in rng.integers(begin, stop, N).tolist()]
    forms = rng.integers(len(_FORMS), size=N).tolist()
    texts, written = [_FORMS[form](day) for form, day in zip(forms, days)], [day.isoformat() for day in days]
    names = (*calendar.month_name, *calendar.month_abbr, *calendar.day_name)
    reads = Characters("".join(sorted(set("".join(names) + "0123456789 ,./stndrhof"))))
    writes = Characters("-0123456789")
    return Dates(reads.source(texts, _width()), writes.targets(written), texts, written, reads, writes)


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


_FORMS = (
    lambda d: f"{d.day} {calendar.month_name[d.month]} {d.year}",
    lambda d: f"{calendar.month_name[d.month]} {d.day}, {d.year}",
    lambda d: f"{d.day} {calendar.month_abbr[d.month]} {d.year}",
    lambda d: f"{calendar.month_abbr[d.month]} {d.day}, {d.year}",
    lambda d: f"{calendar.day_name[d.weekday()]}, {d.day} {calendar.month_name[d.month]} {d.year}",
    lambda d: f"{_ordinal(d.day)} of {calendar.month_name[d.month]} {d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.day}/{d.month}/{d.year}",
)


def _width() -> int:
    """Steps that any date fits in, so that data made at different times go into one batch."""
    return max(map(len, calendar.day_name)) + max(map(len, calendar.month_name)) + len(", 31  2021")


def adding_problem(samples: int, steps: int, rng: Any = None, dtype: Any = np.float32) -> tuple[Array, Array]:
    """The test of long memory of Hochreiter and Schmidhuber (1997), in the form of Le, Jaitly and Hinton (2015).

    x (N, T, 2): uniform numbers in [0, 1) and, beside them, a 1 at one step of each half and 0 elsewhere. y (N, 1): the
    sum of the two marked numbers. Always answering 1 gives a mean squared error of 1/6 = 0.167.
    """
    N, T = check_size("samples", samples), check_size("steps", steps)
    if T < 2:
        raise ValueError(f"steps: expected at least 2, got {T}")
    rng = as_generator("rng", rng)
    x = np.zeros((N, T, 2), dtype)
    x[:, :, 0] = rng.random((N, T))
    marked = np.stack([rng.integers(0, T // 2, N), rng.integers(T // 2, T, N)], axis=1)
    rows = np.arange(N)[:, None]
    x[rows, marked, 1] = 1
    return x, x[rows, marked, 0].sum(axis=1, keepdims=True)
