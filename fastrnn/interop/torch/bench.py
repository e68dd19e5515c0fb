"""Plain torch beside the same model on fastrnn, end to end: python -m fastrnn.interop.torch.bench

Both run interleaved, each with 1 and with 2 threads; of each the median with its better number of threads counts.
docs/pytorch.md has the table.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from . import accelerate, report

THREADS = (1, 2)


class Tagger(nn.Module):
    """A label for each token: two bidirectional layers of LSTM."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(1000, hidden), nn.Linear(2 * hidden, 20)
        self.rnn = nn.LSTM(hidden, hidden, 2, bidirectional=True, batch_first=True)

    def forward(self, tokens: Any) -> Any:
        return self.output(self.rnn(self.embedding(tokens))[0]).flatten(0, 1)


class Classifier(nn.Module):
    """A label for each sequence: the last state of a GRU."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(1000, hidden), nn.Linear(hidden, 20)
        self.rnn = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, tokens: Any) -> Any:
        return self.output(self.rnn(self.embedding(tokens))[1][-1])


def _training(model: nn.Module, N: int = 32, T: int = 60) -> Callable[[], Any]:
    """One step of the whole training loop, Adam included."""
    torch.manual_seed(1)
    tokens = torch.randint(1000, (N, T))
    targets = (tokens % 20).flatten() if isinstance(model, Tagger) else tokens[:, 3] % 20
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), targets).backward()
        optimizer.step()

    return step


def _calls(model: nn.Module, *shape: int) -> Callable[[], Any]:
    """Inference with carried state."""
    state: Any = None
    x = torch.randn(*shape)

    def step() -> None:
        nonlocal state
        with torch.no_grad():
            result = model(x, state)
            state = result[1] if isinstance(model, nn.RNNBase) else result

    return step


def _cases() -> list[tuple[str, nn.Module, Callable[[nn.Module], Callable[[], Any]]]]:
    cases: list[tuple[str, nn.Module, Callable]] = [
        ("LSTM tagger, training, H=128 N=32 T=60", Tagger(), _training),
        ("GRU classifier, training, H=128 N=32 T=60", Classifier(), _training),
    ]
    for name in ("LSTM", "GRU"):
        for H in (64, 256):
            cell = getattr(nn, f"{name}Cell")(H, H)
            cases.append((f"{name}Cell, N=1 H={H}", cell, lambda m, H=H: _calls(m, 1, H)))
    for name, H in (("LSTM", 64), ("LSTM", 256), ("LSTM", 1024), ("GRU", 64), ("GRU", 256), ("RNN", 64)):
        module = getattr(nn, name)(H, H)
        cases.append((f"{name}, T=1 N=1 H={H}", module, lambda m, H=H: _calls(m, 1, 1, H)))
    return cases


def compare(theirs: Callable[[], Any], ours: Callable[[], Any], seconds: float = 5.0) -> tuple[float, float]:
    """The median of each with its better number of threads, in us, over interleaved turns."""
    times: dict[Any, list[float]] = {(step, threads): [] for step in (theirs, ours) for threads in THREADS}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for threads in THREADS:
            torch.set_num_threads(threads)
            for step in (theirs, ours):
                step()
                for _ in range(20):
                    start = time.perf_counter()
                    step()
                    times[step, threads].append(time.perf_counter() - start)
    medians = [min(statistics.median(times[step, threads]) for threads in THREADS) for step in (theirs, ours)]
    return medians[0] * 1e6, medians[1] * 1e6


def main() -> None:
    print("| program | torch, us | fastrnn, us | times as fast | taken |\n|---|---|---|---|---|")
    for name, model, make in _cases():
        twin = copy.deepcopy(model)
        accelerate(twin)
        report(reset=True)
        theirs, ours = compare(make(model), make(twin))
        taken = "yes" if report().taken else "no"
        print(f"| {name} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.2f} | {taken} |", flush=True)


if __name__ == "__main__":
    main()
