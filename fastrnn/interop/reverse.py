"""ReverseInTime: a recurrent layer that reads each sequence from its own end, as ONNX's and Keras's reverse layers do.

Letters: T time steps, N batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layers import Module, build
from ..layers.module import Array
from ..layers.protocol import NOTHING, Context


class ReverseInTime(Module):
    """The recurrent layer `layer`, run from the last step of each sequence to its first.

    output, state_n = layer(x, state=None, *, lengths=None, training=False)
        as `layer` has them; output stands in the order of x, and state_n is the state after step 0. With lengths (N,)
        row n begins at its step lengths[n] - 1.
    dx, dstate0 = layer.backward(doutput, dstate_n=None)
    """

    accepts = frozenset({"state", "lengths"})
    reads = "features"

    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer = layer
        self.batch_first = layer.batch_first
        self._lengths: Any = None

    @property
    def params(self) -> dict[str, Array]:
        return self.layer.params

    @property
    def grads(self) -> dict[str, Array]:
        return self.layer.grads

    def arguments(self) -> dict[str, Any]:
        return {"layer": self.layer.config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ReverseInTime:
        return cls(build(config["layer"]))

    def __call__(self, x: Array, state: Any = None, *, lengths: Any = None, training: bool = False) -> Any:
        """output, state_n: see the class."""
        return self._own_forward(x, state, context=Context(lengths), training=training)

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        turned = self._turned(x, context.lengths)
        output, state_n = self.layer.forward(turned, state, context=context, training=training)
        if training:
            self._lengths = context.lengths
        return self._turned(output, context.lengths), state_n

    def backward(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> Any:
        """dx, dstate0: see the class."""
        return self._own_backpropagate(dy, dstate_n, need_dx=need_dx)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        dy = None if dy is None else self._turned(dy, self._lengths)
        dx, dstate0 = self.layer.backpropagate(dy, dstate_n, need_dx=need_dx)
        return (None if dx is None else self._turned(dx, self._lengths)), dstate0

    def _turned(self, a: Array, lengths: Any) -> Array:
        """The steps of each sequence in the other order, those past its length where they were."""
        time = 1 if self.batch_first and a.ndim == 3 else 0
        if lengths is None:
            return np.flip(a, time)
        steps = np.arange(a.shape[time])[:, None]
        steps = np.where(steps < lengths, np.asarray(lengths) - 1 - steps, steps)  # (T, N)
        return np.take_along_axis(a, (steps.T if time else steps)[:, :, None], axis=time)
