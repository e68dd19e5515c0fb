"""Memory and time of one training epoch on one long sequence: plain backpropagation through time against checkpointed.

    python benches/long_sequences.py [--lengths 1000 10000 100000] [--cell lstm] [--head steps]

Letters: T time steps, D input size, H hidden size. N = 1 sequence, D = 16, H = 128, 10 classes. Each line is a process
of its own; "memory" is the growth of its peak resident memory (ru_maxrss) over what it held with x, y and the model
made and a short sequence trained, "seconds" the faster of two epochs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def measure(cell: str, head: str, T: int, every: str | None) -> dict[str, float]:
    import numpy as np

    import fastrnn

    D, H, M = 16, 128, 10
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, T, D), dtype=np.float32)
    y = rng.integers(0, M, (1, T) if head == "steps" else 1)
    pool = [] if head == "steps" else [fastrnn.LastStep(batch_first=True)]
    layer = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[cell]
    model = fastrnn.Sequential(layer(D, H, batch_first=True, rng=0), *pool, fastrnn.Linear(H, M, rng=1))
    trainer = fastrnn.Trainer(model, checkpoint_every=every)
    trainer.fit(x[:, :16].copy(), y[:, :16].copy() if head == "steps" else y, progress=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        trainer.fit(x, y, progress=False)
        seconds.append(time.perf_counter() - begin)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": min(seconds), "megabytes": megabytes, "loss": trainer.history["loss"][1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--cell", default="lstm", choices=["rnn", "gru", "lstm"])
    parser.add_argument(
        "--head", default="steps", choices=["steps", "last"], help="a loss at each step, or at the last"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        T, every = options.one
        print(json.dumps(measure(options.cell, options.head, int(T), None if every == "None" else every)))
        return
    print("| T | plain: s | MB | checkpointed: s | MB | time ratio |\n|---|---|---|---|---|---|")
    for T in options.lengths:
        plain, segments = (
            json.loads(
                subprocess.check_output(
                    [
                        sys.executable,
                        __file__,
                        "--cell",
                        options.cell,
                        "--head",
                        options.head,
                        "--one",
                        str(T),
                        str(every),
                    ]
                )
            )
            for every in (None, "sqrt")
        )
        assert abs(plain["loss"] - segments["loss"]) < 1e-4 * abs(plain["loss"]), (plain, segments)
        print(
            f"| {T:,} | {plain['seconds']:.3f} | {plain['megabytes']:.1f} | {segments['seconds']:.3f} | "
            f"{segments['megabytes']:.1f} | {segments['seconds'] / plain['seconds']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
