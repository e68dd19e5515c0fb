"""Trainer: fit, evaluate and predict with a model, a loss and an optimiser; save it all and go on later.

Letters: N samples, T time steps, D input_size, M outputs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checkpoint, optim
from .callbacks import Callback
from .history import History
from .layers import Module
from .layers.checks import as_generator, check_size, own_generator
from .layers.recurrent import RecurrentLayer
from .objective import Loss, Metric, Objective

Array = NDArray[Any]


class Trainer:
    """Minimise a loss of a model's outputs by gradient steps on minibatches.

    Data are samples first, whatever the layout of the layers: x (N, T, D), or tokens (N, T); y (N,) or (N, ...), for
    a model that keeps the time axis (N, T) or (N, T, ...). Arrays have the dtype that the model's layers take.

    model: a `Sequential`, or another layer that returns one array.
    loss, metrics: see `objective.Objective`. For sequences the loss sees outputs and targets time-major, (T, N, ...).
    optimizer: an `optim.Optimizer` or its name; Adam(lr=1e-3) if None.
    clip_norm, clip_value: limit the gradients' common norm, or each entry, before each step.
    callbacks: `callbacks.Callback` objects.
    rng: seed or Generator for the order of the samples.

    `history` holds all epochs of all calls of `fit`. A seed, a model and data give the same numbers every time.
    """

    def __init__(
        self, model: Module, loss: str | Loss = "cross_entropy", optimizer: optim.Optimizer | str | None = None, *,
        clip_norm: float | None = None, clip_value: float | None = None, callbacks: Sequence[Callback] = (),
        rng: int | np.random.Generator | None = 0, metrics: Sequence[str | Metric] | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a layer such as Sequential, came {type(model).__name__}")
        if isinstance(model, RecurrentLayer):
            came = type(model).__name__
            raise TypeError(f"model: expected a layer that returns one array, came {came}; put it in a Sequential")
        self.model = model
        self.objective = Objective(loss, metrics)
        self.optimizer = optim.Adam(lr=1e-3) if optimizer is None else optim.get(optimizer)
        self.clip_norm = _check_limit("clip_norm", clip_norm)
        self.clip_value = _check_limit("clip_value", clip_value)
        self.callbacks = list(callbacks)
        self.history = History()
        self.stop_training = False
        self._rng = own_generator(as_generator("rng", rng))

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self, x: Array, y: Array, epochs: int = 1, batch_size: int = 32, *,
        validation_data: tuple[Array, Array] | None = None, progress: bool = True, shuffle: bool = True,
    ) -> History:  # fmt: skip
        """Train for `epochs` more epochs, one update per `batch_size` samples (the last batch may be smaller).

        shuffle: a new order in each epoch. validation_data (x, y): evaluated after each epoch. progress: a bar for
        each epoch on stderr. Returns `history`.
        Raises ValueError for data that do not fit, FloatingPointError that names epoch and batch (from 1) when the
        loss or, with clip_norm, the gradient's norm is not finite; the parameters are then those before that batch.
        """
        x, y = _check_data(x, y)
        epochs, batch_size = check_size("epochs", epochs), check_size("batch_size", batch_size)
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError("validation_data: expected a tuple (x, y)")
            validation_data = _check_data(*validation_data)
        self.stop_training = False
        for callback in self.callbacks:
            callback.on_fit_begin(self)
        first = self.history.epochs
        for epoch in range(first, first + epochs):
            for callback in self.callbacks:
                callback.on_epoch_begin(self, epoch)
            title = f"epoch {epoch + 1}/{first + epochs}"
            with _Bar(math.ceil(len(x) / batch_size), title, progress) as bar:
                logs = self._train_epoch(x, y, batch_size, shuffle, title, bar)
                if validation_data is not None:
                    logs |= {f"val_{name}": value for name, value in self.evaluate(*validation_data).items()}
                bar.show(logs)
            self.history.append(logs)
            for callback in self.callbacks:
                callback.on_epoch_end(self, epoch, logs)
            if self.stop_training:
                break
        for callback in self.callbacks:
            callback.on_fit_end(self)
        return self.history

    def _train_epoch(
        self, x: Array, y: Array, batch_size: int, shuffle: bool, title: str, bar: _Bar
    ) -> dict[str, float]:
        means = _Means()
        begin = time.perf_counter()
        order = self._rng.permutation(len(x)) if shuffle else None
        for batch, part in enumerate(_batches(len(x), batch_size)):
            chosen = part if order is None else order[part]
            try:
                values = self._train_batch(x[chosen], y[chosen])
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} in {title}, batch {batch + 1}/{bar.total}") from None
            means.add(values)
            bar.advance(means)
            for callback in self.callbacks:
                callback.on_batch_end(self, batch, {name: value for name, (value, _) in values.items()})
        seconds = time.perf_counter() - begin
        return means.result() | {"seconds": seconds, "samples_per_second": len(x) / seconds}

    def _train_batch(self, x: Array, y: Array) -> dict[str, tuple[float, int]]:
        """One update from samples-first x and y. Returns name -> (value, weight) of the loss and the metrics."""
        outputs = self.model(self._from_samples_first(x), training=True)
        values, doutputs = self._score(outputs, y)
        loss, weight = values["loss"]
        if not weight:  # every target is ignored: there is nothing to learn
            return values
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss: expected a finite number, came {loss}")
        self.model.zero_grad()
        self.model.backward(doutputs)
        self.optimizer.step(self.model.params, self.model.grads, clip_norm=self.clip_norm, clip_value=self.clip_value)
        return values

    # --- using the model ----------------------------------------------------------------------------------------------

    def evaluate(self, x: Array, y: Array, batch_size: int = 256) -> dict[str, float]:
        """Mean loss and metrics over all samples, without training: {"loss": ..., "accuracy": ...}."""
        x, y = _check_data(x, y)
        means = _Means()
        for part in _batches(len(x), check_size("batch_size", batch_size)):
            outputs = self.model(self._from_samples_first(x[part]))
            means.add(self._score(outputs, y[part])[0])
        return means.result()

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """The model's outputs, samples first: (N, M), or (N, T, M) where the model keeps the time axis."""
        x = np.asarray(x)
        if not x.ndim or not len(x):
            raise ValueError(f"x: expected samples first, at least one, came shape {x.shape}")
        parts = []
        for part in _batches(len(x), check_size("batch_size", batch_size)):
            outputs = self.model(self._from_samples_first(x[part]))
            parts.append(outputs.swapaxes(0, 1) if self._time_major_outputs else outputs)
        return np.concatenate(parts)

    # --- layouts ------------------------------------------------------------------------------------------------------

    def _from_samples_first(self, x: Array) -> Array:
        """The view of x that the model reads."""
        return x.swapaxes(0, 1) if self.model.batch_first is False and x.ndim > 1 else x

    @property
    def _time_major_outputs(self) -> bool:
        return self.model.batch_first is False and self.model.keeps_time

    def _score(self, outputs: Array, y: Array) -> tuple[dict[str, tuple[float, int]], Array]:
        """The objective's values for samples-first targets, and the gradient in the layout of outputs."""
        if self._time_major_outputs:
            return self.objective(outputs, _time_first(y), len(y))
        if self.model.keeps_time and outputs.ndim > 2:  # (N, T, M)
            values, doutputs = self.objective(_time_first(outputs), _time_first(y), len(y))
            return values, doutputs.swapaxes(0, 1)
        return self.objective(outputs, y, len(y))

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimiser, history and random state to one file (see `checkpoint`), as a whole or not at all.

        `Trainer.load(path).fit(...)` then gives the numbers that `fit` would have given here. Callbacks, and losses and
        metrics that are functions of your own, are not in the file.
        """
        arrays, config = checkpoint.describe_model(self.model)
        state = self.optimizer.state_dict()
        config["trainer"] = {
            "objective": self.objective.config(),
            "optimizer": self.optimizer.config(),
            "optimizer_step": state.pop("step"),
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "rng": self._rng.bit_generator.state,
            "history": self.history,
        }
        checkpoint.write(path, arrays | {f"optimizer.{name}": array for name, array in state.items()}, config)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, loss: str | Loss | None = None, callbacks: Sequence[Callback] = (),
        metrics: Sequence[str | Metric] | None = None,
    ) -> Trainer:  # fmt: skip
        """The trainer that `save` wrote. `loss` and `metrics` are needed where the saved ones were your own functions.

        Raises FileNotFoundError if there is no such file, and ValueError that names the file if it is damaged, another
        program's, or has a layer whose class is not defined.
        """
        arrays, config = checkpoint.read(path)
        try:
            saved = config["trainer"]
            objective = Objective.from_config(saved["objective"], loss, metrics)
            trainer = cls(
                checkpoint.rebuild_model(arrays, config), optimizer=optim.from_config(saved["optimizer"]),
                clip_norm=saved["clip_norm"], clip_value=saved["clip_value"], callbacks=callbacks,
            )  # fmt: skip
            trainer.objective = objective
            state = checkpoint.select(arrays, "optimizer.")
            trainer.optimizer.load_state_dict(state | {"step": saved["optimizer_step"]})
            trainer._rng.bit_generator.state = saved["rng"]
            trainer.history = History(saved["history"])
        except KeyError as error:
            raise ValueError(
                f"{os.fspath(path)}: expected the checkpoint of a trainer, came one without {error}"
            ) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        return trainer


class _Means:
    """Weighted means of what the batches of an epoch gave."""

    def __init__(self) -> None:
        self._sums = {"loss": 0.0}
        self._weights = {"loss": 0}

    def add(self, values: dict[str, tuple[float, int]]) -> None:
        for name, (value, weight) in values.items():
            if weight:
                self._sums[name] = self._sums.get(name, 0.0) + value * weight
                self._weights[name] = self._weights.get(name, 0) + weight

    def result(self) -> dict[str, float]:
        """The loss is nan where nothing counted."""
        weights = self._weights
        return {name: total / weights[name] if weights[name] else math.nan for name, total in self._sums.items()}


class _Bar:
    """A progress bar for one epoch, or nothing."""

    def __init__(self, total: int, title: str, visible: bool) -> None:
        self.total = total
        self._bar = None
        if visible:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="batch")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, means: _Means) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_said(means.result()), refresh=False)
            self._bar.update()

    def show(self, logs: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_said(logs))


def _said(logs: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if name != "seconds")


def _batches(samples: int, batch_size: int) -> Iterator[slice]:
    for start in range(0, samples, batch_size):
        yield slice(start, start + batch_size)


def _time_first(a: Array) -> Array:
    return a.swapaxes(0, 1) if a.ndim > 1 else a


def _check_data(x: Any, y: Any) -> tuple[Array, Array]:
    x, y = np.asarray(x), np.asarray(y)
    if not x.ndim or not len(x):
        raise ValueError(f"x: expected samples first, at least one, came shape {x.shape}")
    if not y.ndim or len(y) != len(x):
        raise ValueError(f"y: expected one target per sample of x, {len(x)} of them, came shape {y.shape}")
    return x, y


def _check_limit(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not value > 0:
        raise ValueError(f"{name}: expected None or a number above 0, came {value!r}")
    return float(value)
