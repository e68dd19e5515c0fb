"""The dispatcher's own choice against every choice that can be forced on it.

A plan is a number of threads, how they share the work (by hidden units with a barrier each step, or by batch rows), and
whether the input projection runs fused with the recurrent product or ahead of it. With one thread nothing is shared.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import fastrnn
from fastrnn import _native
from fastrnn.bench.measure import Plan, measure, ratio
from fastrnn.bench.peers import FastRNN, make_problem
from fastrnn.bench.shapes import SEQUENCE_MODES, Shape
from fastrnn.bench.table import SHORT

OWN = "own choice"
ALLOWED = 1.05  # slower than the best forced plan by more than this: a case for the dispatcher's rules
PLAN = Plan(rounds=7, least_rounds=3, budget=1.0, block=0.02, pause=0.002)  # one library: nobody to wait for


def forced_plans(num_threads: int) -> dict[str, dict[str, Any]]:
    """Name -> arguments of _native.force_plan, for every plan that differs from the others."""
    plans: dict[str, dict[str, Any]] = {}
    for fused, pass_name in ((True, "fused"), (False, "ahead")):
        plans[f"1 {pass_name}"] = {"threads": 1, "by_units": False, "fused": fused}
    for by_units, share in ((False, "rows"), (True, "units")) if num_threads > 1 else ():
        for fused, pass_name in ((True, "fused"), (False, "ahead")):
            plans[f"{num_threads} {share} {pass_name}"] = {"threads": num_threads, "by_units": by_units, "fused": fused}
    return plans


@dataclass(frozen=True)
class Choice:
    """One cell, shape and mode. seconds: plan -> seconds per call in each round, the dispatcher's under OWN.

    again: the same once more, of OWN and the plan that was faster by more than ALLOWED, if one was. The fastest of
    several was lucky too; measured anew it has nothing but its merits.
    """

    cell: str
    shape: Shape
    mode: str
    seconds: dict[str, list[float]]
    again: dict[str, list[float]] | None = None

    def ratio(self, plan: str) -> float:
        """How many times as long as the own choice a forced plan takes."""
        return ratio(self.seconds[plan], self.seconds[OWN])

    def best(self) -> str:
        """The forced plan that was the fastest."""
        return min((plan for plan in self.seconds if plan != OWN), key=self.ratio)

    def loss(self) -> float:
        """Time of the own choice over that of the best forced plan, as measured last; 1 if the choice is the best."""
        seconds = self.again or self.seconds
        return 1 / ratio(seconds[self.best()], seconds[OWN])


def measure_choice(cell: str, shape: Shape, mode: str, plan: Plan = PLAN, **options: Any) -> Choice:
    """Time the own choice and every forced plan in turns, and what beat it once more. options: for `measure`."""
    call = FastRNN(make_problem(cell, shape)).call(mode)
    plans = forced_plans(fastrnn.get_num_threads())

    def before(name: str) -> None:
        _native.force_plan(**plans.get(name, {}))

    def timed(names: Iterable[str]) -> dict[str, list[float]]:
        return measure(dict.fromkeys(names, call), plan, before=before, **options)

    with _own_choice_afterwards():
        choice = Choice(cell, shape, mode, timed([OWN, *plans]))
        return replace(choice, again=timed([OWN, choice.best()])) if choice.loss() > ALLOWED else choice


def run_dispatch(
    cells: Iterable[str],
    shapes: Sequence[Shape],
    modes: Sequence[str] = SEQUENCE_MODES,
    *,
    plan: Plan = PLAN,
    on_choice: Callable[[Choice], object] = lambda choice: None,
) -> list[Choice]:
    """Every cell, shape and mode; on_choice(choice) is called as soon as one is measured."""
    choices = []
    for cell in cells:
        for shape in shapes:
            for mode in modes:
                choices.append(measure_choice(cell, shape, mode, plan))
                on_choice(choices[-1])
    return choices


@contextmanager
def _own_choice_afterwards() -> Iterator[None]:
    try:
        yield
    finally:
        _native.force_plan()


def format_head(num_threads: int) -> str:
    plans = forced_plans(num_threads)
    line = f"{'cell':5}{'T,N,D,H':20}{'mode':5}|{'own ms':>10}{'/best':>7} |"
    line += "".join(f"{plan:>{_width(plan)}}" for plan in plans) + " | best"
    return "\n".join(
        [
            "own: the dispatcher's choice; /best: its time over that of the best forced plan, measured anew where that",
            f"was faster by more than {ALLOWED - 1:.0%}; then each forced plan's time as a multiple of the own one's:",
            "threads, sharing by rows or units, input projection fused or ahead",
            "",
            line,
            "-" * len(line),
        ]
    )


def format_row(choice: Choice) -> str:
    own = median(choice.seconds[OWN])
    line = f"{choice.cell:5}{choice.shape!s:20}{SHORT[choice.mode]:5}|{own * 1e3:10.3f}{choice.loss():7.2f} |"
    for plan in choice.seconds:
        if plan != OWN:
            line += f"{choice.ratio(plan):>{_width(plan)}.2f}"
    return line + f" | {choice.best()}" + (" <--" if choice.loss() > ALLOWED else "")


def format_summary(choices: Sequence[Choice]) -> str:
    within = sum(choice.loss() <= ALLOWED for choice in choices)
    worst = max(choices, key=Choice.loss)
    return (
        f"own choice within {ALLOWED - 1:.0%} of the best forced plan on {within} of {len(choices)}; worst "
        f"{worst.loss():.2f} ({worst.cell} {worst.shape} {worst.mode})"
    )


def _width(plan: str) -> int:
    return len(plan) + 2
