"""What may happen between epochs: early stopping, checkpoints, learning-rate schedules, and your own."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from .._validate import check_choice, check_not_negative, check_size
from .metrics import larger_is_better

if TYPE_CHECKING:
    from . import Trainer

Mode = Literal["auto", "min", "max"]
Save = Literal["best", "last"]


class Callback:
    """Base class: each method does nothing until overridden. Epochs and batches count from 0, epochs through all calls
    of `fit`. `logs` is what the history gets; at the end of a batch it holds the batch's loss and metrics. Setting
    `trainer.stop_training = True` ends training after the epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None: ...

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None: ...

    def on_batch_begin(self, trainer: Trainer, batch: int) -> None: ...

    def on_batch_end(self, trainer: Trainer, batch: int, logs: dict[str, float]) -> None: ...

    def on_validation_begin(self, trainer: Trainer) -> None: ...

    def on_validation_end(self, trainer: Trainer) -> None: ...

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None: ...

    def on_fit_end(self, trainer: Trainer) -> None: ...

    def on_interrupt(self, trainer: Trainer) -> None:
        """After the batch in which Ctrl-C came, where a callback has `saves_on_interrupt`."""

    saves: bool = False
    """True: it writes checkpoints, and so is called after all others."""
    saves_on_interrupt: bool = False

    def state_dict(self) -> dict[str, Any]:
        """What the callback knows, for `Trainer.save`: JSON-able, and dicts of arrays."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The other way round, in `Trainer.load`."""


class Monitor(Callback):
    """Follows one number of the logs and tells when it is the best so far. mode: "min", "max", or "auto", which means
    what the metric of this name says, "max" for what ends in "accuracy" and "min" for all else."""

    def __init__(self, monitor: str, mode: Mode, min_delta: float = 0.0) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta: expected a number of at least 0, got {min_delta!r}")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.sign = -1 if mode == "max" or (mode == "auto" and larger_is_better(monitor)) else 1
        self.best = self.sign * math.inf
        self.best_epoch: int | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Refuse a number that no epoch will report, unless a callback of the user's own may add it."""
        own = any(type(callback).__module__ != __name__ for callback in trainer.callbacks)
        if self.monitor in trainer.log_names or own or not self.follows():
            return
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in trainer.log_names):
            raise ValueError(
                f"monitor: expected validation data for {self.monitor!r}, got none; pass validation_data to fit, or "
                'monitor="loss"'
            )
        raise ValueError(f"monitor: expected one of {', '.join(trainer.log_names)}, got {self.monitor!r}")

    def follows(self) -> bool:
        """Whether the number matters."""
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]

    def _forget(self) -> None:
        self.best, self.best_epoch = self.sign * math.inf, None

    def value(self, logs: dict[str, float]) -> float:
        if self.monitor not in logs:
            raise ValueError(f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}")
        return logs[self.monitor]

    def _improved(self, epoch: int, logs: dict[str, float]) -> bool:
        value = self.value(logs)
        better = self.sign * (self.best - value) > self.min_delta  # False for nan
        if better:
            self.best, self.best_epoch = value, epoch
        return better


class EarlyStopping(Monitor):
    """Stop once `monitor` has not improved by more than `min_delta` for `patience` epochs in a row.

    With restore_best the parameters go back, at the end of fit, to those of the best epoch; the optimiser's state
    stays.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: Mode = "auto",
        restore_best: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if patience < 1:
            raise ValueError(f"patience: expected at least 1 epoch, got {patience!r}")
        self.patience = patience
        self.restore_best = restore_best
        self._waited = 0
        self._best_params: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"waited": self._waited, "params": self._best_params}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._waited, self._best_params = state.get("waited", 0), state.get("params")

    def on_fit_begin(self, trainer: Trainer) -> None:
        super().on_fit_begin(trainer)
        if not trainer.resuming:
            self._forget()
            self._waited = 0
            self._best_params = None

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if self._improved(epoch, logs):
            self._waited = 0
            if self.restore_best:
                self._best_params = trainer.model.state_dict()
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.stop_training = True

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._best_params is not None:
            trainer.model.load_state_dict(self._best_params)


class ModelCheckpoint(Monitor):
    """Save the trainer to `path` after each epoch: save="best" when `monitor` is the best so far, save="last" always.

    `path` is replaced as a whole, so there is a complete checkpoint in it at all times.
    """

    saves = True

    def __init__(
        self, path: str | os.PathLike[str], *, save: Save = "best", monitor: str = "val_loss", mode: Mode = "auto"
    ) -> None:
        super().__init__(monitor, mode)
        if save not in get_args(Save):
            raise ValueError(f"save: expected 'best' or 'last', got {save!r}")
        self.path = path
        self.save = save

    def follows(self) -> bool:
        return self.save == "best"

    def on_fit_begin(self, trainer: Trainer) -> None:
        super().on_fit_begin(trainer)
        folder = os.path.dirname(os.path.realpath(self.path))
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"path: expected an existing folder, got {folder!r}")
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"path: expected a folder that can be written, got {folder!r}")

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if self.save == "last" or self._improved(epoch, logs):
            trainer.save(self.path)


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by `factor` once `monitor` has not improved by more than `min_delta` for `patience`
    epochs in a row, down to `min_lr`; then wait `cooldown` epochs before counting again. As in Keras."""

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: Mode = "auto",
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = check_not_negative("factor", factor, below=1.0)
        self.patience = check_size("patience", patience)
        self.cooldown = check_size("cooldown", cooldown, least=0)
        self.min_lr = check_not_negative("min_lr", min_lr)
        self._waited = self._cooling = 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        super().on_fit_begin(trainer)
        if not trainer.resuming:
            self._forget()
            self._waited = self._cooling = 0

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        better = self._improved(epoch, logs)
        self._cooling = max(self._cooling - 1, 0)
        self._waited = 0 if better or self._cooling else self._waited + 1
        if self._waited >= self.patience and trainer.optimizer.lr > self.min_lr:
            trainer.optimizer.lr = max(trainer.optimizer.lr * self.factor, self.min_lr)
            self._waited, self._cooling = 0, self.cooldown

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"waited": self._waited, "cooling": self._cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._waited, self._cooling = state["waited"], state["cooling"]


class LearningRateSchedule(Callback):
    """Set the optimiser's learning rate to schedule(count), before each epoch by the number of epochs before it, or
    with per="update" before each batch by the number of updates before it, both through all calls of `fit`.
    `fastrnn.schedules` has some."""

    def __init__(self, schedule: Callable[[int], float], *, per: Literal["epoch", "update"] = "epoch") -> None:
        self.schedule = schedule
        self.per = check_choice("per", per, ("epoch", "update"))

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        if self.per == "epoch":
            trainer.optimizer.lr = self.schedule(epoch)

    def on_batch_begin(self, trainer: Trainer, batch: int) -> None:
        if self.per == "update":
            trainer.optimizer.lr = self.schedule(trainer.optimizer.steps)
