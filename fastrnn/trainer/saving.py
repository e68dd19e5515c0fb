"""A trainer on disk: what of it goes into a file, and how it is made again from one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import optim, serialization
from .._validate import check_size
from .callbacks import Callback
from .history import History
from .loop import Position
from .objective import Loss, LossName, Metric, MetricName, Objective
from .tally import Means

if TYPE_CHECKING:
    from .trainer import Trainer


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """See `Trainer.save`."""
    arrays, config = serialization.describe_model(trainer.model)
    state = trainer.optimizer.state_dict()
    position, carried, rows = trainer._position, trainer._carried.state, trainer._carried.rows
    between = trainer._running and position is not None and not position.batch
    if trainer.stateful and between and position is not None:
        carried = position.begin  # between two epochs of a stateful fit: what the next one begins from
    config["trainer"] = _describe(trainer) | {
        "optimizer_step": state.pop("step"),
        "rng": trainer._rng.bit_generator.state,
        "history": trainer.history,
        "callbacks": [
            [type(callback).__name__, _plain(callback.state_dict(), arrays, f"callback.{k}")]
            for k, callback in enumerate(trainer.callbacks)
        ],
        "rows": rows,
        "state": serialization.describe_state(carried, arrays),
        "position": None if position is None else _describe_position(position, arrays),
        "run": trainer._run_options,
    }
    if trainer._window.samples and not trainer._running:
        arrays["window"] = np.stack(trainer._window.samples)
        arrays["window_mask"] = np.stack(trainer._window.masks)
    serialization.write(path, arrays | {f"optimizer.{name}": array for name, array in state.items()}, config)


def _describe(trainer: Trainer) -> dict[str, Any]:
    """What the trainer was made with."""
    return {
        "objective": trainer.objective.config(),
        "optimizer": trainer.optimizer.config(),
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
        "stateful": trainer.stateful,
        "tbptt": trainer.tbptt,
        "checkpoint_every": trainer.checkpoint_every,
        "window": trainer._window.k,
        "accumulate": trainer.accumulate,
    }


def check_savable(trainer: Trainer) -> None:
    """Refuse now what `save` would refuse after the work: TypeError for what no JSON can hold. A layer of the user's
    own that defines no `arguments` can be trained, not saved."""
    try:
        json.dumps(_describe(trainer))
    except TypeError as error:
        raise TypeError(f"optimizer, loss, metrics: expected what a checkpoint can hold, got others: {error}") from None
    for layer in trainer.model.flatten():
        with contextlib.suppress(NotImplementedError):
            arguments = layer.arguments()
            try:
                json.dumps(arguments)
            except TypeError as error:
                name = type(layer).__name__
                raise TypeError(f"model: expected arguments of {name} that JSON can hold: {error}") from None


def _describe_position(position: Position, arrays: dict[str, Any]) -> dict[str, Any]:
    described = {field.name: getattr(position, field.name) for field in fields(position)}
    if isinstance(position.means, Means):
        described["means"] = position.means.state_dict()
    return described | {"begin": serialization.describe_state(position.begin, arrays, "begin")}


def _rebuild_position(saved: dict[str, Any] | None, arrays: dict[str, Any]) -> Position | None:
    if saved is None:
        return None
    for name in ("first", "epoch", "batch"):
        check_size(f"position['{name}']", saved[name], least=0)
    return Position(**saved | {"begin": serialization.rebuild_state(arrays, saved["begin"])})


def _plain(value: Any, arrays: dict[str, Any], name: str) -> Any:
    """JSON-able: arrays go to `arrays`, and their names stand in their place."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: _plain(part, arrays, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, arrays, f"{name}.{k}") for k, part in enumerate(value)]
    return value


def _rich(value: Any, arrays: dict[str, Any]) -> Any:
    """The other way round."""
    if isinstance(value, dict):
        return arrays[value["array"]] if value.keys() == {"array"} else {k: _rich(v, arrays) for k, v in value.items()}
    return [_rich(part, arrays) for part in value] if isinstance(value, list) else value


def load(
    cls: type[Trainer],
    path: str | os.PathLike[str],
    loss: LossName | Loss | None,
    callbacks: Sequence[Callback],
    metrics: Sequence[MetricName | Metric] | None,
) -> Trainer:
    """See `Trainer.load`."""
    arrays, config = serialization.read(path)
    try:
        saved = config["trainer"]
        objective = Objective.from_config(saved["objective"], loss, metrics)
        trainer = cls(
            serialization.rebuild_model(arrays, config),
            objective.loss,
            optimizer=optim.from_config(saved["optimizer"]),
            clip_norm=saved["clip_norm"],
            clip_value=saved["clip_value"],
            callbacks=callbacks,
            metrics=list(objective.metrics.values()),
            stateful=saved["stateful"],
            tbptt=saved["tbptt"],
            checkpoint_every=saved["checkpoint_every"],
            window=saved["window"],
            accumulate=saved.get("accumulate", 1),
        )
        trainer.objective = objective
        state = serialization.select(arrays, "optimizer.")
        trainer.optimizer.load_state_dict(state | {"step": saved["optimizer_step"]})
        serialization.set_generator(trainer._rng, saved["rng"])
        trainer.history = History(saved["history"])
        remembered = list(saved.get("callbacks", ()))
        for callback in trainer.callbacks:  # the first of a class takes what the first of that class knew, and so on
            own = next((entry for entry in remembered if entry[0] == type(callback).__name__), None)
            if own is not None:
                remembered.remove(own)
                callback.load_state_dict(_rich(own[1], arrays))
        trainer._carried.state = serialization.rebuild_state(arrays, saved["state"])
        trainer._carried.rows = saved["rows"]
        samples = list(arrays.get("window", ()))
        trainer._window.samples = samples
        trainer._window.masks = list(arrays.get("window_mask", [np.ones(len(sample), bool) for sample in samples]))
        trainer._position = _rebuild_position(saved.get("position"), arrays)
        trainer._run_options = saved.get("run", {})
    except KeyError as error:
        raise ValueError(f"{os.fspath(path)}: expected the checkpoint of a trainer, got one without {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return trainer
