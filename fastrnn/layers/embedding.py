"""Embedding: a vector for each token.

Letters: V vocabulary, D size of a vector; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_dtype, check_size
from ..streaming.stream import ChainBuilder
from .module import Array, Module
from .protocol import NOTHING, Context


class Embedding(Module):
    """y = weight[x]: integer tokens x (...), each in 0..V-1, to vectors y (..., D). Equal to one_hot(x) @ weight.

    Parameter weight (V, D), which starts N(0, 1) as in PyTorch.
    Raises TypeError for tokens that are no integers, IndexError that names a token out of range.
    """

    reads = "tokens"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.dtype = check_dtype("dtype", dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        generator = self._generator(rng, *shape, kind="Embedding")
        self.add_param("weight", generator.standard_normal(shape).astype(self.dtype))

    def arguments(self) -> dict[str, Any]:
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, "dtype": self.dtype.name}

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer tokens, got {x.dtype}")
        if x.size:
            for token in (x.min(), x.max()):
                if not 0 <= token < self.num_embeddings:
                    raise IndexError(f"x: expected tokens 0..{self.num_embeddings - 1}, got {token}")
        if training:
            self._cache = (x,)
        return self._params["weight"].take(x, axis=0), None

    def compile_into(self, builder: ChainBuilder) -> bool:
        return builder.add_embedding(self._params["weight"])

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dweight[v] += the sum of dy over all places that hold token v. Tokens have no gradient: dx is None."""
        (x,) = self._kept()
        if dy.shape != (*x.shape, self.embedding_dim):
            raise ValueError(f"dy: expected shape {(*x.shape, self.embedding_dim)}, got {dy.shape}")
        self._cache = None
        if not x.size:
            return None, None
        # Sorting brings equal tokens together, so each row is written once; 1.5 to 5 times as fast as np.add.at.
        tokens = x.reshape(-1)
        order = tokens.argsort(kind="stable")
        tokens = tokens[order]
        starts = np.flatnonzero(np.concatenate(([True], tokens[1:] != tokens[:-1])))
        sums = np.add.reduceat(dy.reshape(-1, self.embedding_dim)[order], starts, axis=0)
        self._grads["weight"][tokens[starts]] += sums
        return None, None
