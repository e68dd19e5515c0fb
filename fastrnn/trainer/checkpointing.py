"""Exact backpropagation through time in memory that does not grow with the sequence: checkpointing of states.

Letters: N batch, T time steps, F features, k steps of a segment.

A first pass without training keeps the state at the beginning of each segment of k steps. Then the segments are run
again in training, from the last to the first, each handing the gradient of its first state to the one before (the last
one is run in training at once). What training keeps is that of one segment, so with k of the order of sqrt(T) memory
grows as sqrt(T), at the price of one more forward (Chen et al. 2016, Training deep nets with sublinear memory cost;
Gruslys et al. 2016, Memory-efficient backpropagation through time). The loss is taken step by step, or of what a
pooling layer makes of all steps. Checkpoints here are states in memory; files on disk are the matter of `saving`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..layers import Sequential
from .bptt import BPTT, Array, State, check_loss, check_runs_in_pieces, real
from .data import Batch
from .tally import Values, mean

# "sqrt" means segments of ROOTS * sqrt(T) steps, at least SHORTEST: in shorter ones calls take as long as their work.
ROOTS, SHORTEST = 4, 256


class CheckpointedBPTT:
    """`gradients(batch)` as `BPTT.whole` has them, in segments of `every` steps; "sqrt": as many as `cut` says.

    Layers compute the same in training as without it, except those that draw random numbers (dropout): with such layers
    the first pass is one in training, and the second draws the same numbers again.
    Raises ValueError for a model that cannot be cut in time, and for one whose last layer with an axis of time in x
    cannot merge segments, as pooling layers can.
    """

    def __init__(self, propagation: BPTT, every: int | str) -> None:
        self.propagation, self.every = propagation, every
        model = propagation.model
        check_runs_in_pieces("checkpoint_every", model)
        if "targets" in model.accepts:
            raise ValueError(
                "checkpoint_every: expected a model that is not fed with targets in training, got one that is"
            )
        layers = model.flatten()
        end = next((k for k, layer in enumerate(layers) if not layer.time.in_y), len(layers))
        last = max((k for k, layer in enumerate(layers[:end]) if "state" in layer.accepts), default=None)
        if last is None:
            raise ValueError("checkpoint_every: expected a model with a layer that has a state, got one without")
        self.pool: Any = layers[end] if end < len(layers) else None  # which has `merge` and `split`
        head = layers[end + 1 :]
        if self.pool is not None and not hasattr(self.pool, "merge"):
            got = type(self.pool).__name__
            raise ValueError(
                f"checkpoint_every: expected a pooling layer that can merge segments, such as LastStep, got {got}"
            )
        self.body, self.head = Sequential(*layers[:end]), Sequential(*head) if head else None
        self.carrying = Sequential(*layers[: last + 1])  # the layers up to the last that has a state

    def gradients(self, batch: Batch) -> Iterator[tuple[Values, bool]]:
        """One item, as of `BPTT.whole`."""
        propagation, run = self.propagation, self.propagation.run
        segments = cut(batch.T, self.every)
        loss: _Loss
        if self.pool is not None:
            loss = _PoolLoss(self, batch, segments)
        elif propagation.objective.in_pieces:
            loss = _StepLoss(self, batch, segments)
        else:
            loss = _OutputLoss(self, batch, segments)
        # What the first pass runs: the layers that carry a state, or all that the loss needs.
        ahead = self.carrying if isinstance(loss, _StepLoss) else self.body
        generators = [generator for _, generator in ahead.generators()]
        entries = propagation.model.flatten_state(propagation.state)
        state = tuple(entries[: len(ahead)])
        behind = (None,) * (len(self.body) - len(ahead))  # layers without a state
        states, drawn = [], []
        for start, stop in segments[:-1]:
            states.append(state)
            drawn.append([generator.bit_generator.state for generator in generators])
            y, state = run(ahead, batch, state, start, stop, training=bool(generators))
            loss.add(y)
        y, state = run(self.body, batch, state + behind, *segments[-1], training=True)
        loss.add(y)
        entries[: len(state)] = state
        propagation.state = propagation.model.unflatten_state(iter(entries))
        finished = [generator.bit_generator.state for generator in generators]

        if not loss.begin():
            yield loss.values(), False
            return
        dstate: State = None
        for index in reversed(range(len(segments))):
            if index < len(states):  # all but the last, which has just been run
                _restore(generators, drawn[index])
                y, _ = run(self.body, batch, states[index] + behind, *segments[index], training=True)
            dy = loss.gradient(index, y)
            _, dstate = self.body.run_backward(dy, dstate, need_dx=False)
        _restore(generators, finished)
        yield loss.values(), check_loss(loss.values())


def cut(T: int, every: int | str) -> list[tuple[int, int]]:
    """Where the segments of T steps start and stop."""
    k = every if isinstance(every, int) else max(ROOTS * math.isqrt(T), SHORTEST)
    return [(start, min(start + k, T)) for start in range(0, T, k)]


class _Loss:
    """The loss of one batch, whose gradient is asked for segment by segment."""

    def __init__(self, owner: CheckpointedBPTT, batch: Batch, segments: list[tuple[int, int]]) -> None:
        self.owner, self.batch, self.segments = owner, batch, segments
        self.propagation, self.objective = owner.propagation, owner.propagation.objective

    def add(self, y: Array) -> None:
        """Take in what the first pass gives for the next segment."""

    def begin(self) -> bool:
        """After the first pass: whether there is something to learn; then gradients may be added to the model's. Raises
        as `check_loss`."""
        raise NotImplementedError

    def gradient(self, index: int, y: Array) -> Array:
        """The gradient in the body's outputs y of a segment, run again."""
        raise NotImplementedError

    def values(self) -> Values:
        """What the objective says of the whole batch, after the last segment."""
        raise NotImplementedError


