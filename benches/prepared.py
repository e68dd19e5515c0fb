"""What `layer.prepare()` is worth: short calls with packed weights, without, and PyTorch's, in turns in one process.

    python benches/prepared.py [--threads N]

Letters: T time steps, N batch, H hidden_size = D input_size.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from typing import Any

import numpy as np

import fastrnn

ROUNDS = 21


def seconds(call: Any) -> float:
    begin = time.perf_counter()
    for _ in range(10):
        call()
    return (time.perf_counter() - begin) / 10


def contenders(cell: str, T: int, N: int, H: int) -> dict[str, Any]:
    plain, prepared = (getattr(fastrnn, cell)(H, H, rng=0) for _ in range(2))
    prepared.prepare()
    x = np.random.default_rng(0).standard_normal((T, N, H), dtype=np.float32)
    assert np.array_equal(plain(x)[0], prepared(x)[0])
    calls = {"plain": lambda: plain(x), "prepared": lambda: prepared(x)}
    if importlib.util.find_spec("torch") is not None:
        import torch

        module = getattr(torch.nn, cell)(H, H)
        tensor = torch.from_numpy(x)
        torch.set_grad_enabled(False)
        calls["torch"] = lambda: module(tensor)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    fastrnn.set_num_threads(threads)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    print(f"{fastrnn.runtime.config()['cpu']}, {threads} thread(s); medians of {ROUNDS} rounds, us a call")
    print(f"{'cell':5} {'T':>3} {'N':>3} {'H':>4}  {'prepared':>9} {'plain':>9} {'torch':>9}  plain/prep. torch/prep.")
    for cell in ("LSTM", "GRU", "RNN"):
        for H in (64, 128, 256, 512):
            for T, N in ((1, 1), (4, 1), (16, 1), (1, 4)):
                calls = contenders(cell, T, N, H)
                times: dict[str, list[float]] = {name: [] for name in calls}
                for _ in range(ROUNDS):
                    for name, call in calls.items():
                        times[name].append(seconds(call))
                us = {name: 1e6 * statistics.median(values) for name, values in times.items()}
                torch_us = us.get("torch", float("nan"))
                print(
                    f"{cell:5} {T:3} {N:3} {H:4}  {us['prepared']:9.1f} {us['plain']:9.1f} {torch_us:9.1f}  "
                    f"{us['plain'] / us['prepared']:11.2f} {torch_us / us['prepared']:11.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
