"""Trainer: fit, evaluate and predict with a model, a loss and an optimiser; save it all and go on later.

Letters: N samples, T time steps, T_i those of sample i, D input_size, M outputs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from .. import optim
from .._validate import as_generator, check_size, own_generator
from ..layers import Module
from . import saving
from .bptt import BPTT, Values, check_runs_in_pieces
from .callbacks import Callback
from .carried import CarriedState
from .checkpointing import CheckpointedBPTT
from .checks import (
    check_axes,
    check_callbacks,
    check_every,
    check_limit,
    check_model,
    check_pieces,
    check_steps,
    check_targets,
    check_tbptt,
    check_whole_batches,
    features_dtype,
    names_of_logs,
)
from .data import Batch, Data
from .history import History
from .objective import Loss, LossName, Metric, MetricName, Objective
from .online import OnlineWindow
from .progress import Bar, Means

Array = NDArray[Any]
OptimizerName = Literal["sgd", "rmsprop", "adagrad", "adam", "adamw"]


class Trainer:
    """Minimise a loss of a model's outputs by gradient steps on minibatches.

    Data are samples first, whatever the layout of the layers: x (N, T, D), or tokens (N, T), or a list of N sequences
    (T_i, D) or (T_i,) of any lengths. y is (N,) or (N, ...); for a model with an output at each step (N, T) or
    (N, T, ...), or a list of N arrays (T_i,) or (T_i, ...). `lengths` (N,) says how many steps of each row of an array
    count. Each batch is padded, or cut, to its own longest sequence. `reset_mask` (N, T), bool, or a list of (T_i,):
    where True the state is zeroed before that step. x may have any real dtype: it is converted to that of the layers.

    model: a `fastrnn.Sequential`, or another layer that returns one array.
    loss: "cross_entropy", "bce" or "mse"; one of the functions of `fastrnn.losses`, also with options, such as
        functools.partial(fastrnn.losses.cross_entropy, reduction="sequence"); or a function of your own,
        (outputs, targets) -> (loss, gradient in the outputs). For sequences it sees both time-major, (T, N, ...).
    optimizer: a `fastrnn.Optimizer` or its name, "sgd", "rmsprop", "adagrad", "adam" or "adamw"; None: Adam(lr=1e-3).
    clip_norm, clip_value: limit the gradients' common norm, or each entry, before each step.
    callbacks: `fastrnn.Callback` objects.
    rng: seed or Generator for the order of the samples.
    metrics: "accuracy" and functions of your own, (outputs, targets) -> number; None: accuracy where the loss is one of
        classes or of yes and no.

    Long sequences, for layers that read forward in time only:
    stateful: sample i of a batch goes on where sample i of the batch before has ended, as in Keras. Batches are of one
        size and in the order of the data. Each epoch of one `fit` begins from the state that this `fit` began with; the
        next `fit` goes on where the last one ended. `reset_states()` begins anew, `reset_mask` in between.
        `evaluate` and `predict` carry a state from batch to batch of their own, from zeros.
    tbptt: k, an update after each k steps, with the state carried on and the gradient cut there; (k1, k2), an update
        after each k1 steps, with the gradient of their losses going back k2 steps (Williams and Peng 1990).
    checkpoint_every: k or "sqrt", exact gradients in the memory of k steps, or of about sqrt(T), for one more forward.
    window: how many steps back the gradients of `partial_fit` go.

    `history`, a `fastrnn.History`, holds all epochs of all calls of `fit`. A seed, a model and data give the same
    numbers every time.
    """

    def __init__(
        self,
        model: Module,
        loss: LossName | Loss = "cross_entropy",
        optimizer: optim.Optimizer | OptimizerName | None = None,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callback] = (),
        rng: int | np.random.Generator | None = 0,
        metrics: Sequence[MetricName | Metric] | None = None,
        stateful: bool = False,
        tbptt: int | tuple[int, int] | None = None,
        checkpoint_every: int | Literal["sqrt"] | None = None,
        window: int = 1,
    ) -> None:
        check_model(model)
        self._bptt = BPTT(model, Objective(loss, metrics))
        self.optimizer = optim.Adam(lr=1e-3) if optimizer is None else optim.get(optimizer)
        self.clip_norm = check_limit("clip_norm", clip_norm)
        self.clip_value = check_limit("clip_value", clip_value)
        self.callbacks = check_callbacks(callbacks)
        self.history = History()
        self.stop_training = False
        self._rng = own_generator(as_generator("rng", rng))
        self.stateful = bool(stateful)
        self.tbptt = check_tbptt(tbptt)
        self._carried = CarriedState()
        self._window = OnlineWindow(check_size("window", window), self._carried)
        self._fit_state: tuple[Any, int] | None = None  # what each epoch of a stateful fit under way begins from
        every = check_every(checkpoint_every)
        check_pieces(model, self.stateful, self.tbptt, every)
        self._checkpointed = None if every is None else CheckpointedBPTT(self._bptt, every)

    @property
    def model(self) -> Module:
        return self._bptt.model

    @property
    def objective(self) -> Objective:
        """The loss and the metrics."""
        return self._bptt.objective

    @objective.setter
    def objective(self, objective: Objective) -> None:
        self._bptt.objective = objective

    @property
    def checkpoint_every(self) -> int | str | None:
        return None if self._checkpointed is None else self._checkpointed.every

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        *,
        lengths: Any = None,
        reset_mask: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        progress: bool = True,
        shuffle: bool | None = None,
        bucket: bool = False,
    ) -> History:
        """Train for `epochs` more epochs, one update per `batch_size` samples (the last batch may be smaller).

        shuffle: a new order in each epoch; None for True, unless the trainer is stateful. bucket: sequences of similar
        length go into one batch, so that less is padded. validation_data (x, y) or (x, y, lengths): evaluated after
        each epoch. progress: a bar for each epoch on stderr. Returns `history`.
        Raises ValueError for data that do not fit, FloatingPointError that names epoch and batch (from 1) when the
        loss or, with clip_norm, the gradient's norm is not finite; the parameters are then those before that update.
        """
        check_targets(y)
        data = self._data(x, y, lengths, reset_mask)
        epochs, batch_size = check_size("epochs", epochs), check_size("batch_size", batch_size)
        shuffle = not self.stateful if shuffle is None else shuffle
        if bucket and data.lengths is None:
            raise ValueError("bucket: expected False for sequences of one length, got True")
        if self.stateful:
            if shuffle or bucket:
                raise ValueError("shuffle, bucket: expected False, as a stateful trainer needs the order of the data")
            check_whole_batches(data, batch_size)
            self._window.settle(self.model)
            if self._carried.rows not in (None, batch_size):
                raise ValueError(
                    f"batch_size: expected {self._carried.rows} like the state that is carried on, got {batch_size}; "
                    "reset_states() begins anew"
                )
        if self.tbptt is not None or self.checkpoint_every is not None:
            check_steps(data, self.model.time.in_y)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise TypeError("validation_data: expected a tuple (x, y) or (x, y, lengths)")
            validation = self._data(*validation_data)
            self._try_validation(validation)
        self.stop_training = False
        self.log_names = names_of_logs(self.objective, validation is not None)
        for callback in self.callbacks:
            callback.on_fit_begin(self)
        try:
            self._run_epochs(data, epochs, batch_size, shuffle, bucket, validation, progress)
        finally:  # after Ctrl-C too: EarlyStopping then restores the best weights
            self._fit_state = None
            for callback in self.callbacks:
                callback.on_fit_end(self)
        return self.history

    def _run_epochs(
        self,
        data: Data,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        bucket: bool,
        validation: Data | None,
        progress: bool,
    ) -> None:
        first, begin = self.history.epochs, self._carried.state
        self._fit_state = (begin, batch_size) if self.stateful else None
        for epoch in range(first, first + epochs):
            for callback in self.callbacks:
                callback.on_epoch_begin(self, epoch)
            if self.stateful:
                self._carried.state, self._carried.rows = begin, batch_size
            title = f"epoch {epoch + 1}/{first + epochs}"
            with Bar(math.ceil(len(data) / batch_size), title, progress) as bar:
                order = data.order(batch_size, self._rng if shuffle else None, bucket)
                logs = self._train_epoch(data, order, title, bar)
                if validation is not None:
                    val = self._evaluate(validation, self._batch_size(validation, None))
                    logs |= {f"val_{name}": value for name, value in val.items()}
                bar.show(logs)
            self.history.append(logs)
            for callback in self.callbacks:
                callback.on_epoch_end(self, epoch, logs)
            if self.stop_training:
                break

    def _try_validation(self, data: Data) -> None:
        """What would be wrong with the validation data after an epoch is wrong now: one batch is evaluated."""
        if data.y is None:
            raise ValueError("validation_data: expected targets, got None")
        try:
            batch, outputs = next(self._outputs(data, self._batch_size(data, None)))
            self._bptt.score(outputs, batch)
        except (TypeError, ValueError, IndexError) as error:
            raise type(error)(f"validation_data: {error}") from error

    def _train_epoch(self, data: Data, order: list[Any], title: str, bar: Bar) -> dict[str, float]:
        means = Means()
        begin = time.perf_counter()
        for index, rows in enumerate(order):
            batch = Means()
            try:
                for values in self._train_batch(Batch(data, rows)):
                    means.add(values)
                    batch.add(values)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} in {title}, batch {index + 1}/{bar.total}") from None
            bar.advance(means)
            logs = batch.result()
            for callback in self.callbacks:
                callback.on_batch_end(self, index, logs)
        seconds = time.perf_counter() - begin
        return means.result() | {"seconds": seconds, "samples_per_second": len(data) / seconds}

    def _train_batch(self, batch: Batch) -> Iterator[Values]:
        """One update, or with tbptt several: for each, name -> (value, weight) of the loss and the metrics."""
        if self._checkpointed is not None:
            items = self._checkpointed.gradients(batch)
        else:
            items = self._bptt.whole(batch) if self.tbptt is None else self._bptt.truncated(batch, *self.tbptt)
        self._bptt.state = self._carried.state if self.stateful else None
        for values, learns in items:
            if learns:  # otherwise every target is ignored
                self._update()
            yield values
        if self.stateful:
            self._carried.state = self._bptt.state

    def _update(self) -> None:
        self.optimizer.step(
            self.model.trainable_params, self.model.grads, clip_norm=self.clip_norm, clip_value=self.clip_value
        )

    def partial_fit(self, x_t: Any, y_t: Any) -> dict[str, float]:
        """Learn from the next sample of a stream: one update, with the state carried on to the next call.

        x_t (D,), or (N, D) for N streams side by side, or tokens, a number or (N,); y_t the target of that step, with
        the axis N where x_t has it. The last `window` steps are run again for each sample, and the gradient goes back
        through them. The state is that of a stateful `fit` too: either goes on where the other has ended. Returns the
        loss and the metrics, as they were before the update. Raises ValueError for shapes that do not fit,
        FloatingPointError as `fit`.
        """
        check_runs_in_pieces("partial_fit", self.model)
        for layer in self.model.flatten():
            if not layer.time.in_y and not layer.takes_newest:
                got = type(layer).__name__
                raise ValueError(f"partial_fit: expected a model with an output at each step, got one with {got}")
        values, learns = self._window.learn(self._bptt, x_t, y_t)
        if learns:
            self._update()
        means = Means()
        means.add(values)
        return means.result()

    def reset_states(self) -> None:
        """Forget the state that a stateful `fit` and `partial_fit` carry on: the next sample begins from zeros."""
        self._carried.state = self._carried.rows = None
        self._window.samples = []

    # --- using the model ----------------------------------------------------------------------------------------------

    def evaluate(
        self, x: Any, y: Any, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None
    ) -> dict[str, float]:
        """Mean loss and metrics over all samples, without training: {"loss": ..., "accuracy": ...}.

        batch_size None: 256, or for a stateful trainer that of its state.
        """
        check_targets(y)
        data = self._data(x, y, lengths, reset_mask)
        return self._evaluate(data, self._batch_size(data, batch_size))

    def _evaluate(self, data: Data, batch_size: int) -> dict[str, float]:
        means = Means()
        for batch, outputs in self._outputs(data, batch_size):
            means.add(self._bptt.score(outputs, batch)[0])
        return means.result()

    @overload
    def predict(
        self, x: Array, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None
    ) -> Array: ...

    @overload
    def predict(self, x: Any, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None) -> Any: ...

    def predict(self, x: Any, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None) -> Any:
        """The model's outputs, samples first: (N, M), or (N, T, M) where it has one at each step, with zeros past the
        lengths; for a list of sequences then a list of arrays (T_i, M). batch_size as for `evaluate`."""
        data = self._data(x, None, lengths, reset_mask, may_be_empty=True)
        outputs = [self._bptt.samples_first(y) for _, y in self._outputs(data, self._batch_size(data, batch_size))]
        return data.joined(outputs, steps=self.model.time.in_y)

    def _outputs(self, data: Data, batch_size: int) -> Iterator[tuple[Batch, Array]]:
        """Each batch with what the model gives for it, in the model's layout."""
        state: Any = None
        for batch in data.batches(batch_size):
            outputs, state_n = self._bptt.run(self.model, batch, state)
            state = state_n if self.stateful else None
            yield batch, outputs

    # --- data ---------------------------------------------------------------------------------------------------------

    def _data(
        self, x: Any, y: Any = None, lengths: Any = None, reset_mask: Any = None, *, may_be_empty: bool = False
    ) -> Data:
        options: dict[str, Any] = {"dtype": features_dtype(self.model), "may_be_empty": may_be_empty}
        data = Data(x, y, lengths, reset_mask, steps=self.model.time.in_y, **options)
        check_axes(data, self.model)
        if reset_mask is not None and "reset_mask" not in self.model.accepts:
            raise ValueError("reset_mask: expected None, as no layer of the model takes resets")
        if data.lengths is not None and (self.model.needs_targets or not self.model.time.in_x):
            got = type(self.model).__name__
            raise ValueError(
                f"lengths: expected samples of one length, as targets of {got} do not have the lengths of its inputs; "
                "an EncoderDecoder counts them by its padding"
            )
        return data

    def _batch_size(self, data: Data, batch_size: int | None) -> int:
        """That of evaluate and predict."""
        if batch_size is None:
            batch_size = self._carried.rows if self.stateful and self._carried.rows else 256
            if self.stateful:
                batch_size = min(batch_size, len(data))
        batch_size = check_size("batch_size", batch_size)
        if self.stateful:
            check_whole_batches(data, batch_size)
        return batch_size

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimiser, history, random and carried state to one file, as a whole or not at all.

        `Trainer.load(path).fit(...)` then gives the numbers that `fit` would have given here. What callbacks know is in
        the file; they themselves, and losses and metrics that are functions of your own, are not: hand them to `load`.
        """
        saving.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        loss: LossName | Loss | None = None,
        callbacks: Sequence[Callback] = (),
        metrics: Sequence[MetricName | Metric] | None = None,
    ) -> Trainer:
        """The trainer that `save` wrote. `loss` and `metrics` are needed where the saved ones were your own functions.

        Raises FileNotFoundError if there is no such file, and ValueError that names the file if it is damaged, another
        program's, or has a layer whose class is not defined.
        """
        return saving.load(cls, path, loss, callbacks, metrics)
