"""Times two builds of fastrnn against each other, in turns: the commit before a change and the one after it.

    python benches/paired.py BEFORE/bin/python AFTER/bin/python

Each interpreter imports the fastrnn of its own environment in a process of its own. The two take turns: a short block
of calls each, of which the median counts, and who begins changes from round to round. So drift of the machine meets
both alike. Entries are the bench's quick shapes, forward and forward+backward, and single steps of a stream.

The table has the median over rounds of both times, and their ratio before / after: above 1 the second build is faster.
Only names that users have are called, so that old commits can take part. It needs nothing but the two environments.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

CELLS = ("lstm", "gru", "rnn")
SEQUENCES = ((28, 1, 28, 64), (28, 32, 28, 64), (100, 32, 64, 128), (200, 1, 512, 512), (1000, 16, 32, 32))
STEPS = ((1, 1, 1, 16), (1, 1, 28, 64))
SMALL = ((1, 1, 24, 32), (63, 1, 24, 32))  # steps of training that Python and checks take most of
MODES = {"forward": SEQUENCES, "forward+backward": (*SMALL, *SEQUENCES), "step": STEPS}
BLOCK = 0.02  # seconds of calls in one turn
PAUSE = 0.005  # seconds between two turns: threads that spin after a call are asleep by then


class Worker:
    """A process of one interpreter, which times what it is told."""

    def __init__(self, python: str, folder: str, threads: int | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        if threads is not None:
            environment["FASTRNN_NUM_THREADS"] = str(threads)
        self.process = subprocess.Popen(
            [os.path.abspath(python), os.path.abspath(__file__), "--worker"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *question: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"paired: error: {self.process.args[0]} ended early")  # type: ignore[index]
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work() -> None:
    """The worker's side: a JSON question per line, a JSON answer per line."""
    import fastrnn

    calls: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        kind, *question = json.loads(line)
        if kind == "about":
            with contextlib.redirect_stdout(io.StringIO()):  # which is for answers alone
                answer: Any = {"folder": os.path.dirname(fastrnn.__file__), **fastrnn.show_config()}
        else:
            key = json.dumps(question)
            if key not in calls:
                calls.clear()  # one problem at a time is kept
                calls[key] = make_call(fastrnn, *question)
            answer = time_block(calls[key])
        print(json.dumps(answer), flush=True)


def make_call(fastrnn: Any, cell: str, mode: str, shape: tuple[int, int, int, int]) -> Callable[[], object]:
    import numpy as np

    T, N, D, H = shape
    rng = np.random.default_rng(0)
    layer = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}[cell](D, H, rng=0)
    x = rng.standard_normal((T, N, D), dtype=np.float32)
    if mode == "step":
        stream, x_t, out = layer.stream(batch_size=N), x[0], np.empty((N, H), np.float32)
        return lambda: stream.step(x_t, out)
    if mode == "forward":
        return lambda: layer(x)
    doutput = rng.standard_normal((T, N, H), dtype=np.float32)

    def train() -> None:
        layer.zero_grad()
        layer(x, training=True)
        layer.backward(doutput)

    return train


def time_block(call: Callable[[], object]) -> float:
    """Median seconds of a call, after one that warms caches and threads."""
    call()
    times = []
    end = time.perf_counter() + BLOCK
    now = 0.0
    while now < end:
        begin = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - begin)
    return median(times)


def compare(before: Worker, after: Worker, rounds: int, cells: list[str], modes: list[str]) -> None:
    print(f"{'cell':5}{'T,N,D,H':18}{'mode':18}{'before':>12}{'after':>12}{'before/after':>14}")
    ratios: dict[str, list[float]] = {}
    for mode in modes:
        for cell in cells:
            for shape in MODES[mode]:
                seconds: tuple[list[float], list[float]] = ([], [])
                for round_ in range(rounds):
                    for which in (0, 1) if round_ % 2 == 0 else (1, 0):
                        time.sleep(PAUSE)
                        seconds[which].append((before, after)[which].ask("time", cell, mode, shape))
                a, b = median(seconds[0]), median(seconds[1])
                ratios.setdefault(mode, []).append(a / b)
                sizes = ",".join(map(str, shape))
                print(f"{cell:5}{sizes:18}{mode:18}{a * 1e6:9.2f} us{b * 1e6:9.2f} us{a / b:14.3f}", flush=True)
    print()
    for mode, found in ratios.items():
        mean = math.exp(sum(map(math.log, found)) / len(found))
        print(f"{mode}: geometric mean {mean:.3f}, least {min(found):.3f}, most {max(found):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time two builds of fastrnn against each other, in turns.")
    parser.add_argument("before", help="the interpreter of the environment that has the old build")
    parser.add_argument("after", help="the interpreter of the environment that has the new build")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each, per entry (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="for both (default: what each chooses)")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="default: all")
    parser.add_argument("--modes", nargs="+", choices=tuple(MODES), default=list(MODES), help="default: all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # holds no folder fastrnn that would be imported instead
        workers = [Worker(python, folder, args.threads) for python in (args.before, args.after)]
        try:
            for name, worker in zip(("before", "after"), workers):
                about = worker.ask("about")
                print(f"{name}: {about['folder']}; {about['isa']}, {about['num_threads']} threads; {about['cpu']}")
            compare(workers[0], workers[1], args.rounds, args.cells, args.modes)
        finally:
            for worker in workers:
                worker.close()


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--worker"] else main()
