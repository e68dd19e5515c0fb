"""The calls of a stack of recurrent layers that run as one compiled call, all layers and directions of it.

Design: a call that the compiled core does not take as a whole, for what it is told or for options of the layer, goes
through the loop of `stacked`, layer by layer. Which way a call takes shows in its time alone.

Letters: T time steps, N batch, D input_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._native import Stack, train_backward, train_forward
from .._validate import as_real
from .dropout import dropout_mask
from .merge import merge_directions
from .module import Array
from .noise import Noise
from .protocol import Context
from .stack_states import StackStates


class StackCalls(StackStates):
    """A stack of recurrent layers, whose parameters have the names in `_names`."""

    merge: str
    dropout: float
    noise: Noise
    _rng: np.random.Generator
    _names: list[dict[str, str]]
    _plain = False  # whether inference is what the compiled call does and nothing more; False in pickles of before

    def make_stack(self) -> Stack:
        return Stack(self._params, self._names, self._directions, self.spec.compiled)

    def _infer(self, x: Any, state: Any, context: Context) -> tuple[Array, Any] | None:
        """The whole forward without training as one compiled call, from packed weights; None for what that does not
        take: no input, and what has to be refused."""
        lengths, reset_mask, _, steps, _, _, mask = context
        if x is None or steps is not None or mask is not None:
            return None
        stack = self._stack or self.open_stack()
        if self._plain:
            found = stack.run(x, state, lengths, reset_mask, self.batch_first)
            if found is not None:
                return found
        merges = self._directions == 2 and self.merge != "concat"
        if (merges and self.num_layers > 1) or any(self.noise.zoneout):
            return None
        if self.learn_initial_state and (reset_mask is not None or _lacks_a_part(state)):
            return None
        if state is None and self.learn_initial_state:
            N = np.shape(x)[0 if self.batch_first else 1] if np.ndim(x) == 3 else None
            learned = [self._params[f"initial_{name}"] for name in self.states]
            state = self._as_state(learned if N is None else [np.repeat(a[:, None], N, axis=1) for a in learned])
        told = state, lengths, reset_mask, self.batch_first
        found = stack.run(x, *told) or stack.run(as_real("x", x, self.dtype), *told)
        return (merge_directions(found[0], self.merge), found[1]) if merges and found else found

    def _train(self, x: Any, state: Any, context: Context) -> tuple[Array, Any] | None:
        """The whole forward in training as one compiled call; None for what that does not take: no input, noise, and
        what has to be converted or refused."""
        lengths, reset_mask, _, steps, _, _, mask = context
        if x is None or steps is not None or mask is not None or not self._plain:
            return None
        if self.noise.recurrent_dropout:
            return None
        stack, draw = self._stack or self.open_stack(), None
        if self.dropout and self.num_layers > 1:
            draw = self._draw_mask
        found = train_forward(stack, x, state, lengths, reset_mask, self.batch_first, draw)
        if found is None:
            return None
        y, state_n, shape, caches, masks = found
        self._cache = caches, masks, {}, shape, y.ndim == 3, False, []
        return y, state_n

    def _draw_mask(self, shape: tuple[int, ...]) -> Array:
        """What dropout multiplies the output of a layer by."""
        return dropout_mask(self._rng, shape, self.dropout, self.dtype)

    def _back_at_once(
        self, caches: Any, masks: Any, dy: Any, dstate_n: Any, batched: bool, need_dx: bool
    ) -> tuple[Any, Any] | None:
        """The whole backward as one compiled call; None for what that does not take."""
        if not self._plain or not caches:
            return None
        stack = self._stack or self.open_stack()
        try:
            found = train_backward(stack, caches, masks, dy, dstate_n, self._grads, batched, self.batch_first, need_dx)
        except BaseException:  # a signal has stopped it
            self._cache = None
            raise
        if found is not None:
            self._cache = None
        return found


def _lacks_a_part(state: Any) -> bool:
    """Whether a state is there, but not all parts of it, for which the core would take zeros."""
    return isinstance(state, (tuple, list)) and any(part is None for part in state)
