"""Embedding: a vector for each token.

Letters: V vocabulary, D size of a vector, N tokens; `...` any leading axes.

Design: sparse=True is an option, as in PyTorch, and not the rule. It changes what a step means (rows that no token has
touched stay as they are, moments and weight decay included), so the default is the textbook's step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _native
from .._validate import as_generator, check_boolean, check_dtype, check_size
from ..row_gradient import RowGradient, sum_by_token
from ..streaming.builder import ChainBuilder
from .module import Array, Module
from .protocol import NOTHING, Context
from .weights import Start


class Embedding(Module):
    """y = weight[x]: integer tokens x (...), each in 0..V-1, to vectors y (..., D). Equal to one_hot(x) @ weight.

    Parameter weight (V, D), which starts N(0, 1) as in PyTorch.
    padding_idx: a token whose vector starts as zeros and gets no gradient.
    sparse: `grads["weight"]` is a `fastrnn.RowGradient`, the rows of the tokens seen, and so a training step costs what
        its tokens cost, however large V is. Optimisers then are lazy: they update those rows only, with the moments,
        momentum and weight decay of those rows; the count of steps, by which Adam corrects its means, is that of all.
    Raises TypeError for tokens that are no integers, IndexError that names a token out of range.
    """

    reads = "tokens"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.padding_idx = _check_padding(padding_idx, self.num_embeddings)
        self.sparse = check_boolean("sparse", sparse)
        self.dtype = check_dtype("dtype", dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        generator = self._generator(rng, *shape, kind="Embedding")
        self._set_weight(generator.standard_normal(shape).astype(self.dtype))
        if self.padding_idx is not None:
            self._params["weight"][self.padding_idx] = 0

    @classmethod
    def from_pretrained(
        cls,
        vectors: Any,
        vocabulary: Iterable[str] | None = None,
        *,
        freeze: bool = True,
        padding_idx: int | None = None,
        sparse: bool = False,
        dtype: Any = None,
        rng: int | np.random.Generator | None = None,
    ) -> Embedding:
        """A layer that starts from vectors: an array (V, D), or word vectors with `vectors` and `key_to_index`, as
        those of `fastrnn.words` and gensim's KeyedVectors.

        vocabulary: the words of tokens 0, 1, ...: row k is then the vector of word k. Words without one start normally
        distributed with the deviation of the vectors' numbers; None takes the vectors in their own order.
        freeze: True as in PyTorch; `unfreeze()` undoes it. dtype: None for that of the vectors, float32 where they have
        another.
        Raises TypeError for vectors of no real numbers, ValueError for a wrong shape, and for a vocabulary beside a
        bare array or of which no word has a vector.
        """
        table = np.asarray(getattr(vectors, "vectors", vectors))
        if table.dtype.kind not in "fiu":
            raise TypeError(f"vectors: expected real numbers (V, D) or word vectors, got {table.dtype}")
        if table.ndim != 2 or not table.size:
            raise ValueError(f"vectors: expected shape (V, D), got {table.shape}")
        if dtype is None:
            dtype = table.dtype if table.dtype in (np.float32, np.float64) else np.float32
        if vocabulary is not None:
            table = _in_order_of(vocabulary, vectors, table, as_generator("rng", rng))
        layer = cls.__new__(cls)
        Module.__init__(layer)
        layer.num_embeddings, layer.embedding_dim = table.shape
        layer.padding_idx = _check_padding(padding_idx, len(table))
        layer.sparse = check_boolean("sparse", sparse)
        layer.dtype = check_dtype("dtype", dtype)
        layer._set_weight(np.array(table, layer.dtype, order="C"))
        layer._start = Start(None, True, table.shape)  # a Sequential with an rng leaves the vectors as they are
        if check_boolean("freeze", freeze):
            layer.freeze()
        return layer

    def _set_weight(self, weight: Array) -> None:
        self.add_param("weight", weight)
        if self.sparse:
            grads: dict[str, Any] = self._grads
            grads["weight"] = RowGradient(weight.shape, weight.dtype)

    def arguments(self) -> dict[str, Any]:
        options = {"padding_idx": self.padding_idx, "sparse": self.sparse}
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            **{name: value for name, value in options.items() if value is not None and value is not False},
            "dtype": self.dtype.name,
        }

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer tokens, got {x.dtype}")
        if x.dtype == np.uint64 and x.size and x.max() >= self.num_embeddings:  # it would turn negative
            raise IndexError(f"x: expected tokens 0..{self.num_embeddings - 1}, got {x.max()}")
        tokens = np.ascontiguousarray(x.reshape(-1), np.int64)
        y = _native.take_rows(self._params["weight"], tokens).reshape(*x.shape, self.embedding_dim)
        if training:
            self._cache = (tokens, y.shape)
        return y, None

    def compile_into(self, builder: ChainBuilder) -> bool:
        return builder.add_embedding(self._params["weight"])

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dweight[v] += the sum of dy over all places that hold token v. Tokens have no gradient: dx is None."""
        tokens, shape = self._kept()
        if dy.shape != shape:
            raise ValueError(f"dy: expected shape {shape}, got {dy.shape}")
        self._cache = None
        rows = dy.reshape(-1, self.embedding_dim)
        if self.padding_idx is not None and (kept := tokens != self.padding_idx).sum() < len(tokens):
            tokens, rows = tokens[kept], rows[kept]
        grad: Any = self._grads["weight"]
        if isinstance(grad, RowGradient):
            grad.add(tokens, rows)
        elif len(tokens):
            indices, sums = sum_by_token(tokens, rows)
            grad[indices] += sums
        return None, None


def _check_padding(padding_idx: int | None, V: int) -> int | None:
    """As in PyTorch, a negative one counts from the end."""
    if padding_idx is None:
        return None
    padding = check_size("padding_idx", padding_idx + V if -V <= padding_idx < 0 else padding_idx, least=0)
    if padding >= V:
        raise ValueError(f"padding_idx: expected a token 0..{V - 1}, got {padding_idx}")
    return padding


def _in_order_of(vocabulary: Iterable[str], vectors: Any, table: Array, rng: np.random.Generator) -> Array:
    """The vectors of the words of a vocabulary, (V, D)."""
    if not hasattr(vectors, "key_to_index"):
        raise ValueError("vocabulary: expected None beside a bare array, whose rows have no words, got a vocabulary")
    places = [vectors.key_to_index.get(word, -1) for word in vocabulary]
    found = np.array(places, np.int64)
    known = found >= 0
    if not known.any():
        raise ValueError(f"vocabulary: expected words among the vectors', got none of them in {len(found)}")
    made = rng.standard_normal((len(found), table.shape[1])) * table.std(dtype=np.float64)
    made[known] = table[found[known]]
    return made