class _StepLoss(_Loss):
    """A loss of fastrnn's at every step: taken when a segment is run again, so no outputs are kept."""

    def begin(self) -> bool:
        self.parts: list[tuple[Values, int]] = []  # values and weight
        self.weighted = self.batch.weighting().loss is not None
        self.weights = [
            self.objective.weight(
                self._targets(start, stop), self.batch.lengths_in(start, stop), real(self.batch.mask(start, stop))
            )
            for start, stop in self.segments
        ]
        if any(self.weights):
            self.scale = self.propagation.gathered.begin(self.count, np.ones(1))[0]
        return any(self.weights)

    @property
    def count(self) -> float:
        return sum(self.weights) if self.objective.is_mean else len(self.batch)

    def _targets(self, start: int, stop: int) -> Array:
        return self.batch.y(start, stop, steps=True).swapaxes(0, 1)

    def gradient(self, index: int, y: Array) -> Array:
        start, stop = self.segments[index]
        outputs = self.propagation.time_major(y)
        values, dy = self.objective(
            outputs,
            self._targets(start, stop),
            len(self.batch),
            self.batch.lengths_in(start, stop),
            self.propagation.weighting(self.batch, outputs.shape, start, stop),
            real(self.batch.mask(start, stop)),
        )
        if self.objective.is_mean:
            dy *= self.weights[index] / sum(self.weights)
        if self.scale != 1:
            dy *= dy.dtype.type(self.scale)
        self.parts.append((values, self.weights[index]))
        return self.propagation.time_major(dy)

    def values(self) -> Values:
        values: Values = {}
        for part, weight in self.parts:
            for name, tally in part.items():
                if name == "loss" and not self.objective.is_mean:
                    tally = mean(tally.result(), 1)
                elif name == "loss" and not self.weighted:  # the whole counts as many as one call for it would say
                    tally = mean(tally.result(), weight)
                values[name] = values[name].plus(tally) if name in values else tally
        loss = values.get("loss", mean(0.0, 0))
        if not self.objective.is_mean:
            values["loss"] = mean(float(loss.sums[0]), len(self.batch), self.count)
        elif not self.weighted:
            counts = self.batch.lengths is not None or self.batch.masked or self.objective.counts_targets
            total = float(loss.sums[1]) if counts or not loss.sums[1] else len(self.batch)
            values["loss"] = mean(loss.result() if total else 0.0, total, self.count)
        else:
            values["loss"].count = self.count
        return values


class _OutputLoss(_Loss):
    """A loss of the user's own at every step: it may look at all steps at once, so all outputs are kept for it."""

    def __init__(self, owner: CheckpointedBPTT, batch: Batch, segments: list[tuple[int, int]]) -> None:
        super().__init__(owner, batch, segments)
        self.outputs: list[Array] = []

    def add(self, y: Array) -> None:
        self.outputs.append(self.propagation.time_major(y))

    def begin(self) -> bool:
        whole = self.propagation.time_major(np.concatenate(self.outputs))
        self.outputs.clear()
        self._values, dwhole = self.propagation.score(whole, self.batch)
        learns = check_loss(self._values)
        if learns:
            dwhole = self.propagation.gathered.begin(self._values["loss"].count, dwhole)
        self.dwhole = self.propagation.time_major(dwhole)
        return learns

    def gradient(self, index: int, y: Array) -> Array:
        return self.propagation.time_major(self.dwhole[slice(*self.segments[index])])

    def values(self) -> Values:
        return self._values


class _PoolLoss(_Loss):
    """A loss of what a pooling layer makes of all steps, and the layers behind of that: the segments are pooled one by
    one, and the pooling layer merges what comes of them."""

    def __init__(self, owner: CheckpointedBPTT, batch: Batch, segments: list[tuple[int, int]]) -> None:
        super().__init__(owner, batch, segments)
        self.pool: Any = owner.pool
        self.ends = [batch.counts_in(start, stop) for start, stop in segments]
        self.counts = [self._real(index) for index in range(len(segments))]
        self.parts: list[Array] = []  # (N, F) of each segment

    def _real(self, index: int) -> Array:
        """How many real steps of each row lie in a segment."""
        mask = self.batch.mask(*self.segments[index])
        if mask is None:
            return self.ends[index]
        return (mask & (np.arange(mask.shape[1]) < self.ends[index][:, None])).sum(axis=1)

    def _pooled(self, index: int, y: Array, training: bool) -> Array:
        mask = self.propagation.mask_of(self.pool, self.batch.mask(*self.segments[index]))
        pooled: Array = self.pool(y, lengths=self.ends[index], mask=mask, training=training)
        return pooled

    def add(self, y: Array) -> None:
        self.parts.append(self._pooled(len(self.parts), y, training=False))

    def begin(self) -> bool:
        features, self.shares = self.pool.merge(self.parts, self.counts)
        head = self.owner.head
        y = features if head is None else head(features, training=True)
        self._values, dy = self.objective(
            y, self.batch.y(steps=False), len(self.batch), weighting=self.batch.weighting()
        )
        learns = check_loss(self._values)
        if learns:
            dy = self.propagation.gathered.begin(self._values["loss"].count, dy)
            self.dpooled = dy if head is None else head.backward(dy)
        return learns

    def gradient(self, index: int, y: Array) -> Array:
        self._pooled(index, y, training=True)
        return self.pool.backward(self.pool.split(self.dpooled, self.shares[index]))

    def values(self) -> Values:
        return self._values


def _restore(generators: list[np.random.Generator], states: list[Any]) -> None:
    for generator, state in zip(generators, states):
        generator.bit_generator.state = state
