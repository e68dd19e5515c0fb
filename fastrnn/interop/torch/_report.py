"""How many calls the kernels took, how many fell back to torch's own code, and why.

Design: most reasons concern a call, and programs live on them: these are counted in silence. Those of ADVICE concern a
whole program, which runs as if it had no fastrnn: of each one warning, once in a process.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import NamedTuple

import torch

ADVICE = {
    "autocast": "call it under torch.autocast('cpu', enabled=False) to have it on fastrnn",
    "torch.export": "what is exported runs without fastrnn",
    "torch.compile of a cell": "keep torch.compile from it (torch.compiler.disable) to have it on fastrnn",
    "torch.compile of a PackedSequence": "keep torch.compile from it (torch.compiler.disable) to have it on fastrnn",
    "a torch mode is active": "modes, as FakeTensorMode or torch.device(...) as a context, see torch's operations only",
    "a torch.func transform": "vmap, grad and their like need torch's own operations",
}
taken: Counter[str] = Counter()
fallen_back: Counter[tuple[str, str]] = Counter()


_warned: set[str] = set()


def fell_back(name: str, reason: str) -> None:
    """Count a call that torch computes, and warn if it is the first for a reason of ADVICE."""
    fallen_back[name, reason] += 1
    if reason in ADVICE and reason not in _warned:
        warn_once(name, reason)


@torch.compiler.assume_constant_result  # torch.compile calls it while it makes its graph, not in the graph
def warn_once(name: str, reason: str) -> None:
    if reason in ADVICE and reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f"fastrnn.interop.torch: {name} runs in torch's own code, because of {reason}: {ADVICE[reason]}. "
            "Said once; report() counts the calls.",
            stacklevel=2,
        )


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
