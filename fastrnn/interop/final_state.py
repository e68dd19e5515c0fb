"""FinalState: what each direction of a recurrent layer ends with, out of the layer's output.

Letters: T time steps, N batch, H hidden_size, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Module
from ..layers.module import Array


class FinalState(Module):
    """y (N, S*H) from the output (T, N, S*H) of a recurrent layer, or (N, T, S*H) with batch_first: the forward half at
    each sequence's last step, the backward half at its first, where that direction ends. Keras's return_sequences=False.

    directions: "forward", "backward" or "both". With lengths (N,) the last step of row n is lengths[n] - 1, and y is
    zero where that length is 0. `LastStep` takes both halves at the last step instead.
    """

    keeps_time = False
    takes_lengths = True

    def __init__(self, directions: str = "both", *, batch_first: bool = False) -> None:
        super().__init__()
        if directions not in ("forward", "backward", "both"):
            raise ValueError(f"directions: expected 'forward', 'backward' or 'both', got {directions!r}")
        self.directions = directions
        self.batch_first = bool(batch_first)

    def arguments(self) -> dict[str, Any]:
        return {"directions": self.directions, "batch_first": self.batch_first}

    def __call__(self, x: Array, *, lengths: Any = None, training: bool = False) -> Array:
        if not isinstance(x, np.ndarray) or x.ndim != 3 or not x.size:
            raise ValueError(f"x: expected an array of three axes, nothing empty, got {getattr(x, 'shape', type(x))}")
        steps = x.swapaxes(0, 1) if self.batch_first else x
        T, N, width = steps.shape
        last = np.full(N, T - 1) if lengths is None else np.maximum(np.asarray(lengths), 1) - 1
        half = {"forward": width, "backward": 0, "both": width // 2}[self.directions]
        y = np.concatenate([steps[last, np.arange(N), :half], steps[0, :, half:]], axis=1)
        empty = None if lengths is None else np.asarray(lengths) == 0
        if empty is not None:
            y[empty] = 0
        if training:
            self._cache = x.shape, x.dtype, last, half, empty
        return y

    def backward(self, dy: Array) -> Array:
        shape, dtype, last, half, empty = self._kept()
        self._cache = None
        dx = np.zeros(shape, dtype)
        steps = dx.swapaxes(0, 1) if self.batch_first else dx
        if empty is not None:
            dy = np.where(empty[:, None], 0, dy)
        steps[last, np.arange(len(last)), :half] = dy[:, :half]
        steps[0, :, half:] = dy[:, half:]
        return dx
