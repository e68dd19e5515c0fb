"""RowGradient: the gradient of a table of vectors, kept as the rows that are not zero.

Letters: V rows of the table, D numbers in each, N tokens, K different ones.

Design:
a) A class beside arrays, and not the arrays' default: `layer.grads["weight"]` of an `Embedding` is an array unless
   sparse=True asks for rows, as in PyTorch. A dense gradient and rows mean different steps: Adam moves rows that no
   token has touched, by what it remembers of them, where rows alone are left as they are. That is the user's choice.
b) It has what this library asks of a gradient (`shape`, `dtype`, `fill`, `np.asarray`), so that layers, trainer and
   checks need not tell the two apart; optimisers and clipping see `indices` and `values`.
c) Rows are summed at once, when they are added: nothing of the caller's is kept, and accumulated gradients have the
   bits of dense ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _native

Array = NDArray[Any]


class RowGradient:
    """A gradient (V, D) of which only the rows `indices` (K,), ascending, are not zero; they are `values` (K, D).

    `np.asarray(gradient)` is the dense array. `fill(0)` forgets the rows; `gradient *= number` scales them.
    """

    ndim = 2
    indices: Array
    values: Array

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.fill(0)

    @property
    def size(self) -> int:
        """Of the dense array."""
        return self.shape[0] * self.shape[1]

    def add(self, tokens: Array, rows: Array) -> None:
        """Add rows[n] (N, D) to row tokens[n] (N,), int64 in 0..V-1, for each n: a token that comes twice gets both."""
        indices, values = sum_by_token(tokens, rows)
        if len(self.indices):
            indices = np.concatenate([self.indices, indices])
            indices, values = sum_by_token(indices, np.concatenate([self.values, values]))
        self.indices, self.values = indices, values

    def fill(self, value: float) -> None:
        """Forget all rows. Raises ValueError for any other value than 0, which would need all V rows."""
        if value != 0:
            raise ValueError(f"value: expected 0 for a gradient of rows, got {value!r}")
        self.indices = np.empty(0, np.int64)
        self.values = np.empty((0, self.shape[1]), self.dtype)

    def copy(self) -> RowGradient:
        """Another one, of the same rows."""
        made = RowGradient(self.shape, self.dtype)
        made.indices, made.values = self.indices.copy(), self.values.copy()
        return made

    def __imul__(self, factor: float) -> RowGradient:
        self.values *= self.dtype.type(factor)
        return self

    def __itruediv__(self, divisor: float) -> RowGradient:
        self.values /= self.dtype.type(divisor)
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("copy: expected None or True, as a gradient of rows has no dense array yet, got False")
        dense = np.zeros(self.shape, self.dtype)
        dense[self.indices] = self.values
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __repr__(self) -> str:
        V, D = self.shape
        return f"RowGradient({len(self.indices)} of {V} rows of {D}, {self.dtype})"


def sum_by_token(tokens: Array, rows: Array) -> tuple[Array, Array]:
    """The different tokens of tokens (N,), int64, in ascending order (K,), and the sums (K, D) of their rows (N, D),
    each in the order of its places."""
    if not len(tokens):
        return tokens, rows
    order = tokens.argsort(kind="stable")
    tokens = tokens[order]
    starts = np.flatnonzero(np.concatenate(([True], tokens[1:] != tokens[:-1], [True])))
    sums = _native.sum_rows(np.ascontiguousarray(rows), order, starts)
    return tokens[starts[:-1]], sums
