"""Many streams of one model: a pool against streams of their own, frames per second and how long a frame waits.

    python benches/streams.py [--streams 1000] [--cell GRU] [--hidden 128] [--layers 2] [--threads N]

Every stream gets one frame a turn, all at once. pool: one `StreamPool.step` for all of them. streams: a `step` of each,
one after the other, weights shared. copies: the same where each has weights of its own, as before they shared them.
torch: `torch.nn`'s module, one call a stream with T = 1 and its state, under no_grad (with --torch).

A frame's latency is from the begin of the turn to when its own output is there; p99 is that of 99 frames in 100.

Letters: D input_size = H hidden_size.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastrnn


class Contender:
    """One way to give each of `count` streams its next frame; `turn` yields when outputs are there, and of how many."""

    def __init__(self, name: str, turn: Callable[[], Iterator[int]]) -> None:
        self.name, self.turn = name, turn
        self.seconds: list[float] = []
        self.latencies: list[np.ndarray] = []

    def run(self) -> None:
        begin, latencies = time.perf_counter(), []
        for count in self.turn():
            latencies += [time.perf_counter() - begin] * count
        self.seconds.append(time.perf_counter() - begin)
        self.latencies.append(np.array(latencies))


def contenders(args: argparse.Namespace) -> list[Contender]:
    model = getattr(fastrnn, args.cell)(args.hidden, args.hidden, args.layers, rng=0)
    x = np.random.default_rng(0).standard_normal((args.streams, args.hidden), dtype=np.float32)
    pool = fastrnn.StreamPool(model, args.streams)
    frames = {pool.open(): x_t for x_t in x}
    shared = [model.stream() for _ in range(args.streams)]
    copies = [copy.deepcopy(model).stream() for _ in range(args.streams)]

    def by_pool() -> Iterator[int]:
        pool.step(frames)
        yield args.streams

    def one_by_one(streams: list[Any]) -> Callable[[], Iterator[int]]:
        def turn() -> Iterator[int]:
            for stream, x_t in zip(streams, x):
                stream.step(x_t)
                yield 1

        return turn

    expected = np.stack([stream.step(x_t) for stream, x_t in zip(shared, x)])
    assert np.array_equal(np.stack(list(pool.step(frames).values())), expected)
    found = [Contender("pool", by_pool), Contender("streams", one_by_one(shared))]
    found.append(Contender("copies", one_by_one(copies)))
    if args.torch:
        import torch

        torch.set_num_threads(args.threads)
        torch.set_grad_enabled(False)
        module = getattr(torch.nn, args.cell)(args.hidden, args.hidden, args.layers)
        states: list[Any] = [None] * args.streams
        tensors = list(torch.from_numpy(x)[:, None, None])

        def by_torch() -> Iterator[int]:
            for k, x_t in enumerate(tensors):
                _, states[k] = module(x_t, states[k])
                yield 1

        found.append(Contender("torch", by_torch))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--cell", choices=("RNN", "GRU", "LSTM"), default="GRU")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads())
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--torch", action="store_true", help="with PyTorch, at as many threads")
    args = parser.parse_args()
    fastrnn.set_num_threads(args.threads)
    taking_part = contenders(args)
    for turn in range(args.turns):
        for contender in taking_part[:: 1 if turn % 2 else -1]:
            contender.run()
    cpu = fastrnn.runtime.config()["cpu"]
    of = f"{args.streams} streams of {args.layers} layers {args.cell}, D = H = {args.hidden}"
    print(f"{cpu}, {args.threads} thread(s): {of}")
    print(
        f"{'':10}{'frames/s':>12}{'of best turn':>14}{'us a frame':>12}{'p50 ms':>9}{'p99 ms':>9}{'pool is faster':>16}"
    )
    pool = np.array(taking_part[0].seconds)
    for contender in taking_part:
        seconds, waits = np.array(contender.seconds), np.concatenate(contender.latencies) * 1e3
        middle, best = np.median(seconds) / args.streams, seconds.min() / args.streams
        print(
            f"{contender.name:10}{1 / middle:12.0f}{1 / best:14.0f}{1e6 * middle:12.2f}"
            f"{np.percentile(waits, 50):9.2f}{np.percentile(waits, 99):9.2f}{np.median(seconds / pool):16.2f}"
        )


if __name__ == "__main__":
    main()
