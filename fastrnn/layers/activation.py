"""Activation: a function of each element, or softmax over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_choice, check_dtype
from ..functional.activations import ACTIVATIONS
from ..functional.checks import NONLINEARITIES
from .module import Array, Module


class Activation(Module):
    """y = g(x), elementwise or, for softmax, over the last axis; x of any shape, float32 or float64.

    name: "sigmoid", "tanh", "relu", "softmax" or "identity". Before `cross_entropy` no softmax is needed: that loss
    takes logits.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = check_choice("name", name, ACTIVATIONS)

    def arguments(self) -> dict[str, Any]:
        return {"name": self.name}

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
        check_dtype("x", x.dtype)
        y = ACTIVATIONS[self.name][0](x)
        if training:
            self._cache = y
        return y

    def stream_links(self, chain: Any) -> bool:
        """Part of the linear map before it, where there is one."""
        if self.name == "identity":
            return True
        last = chain.links[-1] if chain.links else {"weight_hh": None, "activation": None}
        if (
            last.get("weight_hh") is not None
            or last["activation"] != NONLINEARITIES["identity"]
            or self.name not in NONLINEARITIES
        ):
            return False
        last["activation"] = NONLINEARITIES[self.name]
        return True

    def backward(self, dy: Array) -> Array:
        y = self._kept()
        if dy.shape != y.shape:
            raise ValueError(f"dy: expected shape {y.shape}, got {dy.shape}")
        self._cache = None
        return ACTIVATIONS[self.name][1](dy, y)
