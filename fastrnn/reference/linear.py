"""y = W x + b, inside the cells and by itself. Letters: D inputs, M outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array, Maybe, check_array
from .cache import Cache, add_into, ieee, kept


def affine(v: Array, weight: Array, bias: Maybe) -> Array:
    a = v @ weight.T
    return a if bias is None else a + bias


def affine_backward(da: Array, v: Array, weight: Array, bias: Maybe) -> tuple[Array, Array, Maybe]:
    return da @ weight, da.T @ v, None if bias is None else da.sum(axis=0)


@ieee
def linear_forward(x: Array, weight: Array, bias: Maybe = None, *, training: bool = True) -> tuple[Array, Any]:
    """y = W x + b on the last axis: x (..., D), weight (M, D), bias (M,) or None -> y (..., M) and the cache, which is
    None unless training."""
    M, D = check_array("weight", weight, ("M", "D"))
    check_array("x", x, (*np.shape(x)[:-1], D), weight.dtype, "weight")
    if bias is not None:
        check_array("bias", bias, (M,), weight.dtype, "weight")
    return affine(x, weight, bias), Cache("linear_forward", (x, weight, bias)) if training else None


@ieee
def linear_backward(dy: Array, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """dx = W^T dy, dW = sum of dy x^T, db = sum of dy: a dict with keys x, weight, bias. `into` as in rnn_backward."""
    x, weight, bias = kept(cache, "linear_forward")
    check_array("dy", dy, (*x.shape[:-1], len(weight)), weight.dtype, "weight")
    dx, dweight, dbias = affine_backward(dy.reshape(-1, len(weight)), x.reshape(-1, x.shape[-1]), weight, bias)
    grads = add_into(into, {"x": dx.reshape(x.shape), "weight": dweight, "bias": dbias}, "weight")
    cache.kept = None
    return grads
