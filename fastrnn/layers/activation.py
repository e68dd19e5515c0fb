"""Activation: a function of each element, or softmax over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_choice, check_dtype
from ..functional.activations import ACTIVATIONS
from ..streaming.builder import ChainBuilder
from .module import Array, Module
from .protocol import NOTHING, Context


class Activation(Module):
    """y = g(x), elementwise or, for softmax, over the last axis; x of any shape, float32 or float64.

    name: "sigmoid", "tanh", "relu", "softmax" or "identity". Before `cross_entropy` no softmax is needed: that loss
    takes logits.
    """

    _arguments = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.exact_in_chain = name == "identity"
        self.name = check_choice("name", name, ACTIVATIONS)

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
        check_dtype("x", x.dtype)
        y = ACTIVATIONS[self.name][0](x)
        if training:
            self._cache = y
        return y, None

    def compile_into(self, builder: ChainBuilder) -> bool:
        return builder.add_activation(self.name)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        y = self._kept()
        if dy.shape != y.shape:
            raise ValueError(f"dy: expected shape {y.shape}, got {dy.shape}")
        self._cache = None
        return ACTIVATIONS[self.name][1](dy, y), None
