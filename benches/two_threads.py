"""What a second thread brings a call, where a second process at its side would bring twice as much work.

    python benches/two_threads.py [--cells LSTM GRU] [--rounds 20] [--seconds 30] [--plans own partitions=2 by_units=1]

On a machine that is shared, two cores are not always there. Each round asks for them first: two processes run a call
each, side by side; where that takes longer than one alone by more than a tenth, before or after, the round is not
counted. In a round the call runs with one thread and with two, after sleeps, so that the scheduler owes both cores.
plans: how two threads share, as `_native.force_plan` takes it; own: the library's choice.

Printed: the median (the least) of one thread's times in us; for each plan how many times as fast two are.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median

import numpy as np

import fastrnn
from fastrnn import _native

SHAPES = ("28,32,28,64", "50,17,30,50", "1000,16,32,32")
SIDE_BY_SIDE = 1.1  # at most so many times as long as alone


def call_of(cell: str, shape: str) -> Callable[[], object]:
    T, N, D, H = map(int, shape.split(","))
    layer = getattr(fastrnn, cell)(D, H, rng=0)
    x = np.random.default_rng(0).standard_normal((T, N, D), dtype=np.float32)
    return lambda: layer(x)


def times(call: Callable[[], object], seconds: float) -> list[float]:
    call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


def neighbour(pipe: Connection) -> None:
    """The second process: runs its call whenever it is asked to."""
    fastrnn.set_num_threads(1)
    call = call_of("LSTM", SHAPES[0])
    while pipe.recv():
        pipe.send(median(times(call, 0.006)))


class Cores:
    """Whether two cores are there."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        context.Process(target=neighbour, args=(other,), daemon=True).start()
        self.call = call_of("LSTM", SHAPES[0])
        fastrnn.set_num_threads(1)
        self.alone = min(min(times(self.call, 0.01)) for _ in range(10))

    def both_there(self) -> bool:
        fastrnn.set_num_threads(1)
        _native.force_plan()
        self.pipe.send(True)
        here = median(times(self.call, 0.006))
        return max(here, self.pipe.recv()) < SIDE_BY_SIDE * self.alone


def run(call: Callable[[], object], threads: int, plan: dict[str, int]) -> list[float]:
    fastrnn.set_num_threads(threads)
    _native.force_plan(**plan)
    taken: list[float] = []
    for _ in range(4):
        time.sleep(0.012)
        taken += times(call, 0.0015)
    return taken


def plan_of(text: str) -> dict[str, int]:
    parts = [] if text == "own" else [part.split("=") for part in text.split(",")]
    return {name: int(value) for name, value in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU"])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,N,D,H")
    parser.add_argument("--plans", nargs="+", default=["own"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30, help="for one call at most")
    args = parser.parse_args()
    cores = Cores()
    for cell in args.cells:
        for shape in args.shapes:
            call = call_of(cell, shape)
            taken: dict[str, list[list[float]]] = {name: [] for name in ["alone", *args.plans]}
            end, tried = time.monotonic() + args.seconds, 0
            while len(taken["alone"]) < args.rounds and time.monotonic() < end:
                tried += 1
                if not cores.both_there():
                    time.sleep(0.05)
                    continue
                turn = {name: run(call, 2, plan_of(name)) for name in args.plans} | {"alone": run(call, 1, {})}
                if cores.both_there():
                    for name, seconds in turn.items():
                        taken[name].append(seconds)
            print(report(f"{cell:5}{shape:16}", taken, tried), flush=True)
    cores.pipe.send(False)


def report(line: str, taken: dict[str, list[list[float]]], tried: int) -> str:
    line += f"{len(taken['alone'])}/{tried} rounds"
    if not taken["alone"]:
        return line
    usual = {name: median(median(turn) for turn in turns) for name, turns in taken.items()}
    least = {name: min(min(turn) for turn in turns) for name, turns in taken.items()}
    line += f" | {usual['alone'] * 1e6:.0f} ({least['alone'] * 1e6:.0f})"
    for name in taken:
        if name != "alone":
            line += f" | {name} {usual['alone'] / usual[name]:.2f} ({least['alone'] / least[name]:.2f})"
    return line


if __name__ == "__main__":
    main()
