"""int8 weights and what meets them, in plain NumPy: what `fastrnn.quantize` stores, and what its kernels round.

A layer with int8 weights is the float32 layer with W = scale[:, None] * Q in place of its matrices, and with rows of x and of
h rounded before they are multiplied: `dequantize_rows` and `round_rows`. Letters: M outputs, D inputs; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def quantize_rows(weight: Array) -> tuple[Array, Array]:
    """Q (M, D), whole numbers in -127..127, and scale (M,), max |row| / 127, with weight ~ scale[:, None] * Q."""
    scale = (np.abs(weight).max(axis=1) / np.float32(127)).astype(np.float32)
    return np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).clip(-127, 127).astype(np.int8), scale


def dequantize_rows(values: Array, scale: Array) -> Array:
    """scale[:, None] * Q in float64: exact."""
    return values.astype(np.float64) * scale.astype(np.float64)[:, None]


def round_rows(x: Array) -> Array:
    """x (..., D) with each row rounded to whole numbers of its largest magnitude / 32767, in float64; NaN throughout a row that
    holds a NaN or an infinity. A row of numbers below 1e-30 has the step 1e-30 / 32767."""
    x = x.astype(np.float32)
    largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-30))
    finite = np.isfinite(largest)
    with np.errstate(invalid="ignore"):
        numbers = np.rint(np.where(finite, x * (np.float32(32767) / largest), 0).astype(np.float32))
    scale = np.where(finite, largest / np.float32(32767), np.nan)
    return numbers.astype(np.float64) * scale.astype(np.float64)
