"""Data and models that the trainer's tests share.

Letters: N samples, T time steps, V vocabulary, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import Trainer
from fastrnn.layers import GRU, LSTM, Embedding, LastStep, Linear, Module, Sequential
from fastrnn.trainer.callbacks import Callback

TIMES = ("seconds", "samples_per_second")


def sign_of_sum(N: int, T: int = 8, seed: int = 0, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """x (N, T, 1) and whether its sum is above zero."""
    x = np.random.default_rng(seed).standard_normal((N, T, 1)).astype(dtype)
    return x, (x.sum(axis=(1, 2)) > 0).astype(np.int64)


def echo(N: int, T: int = 10, V: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (N, T) and, at each step, the token of the step before; nothing to tell (-100) at the first."""
    x = np.random.default_rng(seed).integers(0, V, (N, T))
    y = np.full((N, T), -100)
    y[:, 1:] = x[:, :-1]
    return x, y


def classifier(cell: Any = LSTM, *, H: int = 12, batch_first: bool = False, seed: int = 1) -> Sequential:
    return Sequential(
        cell(1, H, batch_first=batch_first, rng=seed), LastStep(batch_first=batch_first), Linear(H, 2, rng=seed)
    )


def tagger(*, V: int = 4, H: int = 12, batch_first: bool = False, dtype: Any = np.float32) -> Sequential:
    return Sequential(
        Embedding(V, 5, rng=1, dtype=dtype),
        GRU(5, H, batch_first=batch_first, rng=2, dtype=dtype),
        Linear(H, V, rng=3, dtype=dtype),
    )


def fit(trainer: Trainer, x: Any, y: Any, *, epochs: int = 1, batch_size: int = 64, **options: Any) -> Trainer:
    """The same trainer, fitted in silence and in the order of the samples."""
    trainer.fit(x, y, epochs=epochs, batch_size=batch_size, progress=False, shuffle=False, **options)
    return trainer


def numbers(history: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in history.items() if name not in TIMES}


def assert_same_params(a: Module, b: Module) -> None:
    assert list(a.params) == list(b.params)
    for name, param in a.params.items():
        np.testing.assert_array_equal(param, b.params[name], err_msg=name)


class Recorder(Callback):
    """Notes what happened, in order, and the logs of batches and epochs."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.batches: list[dict[str, float]] = []
        self.epochs: list[dict[str, float]] = []

    def on_fit_begin(self, trainer):
        self.events.append("fit")

    def on_epoch_begin(self, trainer, epoch):
        self.events.append(f"epoch {epoch}")

    def on_batch_end(self, trainer, batch, logs):
        self.events.append(f"batch {batch}")
        self.batches.append(logs)

    def on_epoch_end(self, trainer, epoch, logs):
        assert trainer.history.epoch(-1) == logs
        self.events.append(f"end {epoch}")
        self.epochs.append(logs)

    def on_fit_end(self, trainer):
        self.events.append("done")
