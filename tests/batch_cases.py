"""Sequences of differing length, models that read them and how fits compare, for the tests of batches.

Letters: N samples, T time steps, T_i those of sample i, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn.layers import GRU, LastStep, Linear, MaxPool, MeanPool, Module, Sequential
from fastrnn.trainer import Trainer

N, T, D, H, M = 7, 9, 2, 5, 3
LENGTHS = [4, T, 1, 6, 3, 8, 6]


def sequences(lengths: list[int] = LENGTHS, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """x (T_i, D) each, y (T_i,) each, and one class for each."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, D)) for n in lengths]
    return x, [rng.integers(0, M, n) for n in lengths], rng.integers(0, M, len(lengths))


def padded(arrays: list[np.ndarray], fill: float = 0) -> np.ndarray:
    out = np.full((len(arrays), max(map(len, arrays)) + 2, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[: len(array)] = array
    return out


def model(pool: Any = None, *, batch_first: bool = True, bidirectional: bool = False, cell: Any = GRU) -> Sequential:
    width = 2 * H if bidirectional else H
    return Sequential(
        cell(D, H, 2, batch_first=batch_first, bidirectional=bidirectional, dtype="f8", rng=1),
        *([pool(batch_first=batch_first)] if pool else []),
        Linear(width, M, dtype="f8", rng=2),
    )


def trained(trainer: Trainer, *args: Any, **options: Any) -> dict[str, Any]:
    history = trainer.fit(*args, progress=False, **options)
    return {name: values for name, values in history.items() if name not in ("seconds", "samples_per_second")}


def assert_params_close(a: Module, b: Module) -> None:
    for name, param in a.params.items():
        np.testing.assert_allclose(param, b.params[name], rtol=0, atol=1e-11, err_msg=name)


def assert_logs_close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], rtol=1e-10, err_msg=name)


both = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
every_pool = pytest.mark.parametrize("pool", [None, LastStep, MeanPool, MaxPool], ids=["steps", "last", "mean", "max"])
every_layout = pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
