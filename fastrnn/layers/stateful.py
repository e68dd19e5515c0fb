"""How a layer with a state is called. Letters: T time steps, N batch, D input features."""

from __future__ import annotations

from typing import Any

from .module import Array, Module
from .protocol import Context


class Stateful(Module):
    """A layer with a state, which its call returns beside the output and its backward beside dx."""

    accepts = frozenset({"state", "lengths", "reset_mask"})

    def __call__(
        self,
        x: Array | None,
        state: Any = None,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        mask: Array | None = None,
        steps: int | None = None,
        training: bool = False,
    ) -> tuple[Array, Any]:
        """output, state_n: the layer from `state` on, over the steps of x.

        x: (T, N, D), or (N, T, D) with batch_first, or (T, D) for one sequence without a batch axis; of the
            layer's dtype.
        state: one array or a tuple, as the class says; None for zeros, or for the learned initial state.
        lengths: integers (N,), 0..T in any order: sequence n ends after lengths[n] steps. Output past it is 0, the
            final state is that of its last step, and a reverse direction starts there. Work follows sum(lengths).
        reset_mask: bool (T, N), with batch_first too, (T, 1) for one sequence: where True the state is zeroed before
            that step, as at the start of an episode, and no gradient flows back across. A reverse direction's state is
            zeroed at the same boundary, after it has read that step. With a learned initial state resets go there, and
            their gradient.
        mask: bool (T, N), or (N, T) with batch_first, (T,) for one sequence: where False the step is not real. The row
            keeps its state there, and output is that of the step before: h as it was carried, so zeros before the
            first real step of a row that starts from zeros. What x holds there is not looked at. A reset at such a step
            is applied, then the state is carried. Not every layer takes one.
        steps: with x None, how many steps to run without input, s_t = f(s_{t-1}). The batch is that of the state, one
            sequence where there is none.
        training: True keeps what `backward` needs.

        output has the layout of x. state_n is like state.
        Raises TypeError for what is no array or has another dtype, ValueError for a wrong shape.
        """
        if lengths is None and reset_mask is None and steps is None and mask is None:
            return self._own_forward(x, state, training=training)
        if mask is not None and "mask" not in self.accepts:
            raise ValueError(f"mask: expected None, as {type(self).__name__} takes no mask")
        context = Context(lengths, reset_mask, None, steps, None, None, mask)
        return self._own_forward(x, state, context=context, training=training)

    def backward(
        self, doutput: Array | None, dstate_n: Any = None, *, need_dx: bool = True
    ) -> tuple[Array | None, Any]:
        """dx, dstate0: backpropagation through time, after a call with training=True, whose x and output must still be
        as they were.

        doutput is like output, dstate_n like state_n, each None for zeros. Parameter gradients are added to `grads`.
        dx is None where x was, and may be None with need_dx=False, which spares its computation.
        Raises RuntimeError without a training call before it.
        """
        return self._own_backpropagate(doutput, dstate_n, need_dx=need_dx)
