"""Online learning: one update after each sample of a stream, through a window of the last k.

Letters: N sequences side by side, D input size, k steps of the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Module
from .bptt import BPTT, Array, check_loss
from .carried import CarriedState
from .checks import check_learns_online
from .objective import Objective
from .tally import Values
from .weights import EQUAL, Weighting


class OnlineWindow:
    """The last samples of a stream, up to k of them, behind the state that `carried` holds.

    `learn` leaves the gradient of the newest sample's loss, back through the window, in the model's grads: truncated
    backpropagation BPTT(k; 1) of Williams and Peng (1990). The window is run again for each sample, under the weights
    as they then are; the state before it is carried on by one step when its oldest sample leaves.
    """

    def __init__(self, k: int, carried: CarriedState) -> None:
        self.k = k
        self.carried = carried
        self.samples: list[Array] = []  # each (N, D), or (N,) tokens
        self.masks: list[Array] = []  # each (N,), which streams the step is real for
        self._checked: tuple[Module, Objective] | None = None

    def check(self, model: Module, objective: Objective) -> None:
        """Refuse what cannot learn online, once."""
        if self._checked != (model, objective):
            check_learns_online(model, objective)
            self._checked = model, objective

    def settle(self, model: Module) -> None:
        """Let the carried state take in all samples of the window, which then is empty."""
        if self.samples:
            _, self.carried.state = self._run(model, self.samples, self.masks)
            self.samples, self.masks = [], []

    def forget(self) -> None:
        self.samples, self.masks = [], []

    def _run(
        self, model: Module, samples: list[Array], masks: list[Array], training: bool = False
    ) -> tuple[Array, Any]:
        mask = None if all(part.all() for part in masks) else _stack(masks, model)
        return model.run(_stack(samples, model), self.carried.state, mask=mask, training=training)

    def learn(
        self, propagation: BPTT, x: Any, y: Any, weighting: Weighting = EQUAL, mask: Any = None
    ) -> tuple[Values, bool]:
        """One sample x (N, D) or (D,), for a model of tokens (N,) or a number, with its target y. As an item of
        `BPTT.whole`; what raises an error leaves the window as it was."""
        model = propagation.model
        x, y = self._sample(np.array(x), np.asarray(y))  # a copy: the window outlives the call
        real = _flags(mask, len(x))
        samples, masks = [*self.samples, x], [*self.masks, real]
        outputs, state_n = self._run(model, samples, masks, training=True)
        newest = propagation.time_major(outputs)[-1:] if model.time.in_y else outputs
        if model.time.in_y:
            weighting, y = weighting.map(lambda w: w[None]), y[None]
        elif not real.all():  # one row of one step
            newest, y, weighting = newest[None], y[None], weighting.map(lambda w: w[None])
        values, doutputs = propagation.objective(newest, y, len(x), None, weighting, real[None])
        if not model.time.in_y and not real.all():
            doutputs = doutputs[0]
        learns = check_loss(values)
        if learns:
            if model.time.in_y:
                all_steps = np.zeros_like(propagation.time_major(outputs))
                all_steps[-1:] = doutputs
                doutputs = propagation.time_major(all_steps)
            model.zero_grad()
            model.run_backward(doutputs, need_dx=False)
        state = self.carried.state
        if len(samples) == self.k:  # the oldest leaves
            random = any(model.generators())
            state = state_n if self.k == 1 else self._run(model, samples[:1], masks[:1], training=random)[1]
            samples, masks = samples[1:], masks[1:]
        self.carried.state, self.carried.rows, self.samples, self.masks = state, len(x), samples, masks
        return values, learns

    def _sample(self, x: Array, y: Array) -> tuple[Array, Array]:
        """With an axis of samples, and of the number and shape of those before."""
        tokens = x.dtype.kind in "iu"
        if x.ndim == (0 if tokens else 1):
            x, y = x[None], y[None]
        if x.ndim != (1 if tokens else 2):
            raise ValueError(
                f"x_t: expected one step, (D,) or (N, D), or tokens, a number or (N,), got shape {x.shape}"
            )
        rows = self.carried.rows
        if rows not in (None, len(x)) or (self.samples and x.shape != self.samples[0].shape):
            before = self.samples[0].shape if self.samples else f"({rows}, ...)"
            raise ValueError(f"x_t: expected shape {before} as before, got {x.shape}; reset_states() begins anew")
        if not y.ndim or len(y) != len(x):
            raise ValueError(f"y_t: expected one target per sample of x_t, {len(x)} of them, got shape {y.shape}")
        return x, y


def _stack(samples: list[Array], model: Module) -> Array:
    """The samples as a sequence in the layout that the model reads."""
    return np.stack(samples, axis=0 if model.batch_first is False else 1)


def _flags(mask: Any, N: int) -> Array:
    """(N,), from True or False for all, or one for each; None for True."""
    if mask is None:
        return np.ones(N, bool)
    flags = np.asarray(mask)
    if flags.dtype != bool:
        raise TypeError(f"mask: expected bool, got {flags.dtype}")
    if flags.shape not in ((), (N,)):
        raise ValueError(f"mask: expected True, False or shape ({N},), got {flags.shape}")
    return np.broadcast_to(flags, (N,)).copy()
