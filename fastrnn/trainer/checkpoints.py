"""Checkpoints of a long run: written every so often, a few of them kept, one to go on from at all times.

Design: a file is named by the number of updates, and replaced or removed only once the next is complete on disk. So
whenever a process ends, also by SIGKILL, the newest file is whole and `fit(resume=True)` goes on from it, bit for bit.
"""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._validate import check_positive, check_size
from .callbacks import Mode, Monitor

if TYPE_CHECKING:
    from .trainer import Trainer

STEP = re.compile(r"step-(\d+)\.safetensors")


class Checkpoints(Monitor):
    """Save the trainer to `folder` every so many batches, minutes and epochs, and when Ctrl-C or SIGTERM comes, which
    end the fit after the batch under way (a second one at once).

    `Trainer.load(folder)` takes the newest, and `fit(..., resume=True)` with the same data goes on from there: the run
    then has the same numbers as one that was never interrupted. `keep` newest files step-<updates>.safetensors stay;
    with keep_best also those of that many epochs with the best `monitor`, best-<epoch>.safetensors.

    Raises FileExistsError for a trainer that begins, where the folder holds the checkpoints of another run.
    """

    saves = True
    saves_on_interrupt = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every_batches: int | None = None,
        every_minutes: float | None = None,
        every_epochs: int | None = 1,
        keep: int = 2,
        keep_best: int = 0,
        monitor: str = "val_loss",
        mode: Mode = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.folder = Path(folder)
        self.every_batches = None if every_batches is None else check_size("every_batches", every_batches)
        self.every_minutes = None if every_minutes is None else check_positive("every_minutes", every_minutes)
        self.every_epochs = None if every_epochs is None else check_size("every_epochs", every_epochs)
        self.keep = check_size("keep", keep)
        self.keep_best = check_size("keep_best", keep_best, least=0)
        self._batches = 0  # since the last one
        self._last = time.monotonic()
        self._best: list[list[Any]] = []  # value and file name, the best first

    def follows(self) -> bool:
        return self.keep_best > 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        super().on_fit_begin(trainer)
        os.makedirs(self.folder, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"folder: expected one that can be written, got {os.fspath(self.folder)!r}")
        there = checkpoints_in(self.folder)
        if there and not trainer.optimizer.steps:
            raise FileExistsError(
                f"folder: expected none with checkpoints for a run that begins, got {os.fspath(self.folder)!r}; "
                "Trainer.load(folder) and fit(..., resume=True) go on with that run"
            )
        self._batches, self._last = 0, time.monotonic()

    def on_batch_end(self, trainer: Trainer, batch: int, logs: dict[str, float]) -> None:
        self._batches += 1
        minutes = (time.monotonic() - self._last) / 60
        due = self.every_batches is not None and self._batches >= self.every_batches
        due = due or (self.every_minutes is not None and minutes >= self.every_minutes)
        if due and trainer.at_update:
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if self.keep_best:
            self._rank(trainer, epoch, logs)
        if self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0:
            self.save(trainer)

    def on_interrupt(self, trainer: Trainer) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Write a checkpoint now, then remove those that are too many."""
        path = self.folder / f"step-{trainer.optimizer.steps:09d}.safetensors"
        trainer.save(path)
        self._batches, self._last = 0, time.monotonic()
        for old in checkpoints_in(self.folder)[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def _rank(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        value = self.value(logs)
        if math.isnan(value):
            return
        name = f"best-{epoch + 1:06d}.safetensors"
        ranked = sorted([*self._best, [value, name]], key=lambda entry: self.sign * entry[0])
        kept, dropped = ranked[: self.keep_best], ranked[self.keep_best :]
        if [value, name] not in kept:
            return
        self._best = kept
        trainer.save(self.folder / name)
        for _, old in dropped:
            (self.folder / old).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"files": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._best = state["files"]


def checkpoints_in(folder: Path) -> list[Path]:
    """Those of `Checkpoints`, the newest last."""
    found = [(int(match[1]), entry) for entry in folder.iterdir() if (match := STEP.fullmatch(entry.name))]
    return [entry for _, entry in sorted(found)]


def newest(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The newest checkpoint of a folder; any other path as it is. Raises IsADirectoryError for a folder without."""
    if not os.path.isdir(path):
        return path
    found = checkpoints_in(Path(path))
    if not found:
        raise IsADirectoryError(f"{os.fspath(path)}: expected a file or a folder with checkpoints, got one without")
    return found[-1]
