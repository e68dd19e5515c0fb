"""Learning rates over time: functions of a count from 0, of epochs or of updates, for `LearningRateSchedule`.

    LearningRateSchedule(schedules.cosine(1e-3, total=1000, warmup=100), per="update")

Each is what PyTorch's scheduler of the same kind gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._validate import check_not_negative, check_positive, check_size

Schedule = Callable[[int], float]


def step(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """lr, multiplied by `factor` after each `every`: StepLR."""
    lr, factor, every = check_not_negative("lr", lr), check_not_negative("factor", factor), check_size("every", every)
    return lambda count: lr * factor ** (count // every)


def exponential(lr: float, *, factor: float) -> Schedule:
    """lr factor^count: ExponentialLR."""
    lr, factor = check_not_negative("lr", lr), check_not_negative("factor", factor)
    return lambda count: lr * factor**count


def cosine(lr: float, *, total: int, end: float = 0.0, warmup: int = 0) -> Schedule:
    """From lr down to `end` along half a cosine, at which it stays from `total` on: CosineAnnealingLR (Loshchilov and
    Hutter 2017, SGDR). warmup: how many of `total` it first rises, linearly from 0."""
    lr, end, total = check_not_negative("lr", lr), check_not_negative("end", end), check_size("total", total)
    steps = check_size("warmup", warmup, least=0)
    if steps >= total:
        raise ValueError(f"warmup: expected less than the total of {total}, got {warmup}")

    def decay(count: int) -> float:
        return end + (lr - end) * (1 + math.cos(math.pi * min(count / (total - steps), 1.0))) / 2

    return warm_up(decay, over=steps) if steps else decay


def warm_up(schedule: Schedule, *, over: int) -> Schedule:
    """First rise linearly for `over` counts, from 0 to where `schedule` begins, then follow that."""
    steps = check_size("over", over)
    return lambda count: schedule(0) * count / steps if count < steps else schedule(count - steps)


def constant(lr: float) -> Schedule:
    lr = check_not_negative("lr", lr)
    return lambda count: lr


def one_cycle(
    max_lr: float, *, total: int, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """From max_lr / start_factor up to max_lr in the first part `rise` of `total`, then down to that start over
    end_factor, along half cosines: OneCycleLR (Smith and Topin 2019, Super-convergence)."""
    max_lr, total = check_positive("max_lr", max_lr), check_size("total", total, least=2)
    start = max_lr / check_positive("start_factor", start_factor)
    end = start / check_positive("end_factor", end_factor)
    if not 0 < rise < 1:
        raise ValueError(f"rise: expected a number in (0, 1), got {rise!r}")
    top = rise * total - 1

    def between(a: float, b: float, part: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * part))

    def rate(count: int) -> float:
        count = min(count, total - 1)
        if count <= top:
            return between(start, max_lr, count / top)
        return between(max_lr, end, (count - top) / (total - 1 - top))

    return rate
