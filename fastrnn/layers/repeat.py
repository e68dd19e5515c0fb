"""Repeat: from one vector to a sequence.

Letters: T time steps, N batch, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_size
from .module import Array, Module
from .protocol import NOTHING, Context, Time


class Repeat(Module):
    """The same vector at every one of T = steps time steps: x (N, D) to y (T, N, D), or (N, T, D) with batch_first;
    (D,) to (T, D). Before a recurrent layer it makes a network from one vector to a sequence; behind `LastStep`, the
    decoder's input of a sequence autoencoder. Raises ValueError for another number of axes.
    """

    _arguments = ("steps", "batch_first")
    time = Time.CREATES
    batch_first: bool

    def __init__(self, steps: int, *, batch_first: bool = False) -> None:
        super().__init__()
        self.steps = check_size("steps", steps)
        self.batch_first = bool(batch_first)

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        if not isinstance(x, np.ndarray) or x.ndim not in (1, 2):
            got = x.shape if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"x: expected an array of shape (N, D) or (D,), got {got}")
        axis = self._axis(x.ndim)
        y = np.repeat(np.expand_dims(x, axis), self.steps, axis)
        if training:
            self._cache = y.shape, axis
        return y, None

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dx is the sum of dy over the time steps."""
        shape, axis = self._kept()
        if dy.shape != shape:
            raise ValueError(f"dy: expected shape {shape}, got {dy.shape}")
        self._cache = None
        return dy.sum(axis), None

    def _axis(self, ndim: int) -> int:
        return 1 if self.batch_first and ndim == 2 else 0
