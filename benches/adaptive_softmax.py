"""A training step of the last layer of a language model: AdaptiveSoftmax, Linear with cross entropy, and PyTorch's.

    python benches/adaptive_softmax.py [--words 50000] [--width 256] [--rows 2048]

Targets follow Zipf's law, as words do. All take turns; medians of the clock's time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import fastrnn


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("words", 50_000), ("width", 256), ("rows", 2048), ("repeats", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    V, D, R = args.words, args.width, args.rows
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, V + 1)
    x, targets = rng.standard_normal((R, D), np.float32), rng.choice(V, R, p=p / p.sum())
    cutoffs = [2000, 10_000]
    adaptive, linear = fastrnn.AdaptiveSoftmax(D, V, cutoffs, rng=0), fastrnn.Linear(D, V, rng=0)

    def step_adaptive():
        adaptive.zero_grad()
        nll, _ = adaptive.run(x, targets=targets, training=True)
        adaptive.backward(fastrnn.losses.nll(nll, targets)[1])

    def step_linear():
        linear.zero_grad()
        linear.backward(fastrnn.losses.cross_entropy(linear(x, training=True), targets)[1])

    steps = {"AdaptiveSoftmax": step_adaptive, "Linear, cross entropy": step_linear}
    try:
        import torch

        torch.set_num_threads(fastrnn.get_num_threads())
        module = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, cutoffs)
        tx, ty = torch.from_numpy(x), torch.from_numpy(targets)

        def step_torch():
            module.zero_grad()
            a = tx.clone().requires_grad_()
            module(a, ty).loss.backward()

        steps["PyTorch's"] = step_torch
    except ImportError:
        pass
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(args.repeats + 2):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if turn > 1:
                times[name].append(time.perf_counter() - begin)
    first = float(np.median(times["AdaptiveSoftmax"]))
    print(f"V={V:,}, D={D}, {R} rows, {fastrnn.get_num_threads()} threads")
    for name, seconds in times.items():
        median = float(np.median(seconds))
        print(f"{name:22} {1e3 * median:8.1f} ms  {median / first:5.1f} times")


if __name__ == "__main__":
    main()
