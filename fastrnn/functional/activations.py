"""Activations g for outputs and layers and, under each, da from dy and y = g(a): NumPy, of any shape.

Those inside the recurrent cells are in the kernels. Infinite inputs, and results that round to zero, follow IEEE rules
without a warning, whatever the caller's np.seterr.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._validate import Array

ieee = np.errstate(over="ignore", under="ignore", invalid="ignore")


@ieee
def _sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), with exponents that are never positive and so cannot overflow."""
    e = np.exp(-np.abs(a))
    y: Array = np.where(a < 0, e, 1) / (1 + e)
    return y


@ieee
def _sigmoid_backward(dy: Array, y: Array) -> Array:
    da: Array = dy * y * (1 - y)
    return da


@ieee
def _tanh_backward(dy: Array, y: Array) -> Array:
    da: Array = dy * (1 - y * y)
    return da


def _relu(a: Array) -> Array:
    return np.maximum(a, 0)


def _relu_backward(dy: Array, y: Array) -> Array:
    """The subgradient at 0 is 0, as in the kernels and PyTorch also for a dy that is not finite."""
    return np.where(y <= 0, 0, dy).astype(y.dtype, copy=False)


@ieee
def _softmax(a: Array) -> Array:
    """e^a_i / sum_j e^a_j over the last axis, shifted by the largest entry so that it cannot overflow."""
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


@ieee
def _softmax_backward(dy: Array, y: Array) -> Array:
    """The Jacobian is diag(y) - y y^T."""
    da: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return da


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "tanh": (np.tanh, _tanh_backward),
    "relu": (_relu, _relu_backward),
    "softmax": (_softmax, _softmax_backward),
    "identity": (lambda a: a, lambda dy, y: dy),
}
