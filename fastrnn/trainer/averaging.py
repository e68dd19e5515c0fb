"""Averages of the weights over the course of training, which often generalise better than the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_not_negative, check_size
from ..layers import Module
from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

Array = NDArray[Any]


class WeightAverage(Callback):
    """Base of `EMA` and `SWA`. `params` holds the averages by name, None before the first; within
    `with average.applied(model):` the model computes with them.

    validate: validation during `fit` is with the averages. at_end: they are the model's weights after a `fit` that was
    not interrupted. Checkpoints hold both the weights and the averages.
    """

    def __init__(self, *, validate: bool = True, at_end: bool = True) -> None:
        self.validate, self.at_end = bool(validate), bool(at_end)
        self.params: dict[str, Array] | None = None
        self.count = 0  # how many weights have gone in
        self._kept: dict[str, Array] | None = None

    def add(self, model: Module) -> None:
        """Let the model's weights go into the average."""
        if self.params is None:
            self.params = {name: param.copy() for name, param in model.params.items()}
        else:
            share = self._share()
            for name, param in model.params.items():
                average = self.params[name]
                average += (param - average) * average.dtype.type(share)
        self.count += 1

    def _share(self) -> float:
        """What the next weights count for."""
        raise NotImplementedError

    @contextlib.contextmanager
    def applied(self, model: Module) -> Iterator[None]:
        """The model computes with the averages, then with its own weights again."""
        self._swap(model)
        try:
            yield
        finally:
            self._restore(model)

    def _swap(self, model: Module) -> None:
        if self.params is not None:
            self._kept = {name: param.copy() for name, param in model.params.items()}
            _write(model, self.params)

    def _restore(self, model: Module) -> None:
        if self._kept is not None:
            _write(model, self._kept)
            self._kept = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        if not trainer.resuming:
            self.params, self.count = None, 0

    def on_validation_begin(self, trainer: Trainer) -> None:
        if self.validate:
            self._swap(trainer.model)

    def on_validation_end(self, trainer: Trainer) -> None:
        self._restore(trainer.model)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.at_end and trainer.completed and self.params is not None:
            _write(trainer.model, self.params)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "params": self.params}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.params = state["count"], state["params"]


class EMA(WeightAverage):
    """Exponential moving average, decay * average + (1 - decay) * weights after each update, from the first update on
    (Polyak and Juditsky 1992), as torch.optim.swa_utils.get_ema_multi_avg_fn has it."""

    def __init__(self, decay: float = 0.999, *, validate: bool = True, at_end: bool = True) -> None:
        super().__init__(validate=validate, at_end=at_end)
        self.decay = check_not_negative("decay", decay, below=1.0)
        self._steps = 0

    def _share(self) -> float:
        return 1.0 - self.decay

    def on_batch_begin(self, trainer: Trainer, batch: int) -> None:
        self._steps = trainer.optimizer.steps

    def on_batch_end(self, trainer: Trainer, batch: int, logs: dict[str, float]) -> None:
        if trainer.optimizer.steps > self._steps:
            self.add(trainer.model)


class SWA(WeightAverage):
    """Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of epochs, from the epoch
    `start` on, counted from 0 in all calls of fit."""

    def __init__(self, start: int = 0, *, validate: bool = False, at_end: bool = True) -> None:
        super().__init__(validate=validate, at_end=at_end)
        self.start = check_size("start", start, least=0)

    def _share(self) -> float:
        return 1.0 / (self.count + 1)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if epoch >= self.start:
            self.add(trainer.model)


def _write(model: Module, values: dict[str, Array]) -> None:
    params = model.params
    for name, value in values.items():
        np.copyto(params[name], value)
    getattr(params, "changed", int)()
