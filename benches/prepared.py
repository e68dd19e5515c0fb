"""What weights that stay packed are worth: short calls, in turns in one process.

    python benches/prepared.py [--threads N] [--trees]

kept: `layer(x)` from its second call on. held: the same while somebody holds an array of the parameters, so that each
call takes a checksum of them. prepared: after `layer.prepare()`. packing: `layer.release()` before each call. torch:
torch.nn, under no_grad. --trees: instead of sequences one tree at a time, T its nodes.

Letters: T time steps, N batch, H hidden_size = D input_size.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from typing import Any

import numpy as np

import fastrnn

ROUNDS, BLOCK = 31, 3e-4  # seconds of a turn: longer ones are interrupted where the machine has other work


def seconds(call: Any, block: float = BLOCK) -> float:
    """Of one call, in a turn of so many seconds."""
    call()  # who had the turn before has the caches
    count, begin = 0, time.perf_counter()
    while True:
        call()
        count, now = count + 1, time.perf_counter()
        if now - begin > block:
            return (now - begin) / count


def contenders(cell: str, T: int, N: int, H: int) -> dict[str, Any]:
    kept, held, prepared, packing = (getattr(fastrnn, cell)(H, H, rng=0) for _ in range(4))
    prepared.prepare()
    arrays = [*held.params.values()]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, N, H), dtype=np.float32)
    given: Any = (x,)
    if cell.startswith("Tree"):
        parents = [[min(T - 1, node + int(rng.integers(1, 4))) for node in range(T - 1)] + [-1]]
        given = x[:, 0], fastrnn.Trees(parents)

    def pack() -> Any:
        packing.release()
        return packing(*given)

    def hold() -> Any:
        assert arrays
        return held(*given)

    calls = {"kept": lambda: kept(*given), "held": hold, "prepared": lambda: prepared(*given), "packing": pack}
    for call in calls.values():
        assert np.array_equal(call()[0], kept(*given)[0])
    if not cell.startswith("Tree") and importlib.util.find_spec("torch") is not None:
        import torch

        module = getattr(torch.nn, cell)(H, H)
        tensor = torch.from_numpy(x)
        torch.set_grad_enabled(False)
        calls["torch"] = lambda: module(tensor)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trees", action="store_true")
    told = parser.parse_args()
    threads = told.threads
    fastrnn.set_num_threads(threads)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    cpu = fastrnn.runtime.config()["cpu"]
    print(f"{cpu}, {threads} thread(s); best of {ROUNDS} rounds, us a call; below, over kept's")
    names = ("kept", "held", "prepared", "packing", "torch")
    print(f"{'cell':8} {'T':>3} {'N':>3} {'H':>4}  {'':3}" + "".join(f"{name:>10}" for name in names))
    for cell in ("TreeLSTM", "TreeRNN") if told.trees else ("LSTM", "GRU", "RNN"):
        for H in (64, 128, 256, 512):
            for T, N in ((1, 1), (9, 1), (40, 1)) if told.trees else ((1, 1), (4, 1), (16, 1), (1, 4)):
                calls = contenders(cell, T, N, H)
                times: dict[str, list[float]] = {name: [] for name in calls}
                for round_ in range(ROUNDS):
                    for name in list(calls)[:: 1 if round_ % 2 else -1]:
                        times[name].append(seconds(calls[name]))
                us = {name: 1e6 * min(times.get(name, [float("nan")])) for name in names}
                line = f"{cell:8} {T:3} {N:3} {H:4}  "
                print(f"{line}{'us':3}" + "".join(f"{us[name]:10.1f}" for name in names))
                rest = "".join(f"{us[name] / us['kept']:10.2f}" for name in names)
                print(f"{'':{len(line)}}{'':3}{rest}", flush=True)


if __name__ == "__main__":
    main()
