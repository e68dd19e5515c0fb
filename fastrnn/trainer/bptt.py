"""Backpropagation through time for the trainer, whole or truncated. In bounded memory: `checkpointing`.

Letters: N batch, T time steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Module
from .data import Batch
from .objective import Objective
from .tally import Values
from .weights import Weighting

Array = NDArray[Any]
State = Any


class BPTT:
    """Forward and backward of a model under an objective, on samples-first batches.

    A batch's gradients come from a generator, `whole` or `truncated`, whose items are (values, learns): what the
    objective says, and whether `model.grads` now holds gradients for one update; where no target counts it does not.
    The sequences begin from `state`, None for zeros, and leave there what they end with.
    """

    def __init__(self, model: Module, objective: Objective) -> None:
        self.model = model
        self.objective = objective
        self.state: State = None
        self.gathered = Gathered(model)

    def whole(self, batch: Batch) -> Iterator[tuple[Values, bool]]:
        """Full backpropagation through time: one item."""
        outputs, self.state = self.run(self.model, batch, self.state, training=True)
        values, doutputs = self.score(outputs, batch)
        yield values, self.learn(values, doutputs)

    def truncated(self, batch: Batch, k1: int, k2: int) -> Iterator[tuple[Values, bool]]:
        """Truncated backpropagation, BPTT(k2; k1) of Williams and Peng (1990): an item after every k1 steps, with the
        gradient of those steps' losses back through the last k2 steps. Each step's loss counts once.

        The steps before the new ones are run again, from the state that the window begins with, under the weights as
        they then are.
        """
        # Layers that compute otherwise in training, with dropout or fed with targets, carry a state of training on.
        differs = any(self.model.generators()) or "targets" in self.model.accepts
        for done in range(0, batch.T, k1):
            start, stop = max(0, done + k1 - k2), min(done + k1, batch.T)
            first = self.state
            outputs, state_n = self.run(self.model, batch, first, start, stop, training=True)
            values, doutputs = self.score(outputs, batch, done, stop)
            learns = self.learn(values, doutputs)
            following = max(0, stop + k1 - k2)  # where the next window begins, at most at stop
            if following == stop or stop == batch.T:
                self.state = state_n
            elif following > start:
                self.state = self.run(self.model, batch, first, start, following, training=differs)[1]
            yield values, learns

    def learn(self, values: Values, doutputs: Array) -> bool:
        """The backward of a run in training; whether there was something to learn."""
        learns = check_loss(values)
        if learns:
            self.model.run_backward(self.gathered.begin(values["loss"].count, doutputs), need_dx=False)
        return learns

    def run(
        self,
        layers: Module,
        batch: Batch,
        state: State,
        start: int = 0,
        stop: int | None = None,
        *,
        training: bool = False,
    ) -> tuple[Array, State]:
        """Outputs of the model's first layers over a piece of the batch, in the layout of the layers, and the state."""
        lengths = batch.lengths_in(start, stop)
        fed = {}
        wanted = "targets" in layers.accepts if training else layers.needs_targets
        if wanted and layers is self.model and batch.has_targets:  # a piece of it does not put out what targets are of
            y = batch.y(start, stop, steps=layers.time.in_y)
            fed["targets"] = y.swapaxes(0, 1) if layers.batch_first is False and layers.time.in_y else y
        return layers.run(
            self.from_samples_first(batch.x(start, stop)),
            state,
            lengths=lengths if "lengths" in layers.accepts else None,
            reset_mask=batch.reset_mask(start, stop),
            mask=self.mask_of(layers, batch.mask(start, stop)),
            training=training,
            **fed,
        )

    def mask_of(self, layers: Module, mask: Array | None) -> Array | None:
        """The mask (N, T) as the layers read it; None where none of them does."""
        if mask is None or layers.batch_first is None:
            return None
        return mask if layers.batch_first else mask.T

    def score(self, outputs: Array, batch: Batch, start: int = 0, stop: int | None = None) -> tuple[Values, Array]:
        """The objective's values for the last steps of `outputs`, those from start to stop, and the gradient of all."""
        if not self.model.time.in_y:
            return self.objective(outputs, batch.y(steps=False), len(batch), weighting=batch.weighting())
        outputs = self.time_major(outputs)
        if not self.objective.per_step:
            values, doutputs = self.objective(
                outputs,
                batch.y(steps=False),
                len(batch),
                batch.lengths_in(start, stop),
                batch.weighting(),
                real(batch.mask(start, stop)),
            )
            return values, self.time_major(doutputs)
        new = outputs if stop is None else outputs[start - stop :]
        y, lengths = self.targets(outputs, batch, start, stop), batch.lengths_in(start, stop)
        weighting = self.weighting(batch, new.shape, start, stop)
        values, dnew = self.objective(new, y, len(batch), lengths, weighting, real(batch.mask(start, stop)))
        if len(new) == len(outputs):
            return values, self.time_major(dnew)
        doutputs = np.zeros_like(outputs)
        doutputs[-len(new) :] = dnew
        return values, self.time_major(doutputs)

    def targets(self, outputs: Array, batch: Batch, start: int, stop: int | None) -> Array:
        """Targets at every step, time-major as outputs (T, N, ...) are."""
        y = batch.y(start, stop, steps=True)
        return y.swapaxes(0, 1) if y.ndim > 1 and (self.model.batch_first is False or outputs.ndim > 2) else y

    def weighting(self, batch: Batch, shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> Weighting:
        """Weights of the targets of time-major outputs (T, N, ...)."""
        weighting = batch.weighting(start, stop)
        return weighting.map(lambda w: np.broadcast_to(w, shape[:2]) if w.ndim == 1 else w.swapaxes(0, 1))

    # --- layouts ------------------------------------------------------------------------------------------------------

    def from_samples_first(self, x: Array) -> Array:
        """The view of x that the model reads."""
        return x.swapaxes(0, 1) if self.model.batch_first is False and self.model.time.in_x and x.ndim > 1 else x

    def samples_first(self, outputs: Array) -> Array:
        """The outputs of a run of the model as the trainer's users have them."""
        return outputs.swapaxes(0, 1) if self.model.time.in_y and self.model.batch_first is False else outputs

    def time_major(self, outputs: Array) -> Array:
        """From the layout of the outputs of a model that keeps time to (T, N, ...), or back."""
        return outputs if self.model.batch_first is False or outputs.ndim < 3 else outputs.swapaxes(0, 1)


class Gathered:
    """The gradients of the batches that go into one update: sums, each counted by how many targets it is a mean of."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.wanted = 1  # batches of an update
        self.batches = 0
        self.total = 0.0
        self.summed = False  # the losses are sums themselves
        self.learned = False  # whether there are gradients

    def begin(self, count: float, doutputs: Array) -> Array:
        """Before a batch's backward: its gradient as it is to be summed."""
        if not self.total:
            self.model.zero_grad()
        if self.wanted == 1:
            return doutputs
        self.total += count
        return doutputs if self.summed else doutputs * doutputs.dtype.type(count)

    def close(self) -> bool:
        """Before the update: the model's gradients are that of the mean over all batches. False if there are none."""
        learned = self.learned
        if self.wanted > 1 and self.total and not self.summed:
            for grad in {id(grad): grad for grad in self.model.grads.values()}.values():
                values = getattr(grad, "values", grad)  # of a gradient of some rows those
                np.multiply(values, values.dtype.type(1 / self.total), out=values)
        self.batches, self.total, self.learned = 0, 0.0, False
        return learned


def real(mask: Array | None) -> Array | None:
    """A batch's mask (N, T) time-major, as objectives take it."""
    return None if mask is None else mask.T


def check_loss(values: Values) -> bool:
    """Whether there is something to learn. Raises FloatingPointError if the loss is not finite."""
    loss = values["loss"]
    if loss.sums[1] and not math.isfinite(loss.sums[0]):
        raise FloatingPointError(f"loss: expected a finite number, got {loss.result()}")
    return bool(loss.sums[1])


def check_runs_in_pieces(option: str, model: Module) -> None:
    """Refuse a model whose sequences cannot be cut in time: ValueError that names the layer and the option."""
    for layer in model.flatten():
        name = type(layer).__name__
        if layer.state_spec is not None and layer.state_spec.directions == 2:
            raise ValueError(
                f"{option}: expected layers that read forward in time, got a bidirectional {name}, whose reverse "
                "direction begins at the end of the whole sequence"
            )
        if layer.batch_first is not None and layer.time.in_y and "state" not in layer.accepts:
            raise ValueError(
                f"{option}: expected layers that carry a state from step to step, got {name}, which has none"
            )
