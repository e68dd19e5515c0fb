"""Linear: an affine map of the last axis.

Letters: D input features, M outputs; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
from .._native import Stack, map_backward, map_forward
from .._validate import as_real, check_dtype, check_size
from ..functional.linear import LinearCache, checked_linear_map
from ..functional.spec import LINEAR
from ..streaming.builder import ChainBuilder
from .init import uniform
from .module import Array, Module
from .protocol import NOTHING, Context


class Linear(Module):
    """y = W x + b on the last axis: x (..., D) -> y (..., M). Parameters weight (M, D) and bias (M,).

    Both start as in PyTorch, U(-1/sqrt(D), 1/sqrt(D)). With W_hy and b_y of RNN texts: weight = W_hy, bias = b_y.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape.
    """

    _arguments = ("in_features", "out_features", "bias", "dtype")
    optional_input_grad = True

    reads = "features"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.bias = bool(bias)
        self.dtype = check_dtype("dtype", dtype)
        self.features = self.in_features
        rng, bound = self._generator(rng, self.in_features, self.out_features, kind="Linear"), self.in_features**-0.5
        self.add_param("weight", uniform(rng, (self.out_features, self.in_features), bound, self.dtype))
        if self.bias:
            self.add_param("bias", uniform(rng, (self.out_features,), bound, self.dtype))

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        stack = self._stack or self.open_stack()
        if training:
            found = map_forward(stack, x)
            if found is not None:
                y, sequence = found
                self._cache = LinearCache(sequence, x.shape, y.shape[-1], self.dtype)
                return y, None
        else:
            y = stack.map(x)
            if y is not None:
                return y, None
        x = as_real("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        y, cache = checked_linear_map(x, self._params["weight"], self._params.get("bias"), training)
        if training:
            self._cache = cache
        return y, None

    def make_stack(self) -> Stack:
        names = {"weight_ih": "weight"} | ({"bias_ih": "bias"} if self.bias else {})
        return Stack(self._params, [names], 1, LINEAR.compiled)

    def compile_into(self, builder: ChainBuilder) -> bool:
        return builder.add_linear(self._params["weight"], self._params.get("bias"), self.open_stack())

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        kept, stack = self._kept(), self._stack or self.open_stack()
        found = map_backward(stack, kept.sequence, kept.shape, dy, self._grads, need_dx)
        if found is None:
            into: dict[str, Any] = self._grads if need_dx else {**self._grads, "x": None}
            found = functional.linear_backward(dy, kept, into=into)["x"], None
        self._cache = None
        return found
