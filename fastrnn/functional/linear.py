"""Linear maps of the last axis. Letters: D inputs, M outputs; `...` any leading axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _native
from .._validate import Array, Maybe, check_array
from .spec import LINEAR


def linear_forward(x: Array, weight: Array, bias: Maybe = None, *, training: bool = True) -> tuple[Array, Any]:
    """y = W x + b on the last axis: x (..., D), weight (M, D), bias (M,) or None -> y (..., M) and the cache, which is
    None unless training.

    The recurrent kernels compute it too: no second library's threads wake up between two recurrent layers.
    """
    return linear_map(x, weight, bias, ("x", "weight", "bias"), training)


def linear_backward(dy: Array, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """The dict of x, weight, bias: dx = W^T dy, dW = sum of dy x^T, db = sum of dy. `into` as in `rnn_backward`."""
    if not isinstance(cache, LinearCache):
        raise TypeError(f"cache: expected the cache of linear_forward, got {type(cache).__name__}")
    check_array("dy", dy, (*cache.shape[:-1], cache.outputs), cache.dtype, "weight")
    given = {}
    for name, array in (into or {}).items():
        if name not in _LINEAR_KEYS:
            raise ValueError(f"into: expected keys among {', '.join(_LINEAR_KEYS)}, got {name!r}")
        given[_LINEAR_KEYS[name]] = array
    wants_new, dx = "x" not in given, given.get("x")
    if dx is not None:
        check_array("into['x']", dx, cache.shape, cache.dtype, "weight")
        if dx.flags.c_contiguous:
            given["x"] = _rows(dx)
        else:
            del given["x"]
    gradients = _native.backward(cache.sequence, _rows(dy), None, None, given)
    if wants_new:
        dx = gradients["x"].reshape(cache.shape)
    elif dx is not None and not dx.flags.c_contiguous:
        dx += gradients["x"].reshape(cache.shape)
    return {"x": dx, "weight": gradients["weight_ih"], "bias": gradients["bias_ih"]}


def _rows(x: Array) -> Array:
    """x (..., D) as one time step with all rows in its batch; no rows are a sequence of T = 0."""
    return x.reshape(1, -1, x.shape[-1]) if x.size else x.reshape(0, 1, x.shape[-1])


_LINEAR_KEYS = {"x": "x", "weight": "weight_ih", "bias": "bias_ih"}


class LinearCache:
    def __init__(self, sequence: Any, shape: tuple[int, ...], outputs: int, dtype: np.dtype[Any]) -> None:
        self.sequence, self.shape, self.outputs, self.dtype = sequence, shape, outputs, dtype


def linear_map(
    x: Array, weight: Array, bias: Maybe, names: tuple[str, str, str], training: bool = True
) -> tuple[Array, Any]:
    M, D = check_array(names[1], weight, ("M", "D"))
    check_array(names[0], x, (*x.shape[:-1], D) if isinstance(x, np.ndarray) else (), weight.dtype, names[1])
    if bias is not None:
        check_array(names[2], bias, (M,), weight.dtype, names[1])
    return checked_linear_map(x, weight, bias, training)


def checked_linear_map(x: Array, weight: Array, bias: Maybe, training: bool) -> tuple[Array, Any]:
    """The same of arrays that fit each other: a layer has checked its weights when it was made."""
    M = len(weight)
    y, _, _, sequence = _native.forward(LINEAR.compiled, _rows(x), weight_ih=weight, bias_ih=bias, training=training)
    return y.reshape(*x.shape[:-1], M), LinearCache(sequence, x.shape, M, weight.dtype) if training else None
