"""Vectors that are looked up rather than written out: what an Embedding hands to a recurrent layer in training.

Letters: T time steps, N batch, V vocabulary, K different tokens, D size of a vector.

Design: a recurrent layer behind an Embedding needs of table[tokens] only the product with its input weights, and that
is one of V rows. Where V is small beside T * N, as in every model of characters, `Sequential` therefore hands on the
tokens and the table, and gets back the gradients of the rows that were met: a quarter of the work of two layers is
saved. Anything else that meets a `Lookup` takes it for the array that it stands for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native

Array = NDArray[Any]
FEW = 4  # a table is small that has so many times fewer rows than there are tokens


class Lookup:
    """Stands for table[tokens]: tokens (T, N) or (N, T), int64 and checked; table (V, D); both C-contiguous."""

    def __init__(self, tokens: Array, table: Array) -> None:
        self.tokens, self.table = tokens, table
        self.shape: tuple[int, ...] = (*tokens.shape, table.shape[1])
        self.ndim, self.dtype = len(self.shape), table.dtype

    @staticmethod
    def pays(tokens: Array, table: Array) -> bool:
        """Whether projecting the table is less work than projecting what is looked up. Tiles of lower precision have no
        way to look up."""
        few = tokens.ndim == 2 and FEW * len(table) <= tokens.size
        return few and table.flags.c_contiguous and _native.get_matmul_precision() == "highest"

    def time_major(self, batch_first: bool) -> Lookup:
        return Lookup(np.ascontiguousarray(self.tokens.T), self.table) if batch_first else self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        rows = _native.take_rows(self.table, self.tokens.reshape(-1)).reshape(self.shape)
        return rows if dtype is None else rows.astype(dtype, copy=False)


class LookupGradient:
    """The gradient of what a `Lookup` stood for, as `parts`: pairs of different tokens (K,) and the sums (K, D) of the
    gradients at their places, one pair of each direction that has read them."""

    def __init__(self, parts: list[tuple[Array, Array]]) -> None:
        self.parts = parts
