"""Activations g and, directly under each, dy -> da in terms of y = g(a)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._validate import Array, check_choice

Activation = tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]


def _sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), written so that neither exponential can overflow; NaN stays NaN."""
    y: Array = np.exp(np.minimum(a, 0)) / (1 + np.exp(-np.abs(a)))
    return y


def _sigmoid_backward(dy: Array, y: Array) -> Array:
    da: Array = dy * y * (1 - y)
    return da


def _tanh_backward(dy: Array, y: Array) -> Array:
    da: Array = dy * (1 - y * y)
    return da


def _relu(a: Array) -> Array:
    return np.maximum(a, 0)


def _relu_backward(dy: Array, y: Array) -> Array:
    """The subgradient at 0 is 0."""
    return _zero_where(y <= 0, dy)


def _hard_sigmoid(slope: float) -> Activation:
    """slope a + 0.5, clipped to [0, 1], with the subgradient 0 at its two corners."""

    def forward(a: Array) -> Array:
        return np.clip(slope * a + 0.5, 0, 1)

    def backward(dy: Array, y: Array) -> Array:
        return _zero_where((y <= 0) | (y >= 1), slope * dy)

    return forward, backward


def _softmax(a: Array) -> Array:
    """e^a_i / sum_j e^a_j over the last axis, shifted by the largest entry so that it cannot overflow."""
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def _softmax_backward(dy: Array, y: Array) -> Array:
    """The Jacobian is diag(y) - y y^T, so da = y * (dy - y.dy)."""
    da: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return da


NONLINEARITIES: dict[str, Activation] = {
    "tanh": (np.tanh, _tanh_backward),
    "relu": (_relu, _relu_backward),
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "identity": (lambda a: a, lambda dy, y: dy),
}
GATE_ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "hard_sigmoid": _hard_sigmoid(0.2),  # ONNX, Keras 2
    "hard_sigmoid_6": _hard_sigmoid(1 / 6),  # relu6(a + 3) / 6: PyTorch, Keras 3
}
OUTPUT_ACTIVATIONS = NONLINEARITIES | {"softmax": (_softmax, _softmax_backward)}


def activation_of(name: str, value: Any, known: dict[str, Activation]) -> Activation:
    """The activation that the option `name` chooses."""
    return known[check_choice(name, value, known)]


def clipped(activation: Activation, limit: float | None, dtype: Any) -> Activation:
    """g(clip(a, -limit, limit)): its derivative is that of g strictly between g(-limit) and g(limit), 0 elsewhere.

    All these g are monotonic, so y alone tells whether a was clipped.
    """
    if limit is None:
        return activation
    g, g_backward = activation
    bounds = np.array([-limit, limit], dtype)
    low, high = g(bounds)

    def backward(dy: Array, y: Array) -> Array:
        return _zero_where((y <= low) | (y >= high), g_backward(dy, y))

    return lambda a: g(np.clip(a, *bounds)), backward


def _zero_where(condition: Array, a: Array) -> Array:
    """Zero also where a is not finite; a NaN compares false and so keeps its gradient."""
    return np.where(condition, 0, a).astype(a.dtype, copy=False)
