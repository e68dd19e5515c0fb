"""How contenders are timed: in turns, within one process, so that drift of the machine meets all of them alike.

A round gives each contender one turn: a pause, then a block of calls of which the median counts. The pause matters
because every library has threads that spin for a while after a call, and would run into the next one's turn. The
order turns round every round. A time is the median over rounds; a ratio is the median of the ratios within rounds.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    rounds: turns that each contender gets, unless its `budget` (seconds spent in its calls) is used up before; then it
    keeps what it has, at least `least_rounds`. block: seconds of calls in one turn. max_repeats: calls in one turn at
    most. pause: seconds of sleep ahead of each turn.
    """

    rounds: int = 6
    least_rounds: int = 3
    budget: float = 1.0
    block: float = 0.02
    max_repeats: int = 500
    pause: float = 0.015


FULL = Plan()
QUICK = Plan(rounds=4, least_rounds=1, budget=0.6, block=0.015)


def measure(
    calls: Mapping[str, Callable[[], object]],
    plan: Plan = FULL,
    *,
    settling: Mapping[str, float] | None = None,
    before: Callable[[str], object] = lambda name: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds per call of each contender, one number per round, in the order of the rounds.

    A contender that uses up its budget drops out of the later rounds, so its list may be the shorter one: entry k is
    round k for all. The garbage collector is off meanwhile. settling: seconds to sleep between a contender's turn and
    another's, where its threads spin for longer than the plan's pause. before(name) is called ahead of each turn.
    """
    settling = settling or {}
    previous = ""
    blocks: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    order = list(calls)
    with _no_garbage_collection():
        for _ in range(plan.rounds):
            for name in order:
                if len(blocks[name]) >= plan.least_rounds and spent[name] >= plan.budget:
                    continue
                sleep(plan.pause if name == previous else max(plan.pause, settling.get(previous, 0.0)))
                previous = name
                before(name)
                begin = clock()
                blocks[name].append(_time_block(calls[name], plan, clock))
                spent[name] += clock() - begin
            order = _next_order(order)
    return blocks


def _next_order(order: list[str]) -> list[str]:
    """Another one for the next round, which does not begin with who was last: what disturbs the machine for two turns
    in a row disturbs two contenders."""
    half = len(order) // 2
    return [*order[half:], *order[:half]][::-1]


def _time_block(call: Callable[[], object], plan: Plan, clock: Callable[[], float]) -> float:
    """Median seconds of a block of calls. The first one warms caches and threads, and counts only if it is long."""
    begin = clock()
    call()
    first = clock() - begin
    if first >= plan.block:
        return first
    times: list[float] = []
    end = begin + first + plan.block
    while len(times) < plan.max_repeats:
        begin = clock()
        call()
        now = clock()
        times.append(now - begin)
        if now >= end:
            break
    return median(times)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as long they take: the median over the rounds that both took part in."""
    return median(t / o for t, o in zip(theirs, ours))  # the shorter one dropped out: the common rounds come first


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
