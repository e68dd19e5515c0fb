"""Options by name, and the checks that the compiled core does not make."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from .. import _native

Array = NDArray[Any]
Maybe = Optional[Array]

NONLINEARITIES = {name: _native.ACTIVATIONS[name] for name in ("tanh", "relu", "sigmoid", "identity")}
OUTPUT_ACTIVATIONS = {name: _native.ACTIVATIONS[name] for name in (*NONLINEARITIES, "softmax")}
GATE_ACTIVATIONS = {name: _native.ACTIVATIONS[name] for name in ("sigmoid", "hard_sigmoid", "hard_sigmoid_6")}


def option(name: str, value: Any, known: dict[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")
    return known[value]


def need(**arrays: Any) -> None:
    for name, array in arrays.items():
        if array is None:
            raise TypeError(f"{name}: expected a NumPy array, got NoneType")


def check(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a positive number, got {value!r}")
    if not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)
