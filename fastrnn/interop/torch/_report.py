"""How many calls the kernels took, how many fell back to torch's own code, and why."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

taken: Counter[str] = Counter()
fallen_back: Counter[tuple[str, str]] = Counter()


class Report(NamedTuple):
    taken: dict[str, int]  # calls by class
    fallen_back: dict[tuple[str, str], int]  # calls by class and reason

    def __str__(self) -> str:
        lines = [f"{count:8d} {name} on fastrnn" for name, count in self.taken.items()]
        lines += [f"{count:8d} {name} in torch: {reason}" for (name, reason), count in self.fallen_back.items()]
        return "\n".join(lines) or "no recurrent module was called"


def report(*, reset: bool = False) -> Report:
    """The counts since the import, or since the last report with reset=True."""
    result = Report(dict(taken), dict(fallen_back))
    if reset:
        taken.clear()
        fallen_back.clear()
    return result
