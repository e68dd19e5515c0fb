"""Dropout (Srivastava et al. 2014), inverted: what is kept is scaled up in training, so inference is the identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_dtype, check_probability, own_generator
from ..streaming.builder import ChainBuilder
from .module import Array, Module
from .protocol import NOTHING, Context


def dropout_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: Any) -> Array:
    """0 with probability p, otherwise 1 / (1 - p), so that x * mask has the expectation x."""
    keep = rng.random(shape, dtype=dtype) >= p
    return np.multiply(keep, 1 / (1 - p), dtype=dtype)


class Dropout(Module):
    """y = x * mask in training, y = x otherwise, for x of any shape, float32 or float64.

    Each entry is dropped with probability p, independently. `rng` (None, a seed or a Generator) starts a Generator of
    the layer's own. Raises ValueError unless 0 <= p < 1, TypeError for what is no such array.
    """

    _arguments = ("p",)
    optional_input_grad = True
    _rng: np.random.Generator

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None) -> None:
        super().__init__()
        self.p = check_probability("p", p)
        self._rng = own_generator(self._generator(rng, kind="Dropout"))

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
        check_dtype("x", x.dtype)
        if not training:
            return x, None
        mask = dropout_mask(self._rng, x.shape, self.p, x.dtype)
        self._cache = mask
        with np.errstate(under="ignore"):
            return x * mask, None

    def compile_into(self, builder: ChainBuilder) -> bool:
        return True  # nothing to do: streams do not train

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dx = dy * mask."""
        mask = self._kept()
        if not need_dx:
            self._cache = None
            return None, None
        if dy.shape != mask.shape:
            raise ValueError(f"dy: expected shape {mask.shape}, got {dy.shape}")
        self._cache = None
        with np.errstate(under="ignore"):
            return dy * mask, None
