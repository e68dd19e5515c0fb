"""Checks of the trainer's arguments. Each raises one error that names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_size
from ..layers import Module
from ..layers.stacked import RecurrentLayer
from ..layers.tree import TreeLayer
from .callbacks import Callback
from .data import Data


def check_whole_batches(data: Data, batch_size: int) -> None:
    if len(data) % batch_size:
        raise ValueError(
            f"x: expected whole batches of {batch_size}, as sample i of one goes on in the next, got {len(data)} "
            "samples"
        )


def check_steps(data: Data, keeps_time: bool) -> None:
    if data.T is None:
        raise ValueError(f"x: expected sequences (N, T, ...), got shape {data.x.shape}")
    if keeps_time and isinstance(data.y, np.ndarray) and data.y.shape[1:2] != (data.T,):
        raise ValueError(f"y: expected a target at each step, ({len(data)}, {data.T}, ...), got shape {data.y.shape}")


def check_tbptt(tbptt: Any) -> tuple[int, int] | None:
    if tbptt is None:
        return None
    if not isinstance(tbptt, (tuple, list)):
        tbptt = (tbptt, tbptt)
    if len(tbptt) != 2:
        raise ValueError(f"tbptt: expected k or (k1, k2), got {tbptt!r}")
    k1, k2 = (check_size("tbptt", k) for k in tbptt)
    if k2 < k1:
        raise ValueError(f"tbptt: expected (k1, k2) with k2 of at least k1, so that each step counts, got {(k1, k2)}")
    return k1, k2


def check_model(model: Any) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a layer such as Sequential, got {type(model).__name__}")
    if isinstance(model, RecurrentLayer):
        got = type(model).__name__
        raise TypeError(f"model: expected a layer that returns one array, got {got}; put it in a Sequential")
    for layer in model.leaves():
        if isinstance(layer, TreeLayer):
            raise TypeError(
                f"model: expected layers that read arrays, got {type(layer).__name__}, which takes trees with each call: "
                "an optimizer trains it, step(layer.params, layer.grads)"
            )


def check_targets(y: Any) -> None:
    if y is None:
        raise ValueError("y: expected one target per sample of x, got None")


def check_callbacks(callbacks: Any) -> list[Callback]:
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks: expected a list of Callback objects, got {type(callbacks).__name__}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected Callback objects, got {type(callback).__name__}")
    return list(callbacks)


def check_every(every: Any) -> int | str | None:
    if every is None or (isinstance(every, str) and every == "sqrt"):
        return every
    if isinstance(every, str):
        raise ValueError(f"checkpoint_every: expected a number of steps or 'sqrt', got {every!r}")
    return check_size("checkpoint_every", every)


def check_limit(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not value > 0:
        raise ValueError(f"{name}: expected None or a number above 0, got {value!r}")
    return float(value)
