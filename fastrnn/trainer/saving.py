"""A trainer on disk: what of it goes into a file, and how it is made again from one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import optim, serialization
from .callbacks import Callback
from .history import History
from .objective import Loss, LossName, Metric, MetricName, Objective

if TYPE_CHECKING:
    from .trainer import Trainer


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """See `Trainer.save`."""
    arrays, config = serialization.describe_model(trainer.model)
    state = trainer.optimizer.state_dict()
    # Between two epochs of a stateful fit: what the next one begins from.
    carried, rows = trainer._fit_state or (trainer._carried.state, trainer._carried.rows)
    config["trainer"] = {
        "objective": trainer.objective.config(),
        "optimizer": trainer.optimizer.config(),
        "optimizer_step": state.pop("step"),
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
        "rng": trainer._rng.bit_generator.state,
        "history": trainer.history,
        "stateful": trainer.stateful,
        "tbptt": trainer.tbptt,
        "checkpoint_every": trainer.checkpoint_every,
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in trainer.callbacks],
        "window": trainer._window.k,
        "rows": rows,
        "state": serialization.describe_state(carried, arrays),
    }
    if trainer._window.samples and trainer._fit_state is None:
        arrays["window"] = np.stack(trainer._window.samples)
    serialization.write(path, arrays | {f"optimizer.{name}": array for name, array in state.items()}, config)


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
            optimizer=optim.from_config(saved["optimizer"]),
            clip_norm=saved["clip_norm"],
            clip_value=saved["clip_value"],
            callbacks=callbacks,
            stateful=saved["stateful"],
            tbptt=saved["tbptt"],
            checkpoint_every=saved["checkpoint_every"],
            window=saved["window"],
        )
        trainer.objective = objective
        state = serialization.select(arrays, "optimizer.")
        trainer.optimizer.load_state_dict(state | {"step": saved["optimizer_step"]})
        serialization.set_generator(trainer._rng, saved["rng"])
        trainer.history = History(saved["history"])
        for callback, (name, known) in zip(trainer.callbacks, saved.get("callbacks", ())):
            if type(callback).__name__ == name:
                callback.load_state_dict(known)
        trainer._carried.state = serialization.rebuild_state(arrays, saved["state"])
        trainer._carried.rows = saved["rows"]
        trainer._window.samples = list(arrays.get("window", ()))
    except KeyError as error:
        raise ValueError(f"{os.fspath(path)}: expected the checkpoint of a trainer, got one without {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return trainer
