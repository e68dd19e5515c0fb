"""What the machine's BLAS reaches: the ceiling that the kernels are held against.

Two measures: one large square product, measured at the start of a run, and the "same flops" products of a problem, of
exactly the sizes that its forward pass takes, (T*N, D + H) x (D + H, G*H), timed in turns with the contenders. Both use
the better of NumPy's and PyTorch's BLAS and as many threads as fastrnn.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from fastrnn.bench.measure import Plan, measure
from fastrnn.bench.peers import PEERS

GEMM = "gemm"  # the name under which the same-flops products run beside the contenders
LIBRARIES = ("numpy", "torch")
LARGE = 2048


def products_call(library: str, sizes: Sequence[tuple[int, int, int]], dtype: str) -> Callable[[], None]:
    """A call that computes these products (rows, inner, columns) in "numpy" or "torch", into arrays it keeps."""
    rng = np.random.default_rng(0)
    arrays = [
        tuple(
            rng.standard_normal(size, dtype=np.dtype(dtype))
            for size in ((rows, inner), (inner, columns), (rows, columns))
        )
        for rows, inner, columns in sizes
    ]
    multiply: Callable[..., Any] = np.matmul
    if library == "torch":
        import torch

        arrays = [tuple(map(torch.from_numpy, each)) for each in arrays]
        multiply = torch.mm

    def call() -> None:
        for a, b, c in arrays:
            multiply(a, b, out=c)

    return call


def large_gflops(libraries: Iterable[str], dtype: str, plan: Plan) -> dict[str, float]:
    """Library -> GFLOP/s of a product of two LARGE x LARGE matrices."""
    size = LARGE
    calls = {library: products_call(library, [(size, size, size)], dtype) for library in libraries}
    settling = {library: PEERS[library].settling for library in calls}
    blocks = measure(calls, replace(plan, rounds=3, least_rounds=3), settling=settling)
    return {library: 2 * size**3 / median(seconds) / 1e9 for library, seconds in blocks.items()}
