"""How weights start. Numbers are drawn in float64 and rounded, so one seed starts float32 and float64 alike.

Letters: D input size, H hidden size, G gates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float, dtype: Any) -> Array:
    """U(-bound, bound). PyTorch's layers take bound = 1/sqrt(H) for recurrent weights and biases of H units, and
    1/sqrt(D) for a linear layer of D inputs."""
    return rng.uniform(-bound, bound, shape).astype(dtype)


def orthogonal_gates(rng: np.random.Generator, gates: int, hidden_size: int, dtype: Any) -> Array:
    """A recurrent weight (G*H, H) of G independent H x H matrices, each orthogonal and uniformly distributed over all
    orthogonal matrices (Saxe, McClelland and Ganguli 2014): powers of them neither grow nor shrink a state.

    The sign correction is Mezzadri's (2007, How to generate random matrices from the classical compact groups):
    without it Q depends on the sign convention of the QR routine and is not uniform.
    """
    q, r = np.linalg.qr(rng.standard_normal((gates, hidden_size, hidden_size)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return q.reshape(gates * hidden_size, hidden_size).astype(dtype)
