"""A fit under way: its epochs and batches, where it is, and how it goes on after it was interrupted.

Letters: N samples, T time steps.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import names_of_logs
from .data import Batch, Data
from .progress import Bar
from .source import Source, Stream
from .tally import Means

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass
class Position:
    """Where a run of epochs is; with the trainer's other parts all that the rest of it depends on.

    first: the epoch that the run began with. epoch, batch: the next ones. order: the state of what orders the samples,
    before it ordered those of this epoch. begin: the state of the sequences that each epoch of a stateful run begins
    with. means, seconds: what this epoch has given so far.
    """

    first: int
    epoch: int
    batch: int = 0
    order: Any = None
    begin: Any = None
    means: Means | dict[str, Any] = field(default_factory=dict)  # as a dict, where it comes from a file
    seconds: float = 0.0


@dataclass
class Plan:
    """What a fit was asked for."""

    source: Source
    epochs: int
    batch_size: int
    shuffle: bool
    bucket: bool
    validation: Data | Stream | None
    progress: bool

    def options(self) -> dict[str, Any]:
        """What has to be the same where a run goes on."""
        count = self.source.count(self.batch_size)
        return {"batch_size": self.batch_size, "batches": count, "shuffle": self.shuffle, "bucket": self.bucket}


class Loop:
    """Trains `trainer` as `plan` says, from `position` on, which it keeps up to date."""

    def __init__(self, trainer: Trainer, plan: Plan, position: Position) -> None:
        self.trainer, self.plan, self.position = trainer, plan, position
        self.stopped_by: int | None = None  # a signal
        # What saves comes last, after everybody else knows of the batch or the epoch.
        self.callbacks = sorted(trainer.callbacks, key=lambda callback: callback.saves)

    def run(self) -> None:
        trainer = self.trainer
        trainer.log_names = names_of_logs(trainer.objective, self.plan.validation is not None)
        for callback in self.callbacks:
            callback.on_fit_begin(trainer)
        trainer.completed, trainer._running = False, True
        trainer._bptt.gathered.close()  # what an interrupted fit has left
        try:
            with self._signals():
                self._epochs()
            trainer.completed = self.stopped_by is None
        finally:  # after Ctrl-C too: EarlyStopping then restores the best weights
            trainer._running = False
            for callback in self.callbacks:
                callback.on_fit_end(trainer)
        if self.stopped_by == signal.SIGINT:
            at = f"epoch {self.position.epoch + 1}, batch {self.position.batch}"
            raise KeyboardInterrupt(f"stopped after {at}; Trainer.load and fit(..., resume=True) go on from there")
        if self.stopped_by is not None:
            raise SystemExit(128 + self.stopped_by)

    def _epochs(self) -> None:
        trainer, position, plan = self.trainer, self.position, self.plan
        last = position.first + plan.epochs
        while position.epoch < last and self.stopped_by is None:
            epoch = position.epoch
            if not position.batch:
                for callback in self.callbacks:
                    callback.on_epoch_begin(trainer, epoch)
                if trainer.stateful:
                    trainer._carried.state, trainer._carried.rows = position.begin, plan.batch_size
                position.order = plan.source.order_state(trainer._rng)
            title = f"epoch {epoch + 1}/{last}"
            with Bar(plan.source.count(plan.batch_size), title, plan.progress, position.batch) as bar:
                logs = self._epoch(title, bar)
                if self.stopped_by is not None:
                    return
                if plan.validation is not None:
                    logs |= {f"val_{name}": value for name, value in self._validate(plan.validation).items()}
                bar.show(logs)
            trainer.history.append(logs)
            position.epoch, position.batch, position.means, position.seconds = epoch + 1, 0, {}, 0.0
            for callback in self.callbacks:
                callback.on_epoch_end(trainer, epoch, logs)
            if trainer.stop_training:
                return

    def _validate(self, validation: Data | Stream) -> dict[str, float]:
        trainer = self.trainer
        for callback in self.callbacks:
            callback.on_validation_begin(trainer)
        try:
            return trainer._evaluate(validation, trainer._batch_size(validation, None))
        finally:
            for callback in self.callbacks:
                callback.on_validation_end(trainer)

    def _epoch(self, title: str, bar: Bar) -> dict[str, float]:
        trainer, position = self.trainer, self.position
        means = Means()
        if position.batch:
            before_it = position.means
            state = before_it.state_dict() if isinstance(before_it, Means) else before_it
            means.load_state_dict(state, trainer.objective.finish)
        begin, before = time.perf_counter(), position.seconds
        samples = 0
        for index, batch in self._batches():
            for callback in self.callbacks:
                callback.on_batch_begin(trainer, index)
            given = Means() if self.callbacks else None
            try:
                with np.errstate(all="ignore"):  # of the caller: an exp that underflows is no error
                    for values in trainer._train_batch(batch):
                        means.add(values)
                        if given is not None:
                            given.add(values)
            except FloatingPointError as error:
                of = "" if bar.total is None else f"/{bar.total}"
                raise FloatingPointError(f"{error} in {title}, batch {index + 1}{of}") from None
            samples += len(batch)
            bar.advance(means)
            position.batch, position.means = index + 1, means
            position.seconds = before + time.perf_counter() - begin
            logs = {} if given is None else given.result()
            for callback in self.callbacks:
                callback.on_batch_end(trainer, index, logs)
            if self.stopped_by is not None and trainer.at_update:
                self._save()
                return {}
        if not position.batch:
            raise ValueError(f"x: expected at least one batch in {title}, got none")
        trainer._finish_update()
        seconds = time.perf_counter() - begin
        rate = samples / seconds if samples else 0.0
        return means.result() | {"seconds": before + seconds, "samples_per_second": rate}

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """The batches of this epoch that are left, counted from 0."""
        plan, position = self.plan, self.position
        batches = plan.source.batches(plan, self.trainer._rng, position.order, position.epoch)
        for index, batch in enumerate(batches):
            if index >= position.batch:
                yield index, batch()

    # --- Ctrl-C -------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        for callback in self.callbacks:
            callback.on_interrupt(self.trainer)

    def _signals(self) -> _Signals:
        saves = any(callback.saves_on_interrupt for callback in self.callbacks)
        return _Signals(self if saves and threading.current_thread() is threading.main_thread() else None)


class _Signals:
    """While a callback saves on Ctrl-C: the first signal lets the batch end, a second one acts at once."""

    def __init__(self, loop: Loop | None) -> None:
        self.loop = loop
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if self.loop is not None:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._stop)

    def _stop(self, number: int, frame: Any) -> None:
        assert self.loop is not None
        self.loop.stopped_by = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __exit__(self, *error: Any) -> None:
        self._restore()
