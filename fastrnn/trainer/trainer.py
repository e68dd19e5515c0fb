"""Trainer: fit, evaluate and predict with a model, a loss and an optimiser; save it all and go on later.

Letters: N samples, T time steps, T_i those of sample i, D input_size, M outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from .. import optim
from .._validate import as_generator, check_every, check_limit, check_size, check_tbptt, own_generator
from ..layers import Module
from . import saving
from .arrays import NamedArrays
from .bptt import BPTT
from .callbacks import Callback
from .carried import CarriedState
from .checkpointing import CheckpointedBPTT
from .checkpoints import newest
from .checks import check_callbacks, check_model, check_pieces, check_rows, check_targets
from .data import Batch, Data
from .feeding import Feeding, in_validation_data, weigh_sample
from .history import History
from .loop import Loop, Plan, Position
from .objective import Loss, LossName, Metric, MetricName, Objective
from .online import OnlineWindow
from .source import Arrays, Source, Stream, is_stream
from .tally import Means, Values

Array = NDArray[Any]
OptimizerName = Literal["sgd", "rmsprop", "adagrad", "adam", "adamw"]


class Trainer:
    """Minimise a loss of a model's outputs by gradient steps on minibatches.

    Data are samples first, whatever the layout of the layers: x (N, T, D), or tokens (N, T), or a list of N sequences
    (T_i, D) or (T_i,) of any lengths. y is (N,) or (N, ...); for a model with an output at each step (N, T) or
    (N, T, ...), or a list of N arrays (T_i,) or (T_i, ...). `lengths` (N,) says how many steps of each row of an array
    count. Each batch is padded, or cut, to its own longest sequence. `reset_mask` (N, T), bool, or a list of (T_i,):
    where True the state is zeroed before that step. `mask` likewise: where False the step is not real. The state is
    carried over it, it counts in no loss, metric or pooling layer, and x and y may hold anything there. x may have any
    real dtype: it is converted to that of the layers.

    model: a `fastrnn.Sequential`, or another layer that returns one array.
    loss: "cross_entropy", "bce", "mse", "mae", "huber", "quantile" or "ctc"; one of the functions of
        `fastrnn.losses`, also with options: functools.partial(fastrnn.losses.cross_entropy, label_smoothing=0.1); or a
        function of your own, (outputs, targets) -> (loss, gradient in the outputs). For sequences it sees both
        time-major, (T, N, ...).
    optimizer: a `fastrnn.Optimizer` or its name, "sgd", "rmsprop", "adagrad", "adam" or "adamw"; None: Adam(lr=1e-3).
    clip_norm, clip_value: limit the gradients' common norm, or each entry, before each step.
    callbacks: `fastrnn.Callback` objects.
    rng: seed or Generator for the order of the samples.
    metrics: names and objects of `fastrnn.metrics`, such as "accuracy", "f1" or TopKAccuracy(k=3), and functions of
        your own, (outputs, targets) -> number; None: accuracy where the loss is one of classes or of yes and no.

    Long sequences, for layers that read forward in time only:
    stateful: sample i of a batch goes on where sample i of the batch before has ended, as in Keras. Batches are of one
        size and in the order of the data. Each epoch of one `fit` begins from the state that this `fit` began with; the
        next `fit` goes on where the last one ended. `reset_states()` begins anew, `reset_mask` in between.
        `evaluate` and `predict` carry a state from batch to batch of their own, from zeros.
    tbptt: k, an update after each k steps, with the state carried on and the gradient cut there; (k1, k2), an update
        after each k1 steps, with the gradient of their losses going back k2 steps (Williams and Peng 1990).
    checkpoint_every: k or "sqrt", exact gradients in the memory of k steps, or of about sqrt(T), for one more forward.
    window: how many steps back the gradients of `partial_fit` go.

    accumulate: the gradients of so many batches, or with tbptt of so many windows, go into one update, as of one batch
        of all their samples.

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
        accumulate: int = 1,
    ) -> None:
        check_model(model)
        self._bptt = BPTT(model, Objective(loss, metrics))
        self.optimizer = optim.Adam(lr=1e-3) if optimizer is None else optim.get(optimizer)
        self.clip_norm = check_limit("clip_norm", clip_norm)
        self.clip_value = check_limit("clip_value", clip_value)
        self.callbacks = check_callbacks(callbacks)
        self.history = History()
        self.stop_training = False
        self.log_names: tuple[str, ...] = ()  # of the fit under way
        self._rng = own_generator(as_generator("rng", rng))
        self.stateful = bool(stateful)
        self.tbptt = check_tbptt(tbptt)
        self._carried = CarriedState()
        self._window = OnlineWindow(check_size("window", window), self._carried)
        self.accumulate = self._bptt.gathered.wanted = check_size("accumulate", accumulate)
        self._bptt.gathered.summed = self.objective.is_sum
        self.resuming = False  # whether a fit under way goes on with an earlier one
        self._position: Position | None = None  # of the last fit
        self._run_options: dict[str, Any] = {}
        self.completed = False  # whether the last fit has come to its end
        self._running = False
        every = check_every(checkpoint_every)
        check_pieces(model, self.stateful, self.tbptt, every, self.objective)
        self._checkpointed = None if every is None else CheckpointedBPTT(self._bptt, every)
        self._feeding = Feeding(self)
        self._arrays = NamedArrays(model)
        self.optimizer.resolve(model.params)
        saving.check_savable(self)

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
        self._bptt.gathered.summed = objective.is_sum

    @property
    def checkpoint_every(self) -> int | str | None:
        return None if self._checkpointed is None else self._checkpointed.every

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        *,
        lengths: Any = None,
        reset_mask: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        progress: bool = True,
        shuffle: bool | None = None,
        bucket: bool = False,
        resume: bool = False,
    ) -> History:
        """Train for `epochs` more epochs, one update per `batch_size` samples (the last batch may be smaller).

        x may be an iterable of batches instead, then without y: see `docs/training.md`.
        sample_weight: (N,), or for targets at every step (N, T), or a list of (T_i,); class_weight: a dict, an array or
        "balanced". Within a batch the loss is the weighted mean, and batches count by the sum of their weights.
        validation_data: (x, y), (x, y, lengths), (x, y, lengths, sample_weight) or an iterable of batches, evaluated
        after each epoch. validation_split: the last part of the samples instead, such as 0.1, before any shuffling.
        shuffle: a new order in each epoch; None for True, unless the trainer is stateful. bucket: sequences of similar
        length go into one batch, so that less is padded. progress: a bar for each epoch on stderr.
        resume: go on with the run that this trainer was saved in, from the batch where it was, with the same data and
        arguments, until it has had `epochs` epochs; a trainer that has not run begins.
        Returns the history of this fit; `history` has all.
        Raises ValueError for data that do not fit, FloatingPointError that names epoch and batch (from 1) when the
        loss or, with clip_norm, the gradient's norm is not finite; the parameters are then those before that update.
        """
        epochs, batch_size = check_size("epochs", epochs), check_size("batch_size", batch_size)
        shuffle = not self.stateful if shuffle is None else shuffle
        rows, weights = (lengths, reset_mask, mask), (sample_weight, class_weight)
        if is_stream(x, y):
            source: Source = self._feeding.stream(x, epochs, rows, weights)
            validation: Data | Stream | None = None
            if validation_split or bucket:
                raise ValueError("validation_split, bucket: expected none of them with an iterable of batches")
        else:
            check_targets(y)
            data = self._feeding.data(x, y, rows, weights)
            data, validation = self._feeding.split(data, validation_split, validation_data)
            self._feeding.check_order(data, batch_size, shuffle, bucket)
            source = Arrays(data)
        if self.stateful:
            self._window.settle(self.model)
            check_rows(self._carried.rows, batch_size)
        with in_validation_data():
            if validation_data is not None:
                validation = self._feeding.validation(validation_data)
            self._try_validation(validation)
        self.stop_training = False
        plan = Plan(source, epochs, batch_size, shuffle, bucket, validation, progress)
        self._position = position = self._begin(plan, resume)
        Loop(self, plan, position).run()
        return self.history.since(position.first)

    def _begin(self, plan: Plan, resume: bool) -> Position:
        position = self._position if resume else None
        self.resuming = position is not None
        if position is None:
            position = Position(self.history.epochs, self.history.epochs, begin=self._carried.state)
            self._run_options = plan.options()
        elif self._run_options != plan.options():
            raise ValueError(f"resume: expected the run's {self._run_options}, got {plan.options()}")
        return position

    def _try_validation(self, data: Data | Stream | None) -> None:
        """What would be wrong with the validation data after an epoch is wrong now: one batch is evaluated."""
        if data is not None:
            found = next(self._outputs(data, self._batch_size(data, None)), None)
            if found is None:
                raise ValueError("expected at least one batch, got none")
            self._bptt.score(found[1], found[0])

    def _train_batch(self, batch: Batch) -> Iterator[Values]:
        """One update, or with tbptt several, or with `accumulate` a part of one: for each the tallies of the loss and
        the metrics."""
        if self._checkpointed is not None:
            items = self._checkpointed.gradients(batch)
        else:
            items = self._bptt.whole(batch) if self.tbptt is None else self._bptt.truncated(batch, *self.tbptt)
        self._bptt.state = self._carried.state if self.stateful else None
        gathered = self._bptt.gathered
        for values, learns in items:
            gathered.learned |= learns  # otherwise every target is ignored
            gathered.batches += 1
            if gathered.batches == self.accumulate:
                self._finish_update()
            yield values
        if self.stateful:
            self._carried.state = self._bptt.state

    def _finish_update(self) -> None:
        """The update by the gradients of the batches so far."""
        if self._bptt.gathered.close():
            self._update()

    @property
    def at_update(self) -> bool:
        """Whether no gradients wait for an update."""
        return not self._bptt.gathered.batches

    def _update(self) -> None:
        (params, grads), frozen = self._arrays.get(), []
        if not self.model.trainable:
            trainable = self.model.trainable_params
            frozen = [name for name in params if name not in trainable]
        self.optimizer.step(params, grads, clip_norm=self.clip_norm, clip_value=self.clip_value, frozen=frozen)

    def partial_fit(
        self, x_t: Any, y_t: Any, *, mask: Any = None, sample_weight: Any = None, class_weight: Any = None
    ) -> dict[str, float]:
        """Learn from the next sample of a stream: one update, with the state carried on to the next call.

        x_t (D,), or (N, D) for N streams side by side, or tokens, a number or (N,); y_t the target of that step, with
        the axis N where x_t has it. The last `window` steps are run again for each sample, and the gradient goes back
        through them. The state is that of a stateful `fit` too: either goes on where the other has ended.
        mask: True or False, or (N,) of bool: for which streams the step is real; the others keep their state.
        sample_weight: a number or (N,); class_weight: a dict or an array; the gradient is multiplied by them.
        Returns the loss and the metrics, as they were before the update. Raises ValueError for shapes that do not fit,
        FloatingPointError as `fit`.
        """
        self._window.check(self.model, self.objective)
        weighting = weigh_sample(y_t, sample_weight, class_weight)
        with np.errstate(all="ignore"):
            values, learns = self._window.learn(self._bptt, x_t, y_t, weighting, mask)
            if learns:
                self._update()
        means = Means()
        means.add(values)
        return means.result()

    def reset_states(self) -> None:
        """Forget the state that a stateful `fit` and `partial_fit` carry on: the next sample begins from zeros."""
        self._carried.state = self._carried.rows = None
        self._window.forget()

    # --- using the model ----------------------------------------------------------------------------------------------

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        *,
        lengths: Any = None,
        reset_mask: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
    ) -> dict[str, float]:
        """Mean loss and metrics over all samples, without training: {"loss": ..., "accuracy": ...}.

        Data and weights as for `fit`. batch_size None: 256, or for a stateful trainer that of its state.
        """
        rows, weights = (lengths, reset_mask, mask), (sample_weight, class_weight)
        if is_stream(x, y):
            return self._evaluate(self._feeding.stream(x, 1, rows, weights), 1)
        check_targets(y)
        data = self._feeding.data(x, y, rows, weights)
        return self._evaluate(data, self._batch_size(data, batch_size))

    def _evaluate(self, data: Data | Stream, batch_size: int) -> dict[str, float]:
        means = Means()
        with np.errstate(all="ignore"):
            for batch, outputs in self._outputs(data, batch_size):
                means.add(self._bptt.score(outputs, batch)[0])
        return means.result()

    @overload
    def predict(
        self, x: Array, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None, mask: Any = None
    ) -> Array: ...

    @overload
    def predict(
        self, x: Any, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None, mask: Any = None
    ) -> Any: ...

    def predict(
        self, x: Any, batch_size: int | None = None, *, lengths: Any = None, reset_mask: Any = None, mask: Any = None
    ) -> Any:
        """The model's outputs, samples first: (N, M), or (N, T, M) where it has one at each step, with zeros past the
        lengths, at masked steps that of the state as it was carried; for a list of sequences then a list of arrays
        (T_i, M). batch_size as for `evaluate`."""
        data = self._feeding.data(x, None, (lengths, reset_mask, mask), may_be_empty=True)
        with np.errstate(all="ignore"):
            outputs = [self._bptt.samples_first(y) for _, y in self._outputs(data, self._batch_size(data, batch_size))]
        return data.joined(outputs, steps=self.model.time.in_y)

    def _outputs(self, data: Data | Stream, batch_size: int) -> Iterator[tuple[Batch, Array]]:
        """Each batch with what the model gives for it, in the model's layout."""
        state: Any = None
        for batch in data.batches(batch_size) if isinstance(data, Data) else map(data.read, data.raw()):
            outputs, state_n = self._bptt.run(self.model, batch, state)
            state = state_n if self.stateful else None
            yield batch, outputs

    def _batch_size(self, data: Data | Stream, batch_size: int | None) -> int:
        """That of evaluate and predict."""
        return self._feeding.batch_size(data, batch_size, self._carried.rows)

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
        """The trainer that `save` wrote, or of a folder of `Checkpoints` the newest. `loss` and `metrics` are needed
        where the saved ones were your own functions.

        Raises FileNotFoundError if there is no such file, and ValueError that names the file if it is damaged, another
        program's, or has a layer whose class is not defined.
        """
        return saving.load(cls, newest(path), loss, callbacks, metrics)
