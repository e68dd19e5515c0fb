"""Words with character n-grams: a vector for every word, met or not.

Letters: V words, D vector_size, B buckets of n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._native import _words
from .keyed_vectors import KeyedVectors, _unit

Array = NDArray[Any]


class SubwordVectors(KeyedVectors):
    """Vectors that are means of a word's own row and those of its n-grams; of the n-grams alone for a word that has no
    row.

    vectors: (V, D) the means; vectors_vocab: (V, D) the words' own rows; vectors_ngrams: (B, D).
    """

    def __init__(self, vector_size: int, min_n: int, max_n: int, bucket: int) -> None:
        self.min_n, self.max_n, self.bucket = min_n, max_n, bucket
        self.vectors_vocab = np.zeros((0, vector_size), np.float32)
        self.vectors_ngrams = np.zeros((0, vector_size), np.float32)
        self._grams: tuple[Array, Array] | None = None
        super().__init__(vector_size)

    def set_parts(self, words: Sequence[str], own: Array, ngrams: Array, counts: Any, grams: Any) -> None:
        """Take the rows of words and of n-grams. grams: what `_words.ngram_rows` gave, with rows behind those of
        words."""
        self.vectors_vocab, self.vectors_ngrams, self._grams = own, ngrams, grams
        self.set_vectors(words, np.zeros((len(words), self.vector_size), np.float32), counts)

    def refresh(self) -> None:
        """Work the words' vectors out anew."""
        super().refresh()
        if self._grams is None:
            return
        rows, begins = self._grams
        for word in range(len(self)):
            own = self.vectors_vocab[word]
            grams = self.vectors_ngrams[rows[begins[word] : begins[word + 1]] - len(self)]
            self.vectors[word] = (own + grams.sum(0)) / (1 + len(grams))

    def __contains__(self, key: object) -> bool:
        return key in self.key_to_index or (isinstance(key, str) and len(self._rows_of(key)) > 0)

    def get_vector(self, key: str, norm: bool = False) -> Array:
        """The vector (D,) of a word, of any word that has an n-gram; KeyError for one that has none."""
        if key in self.key_to_index:
            return super().get_vector(key, norm)
        rows = self._rows_of(key)
        if not len(rows):
            raise KeyError(f"key: expected a word with n-grams of {self.min_n} to {self.max_n} characters, got {key!r}")
        vector: Array = self.vectors_ngrams[rows].mean(0)
        return _unit(vector) if norm else vector

    def _rows_of(self, key: str) -> Array:
        if not len(self.vectors_ngrams):
            return np.empty(0, np.int32)
        return _words.ngram_rows([key], self.min_n, self.max_n, self.bucket, 0)[0]
