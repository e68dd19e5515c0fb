"""Checks of the trainer's arguments. Each raises one error that names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Module
from ..layers.module import Layout
from .bptt import check_runs_in_pieces
from .callbacks import Callback
from .data import Data
from .objective import Objective


def check_whole_batches(data: Data, batch_size: int) -> None:
    if len(data) % batch_size:
        raise ValueError(
            f"x: expected whole batches of {batch_size}, as sample i of one goes on in the next, got {len(data)} "
            "samples"
        )


def check_steps(data: Data, per_step: bool) -> None:
    if data.T is None:
        raise ValueError(f"x: expected sequences (N, T, ...), got shape {data.x.shape}")
    if per_step and isinstance(data.y, np.ndarray) and data.y.shape[1:2] != (data.T,):
        raise ValueError(f"y: expected a target at each step, ({len(data)}, {data.T}, ...), got shape {data.y.shape}")


def check_rows(rows: int | None, batch_size: int) -> None:
    if rows not in (None, batch_size):
        raise ValueError(
            f"batch_size: expected {rows} like the state that is carried on, got {batch_size}; "
            "reset_states() begins anew"
        )


def check_learns_online(model: Module, objective: Objective) -> None:
    """Refuse a model or a loss that cannot learn from one step at a time."""
    check_runs_in_pieces("partial_fit", model)
    for layer in model.flatten():
        if not layer.time.in_y and not layer.takes_newest:
            got = type(layer).__name__
            raise ValueError(f"partial_fit: expected a model with an output at each step, got one with {got}")
    if not objective.per_step:
        raise ValueError("partial_fit: expected a loss of single steps, got ctc, which is one of whole sequences")


def check_pieces(
    model: Module, stateful: bool, tbptt: tuple[int, int] | None, every: int | str | None, objective: Objective
) -> None:
    """Refuse options for long sequences that the model cannot follow, or that exclude one another."""
    if not objective.per_step:
        if not model.time.in_y:
            raise ValueError("loss: expected a model with an output at every step for ctc, got one without")
        if tbptt is not None:
            raise ValueError("tbptt: expected None with ctc, a loss of whole sequences; checkpoint_every bounds memory")
    if stateful:
        check_runs_in_pieces("stateful", model)
        if "state" not in model.accepts:
            raise ValueError("stateful: expected a model with a layer that has a state, got one without")
    if tbptt is not None:
        check_runs_in_pieces("tbptt", model)
        if not model.time.in_y:
            raise ValueError(
                "tbptt: expected a model with an output at every step, got one that does away with time; "
                "checkpoint_every trains it in bounded memory"
            )
        if every is not None:
            raise ValueError("checkpoint_every: expected None beside tbptt, which bounds the memory already")


def check_model(model: Any) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a layer such as Sequential, got {type(model).__name__}")
    model.check_trainable()


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


def features_dtype(model: Module) -> np.dtype[Any] | None:
    """The dtype that x is converted to; None where the model reads tokens or anything."""
    for layer in model.flatten():
        if layer.reads == "features":
            return getattr(layer, "dtype", None)
        if layer.reads is not None or layer.needs_targets:
            return None
    return None


def check_axes(data: Data, model: Module) -> None:
    """Refuse x without an axis of time for a model that reads one: each batch would be taken for one long series."""
    reads = next((layer.reads for layer in model.flatten() if layer.reads is not None or layer.needs_targets), None)
    if reads is None or model.layout is Layout.ANY or not model.time.in_x:
        return
    if data.ragged:
        axes, shape, first = 2, "(T_i, D)", data.x[0]
        hint = "x_i[:, None] for series of one feature"
    else:
        axes, shape, first = 3, "(N, T, D)", data.x
        hint = "x[None] for one series, x[:, None] for samples of one step, x[..., None] for series of one feature"
    if reads == "tokens":
        axes, shape, hint = (
            axes - 1,
            shape.replace(", D", ""),
            "x[None] for one sequence, x[:, None] for samples of one token",
        )
    if first.ndim < axes:
        raise ValueError(f"x: expected sequences {shape}, got shape {first.shape}; write {hint}")


def names_of_logs(objective: Objective, validates: bool) -> tuple[str, ...]:
    """What callbacks will find in their logs."""
    names = ("loss", *objective.metrics)
    more = tuple(f"val_{name}" for name in names) if validates else ()
    return (*names, "seconds", "samples_per_second", *more)
