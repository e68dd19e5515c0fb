"""Vectors by their words: looked up, compared, ranked. The names are those of gensim's KeyedVectors.

Letters: V words, D vector_size, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_size
from . import evaluation, formats
from .tokens import PathLike

Array = NDArray[Any]
Ranked = list[tuple[str, float]]


class KeyedVectors:
    """The vectors (V, D) of words: wv["word"], wv.most_similar("word").

    index_to_key: the words, by number; key_to_index: their numbers; vectors: (V, D) float32. A word that is not there
    raises KeyError.
    """

    def __init__(self, vector_size: int) -> None:
        self.vector_size = check_size("vector_size", vector_size)
        self.set_vectors([], np.zeros((0, self.vector_size), np.float32))

    def set_vectors(self, words: Sequence[str], vectors: Array, counts: Any = None) -> None:
        """Take words and their vectors, without a copy where these are float32."""
        vectors = np.asarray(vectors)
        if vectors.dtype.kind not in "fiu" or vectors.shape != (len(words), self.vector_size):
            raise ValueError(
                f"vectors: expected real numbers of shape ({len(words)}, {self.vector_size}), "
                f"got {vectors.dtype} of {vectors.shape}"
            )
        self.index_to_key = list(words)
        self.key_to_index = {word: number for number, word in enumerate(self.index_to_key)}
        if len(self.key_to_index) != len(words):
            raise ValueError("words: expected each once, got one again")
        self.vectors: Array = vectors.astype(np.float32, copy=False)
        self.counts: Array | None = None if counts is None else np.asarray(counts, np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was worked out from vectors that have changed since."""
        self._norms: Array | None = None
        self._unit: Array | None = None

    def __len__(self) -> int:
        return len(self.index_to_key)

    def __contains__(self, key: object) -> bool:
        return key in self.key_to_index

    def __repr__(self) -> str:
        return f"{type(self).__name__}<vector_size={self.vector_size}, {len(self)} keys>"

    # --- Vectors --------------------------------------------------------------------------------------------------

    def get_index(self, key: str, default: int | None = None) -> int:
        """The number of a word; `default`, or KeyError, for one that is not there."""
        number = self.key_to_index.get(key, default)
        if number is None:
            raise KeyError(f"key: expected one of the {len(self)} words that have vectors, got {key!r}")
        return number

    def __getitem__(self, keys: str | Iterable[str]) -> Array:
        """The vector (D,) of a word, or the vectors (n, D) of several."""
        if isinstance(keys, str):
            return self.get_vector(keys)
        if not isinstance(keys, Iterable):
            raise TypeError(f"key: expected a word or several, got {type(keys).__name__}")
        return np.array([self.get_vector(key) for key in keys], np.float32).reshape(-1, self.vector_size)

    def get_vector(self, key: str, norm: bool = False) -> Array:
        """The vector (D,) of a word; of length 1 with `norm`."""
        vector = self.vectors[self.get_index(key)].copy()
        return _unit(vector) if norm else vector

    def get_vecattr(self, key: str, attribute: str) -> Any:
        """How often a word was met: attribute "count"."""
        if attribute != "count" or self.counts is None:
            raise KeyError(f"attribute: expected 'count' of vectors with counts, got {attribute!r}")
        return int(self.counts[self.get_index(key)])

    @property
    def norms(self) -> Array:
        """The lengths (V,) of the vectors."""
        if self._norms is None:
            self._norms = np.sqrt(np.einsum("vd,vd->v", self.vectors, self.vectors, dtype=np.float64)).astype(
                np.float32
            )
        return self._norms

    def get_normed_vectors(self) -> Array:
        """All vectors (V, D) at length 1; zeros stay zeros."""
        if self._unit is None:
            self._unit = self.vectors / np.where(self.norms > 0, self.norms, 1)[:, None]
        return self._unit

    def get_mean_vector(self, keys: Any, weights: Any = None, pre_normalize: bool = True) -> Array:
        """The weighted mean (D,) of words or vectors; words are brought to length 1 before unless told otherwise."""
        rows = [self._vector(key, pre_normalize and isinstance(key, str)) for key in keys]
        if not rows:
            raise ValueError("keys: expected at least one word or vector, got none")
        weights = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
        mean: Array = (weights @ np.array(rows, float) / np.abs(weights).sum()).astype(np.float32)
        return mean

    def _vector(self, key: Any, norm: bool) -> Array:
        if isinstance(key, str):
            return self.get_vector(key, norm)
        vector = np.asarray(key, np.float32)
        if vector.shape != (self.vector_size,):
            raise ValueError(f"vector: expected shape ({self.vector_size},), got {vector.shape}")
        if not np.isfinite(vector).all():
            raise ValueError("vector: expected finite numbers, got NaN or infinity")
        return _unit(vector) if norm else vector

    def add_vectors(self, keys: Sequence[str], weights: Any, *, replace: bool = False) -> None:
        """Add words with their vectors (n, D); those that are there already stay as they are unless `replace`."""
        weights = np.asarray(weights, np.float32).reshape(len(keys), self.vector_size)
        new = [i for i, key in enumerate(keys) if key not in self.key_to_index]
        vectors = np.concatenate([self.vectors, weights[new]])
        if replace:
            for key, row in zip(keys, weights):
                if key in self.key_to_index:
                    vectors[self.key_to_index[key]] = row
        counts = None if self.counts is None else np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        self.set_vectors([*self.index_to_key, *(keys[i] for i in new)], vectors, counts)

    # --- Nearness -------------------------------------------------------------------------------------------------

    def similarity(self, w1: str, w2: str) -> float:
        """The cosine of the angle between two words."""
        return float(self.get_vector(w1, True) @ self.get_vector(w2, True))

    def n_similarity(self, ws1: Sequence[str], ws2: Sequence[str]) -> float:
        """The cosine between the means of two sets of words."""
        first, second = self.get_mean_vector(ws1, pre_normalize=False), self.get_mean_vector(ws2, pre_normalize=False)
        return float(_unit(first) @ _unit(second))

    def distance(self, w1: str, w2: str) -> float:
        """1 - similarity."""
        return 1 - self.similarity(w1, w2)

    def distances(self, word_or_vector: Any, other_words: Sequence[str] = ()) -> Array:
        """1 - cosine between a word or vector and others, or all words: (n,)."""
        query = self._vector(word_or_vector, True)
        units = np.array([self.get_vector(word, True) for word in other_words]) if len(other_words) else None
        rows: Array = self.get_normed_vectors() if units is None else units
        return 1 - rows @ query

    def most_similar(
        self,
        positive: Any = None,
        negative: Any = None,
        topn: int | None = 10,
        clip_start: int = 0,
        clip_end: int | None = None,
        restrict_vocab: int | None = None,
    ) -> Any:
        """The topn words nearest to the mean of `positive` less `negative`, which are words, vectors, or lists of
        these or of pairs with weights; words that were asked with are left out. clip_start, clip_end (or
        restrict_vocab): only words with these numbers. Returns pairs of word and cosine; for topn=None the cosines of
        all words, (V,)."""
        positive, negative = _as_list(positive), _as_list(negative)
        if not positive and not negative:
            raise ValueError("positive, negative: expected words or vectors, got none")
        pairs = [key if isinstance(key, tuple) else (key, 1.0) for key in positive]
        pairs += [key if isinstance(key, tuple) else (key, -1.0) for key in negative]
        keys = [key for key, _ in pairs]
        query = _unit(self.get_mean_vector(keys, [weight for _, weight in pairs]))
        end = len(self) if clip_end is None and restrict_vocab is None else clip_end or restrict_vocab
        scores = self.get_normed_vectors()[clip_start:end] @ query
        if topn is None:
            return scores
        asked = {self.key_to_index.get(key) for key in keys if isinstance(key, str)}
        return self._best(scores, check_size("topn", topn, 0), asked, clip_start)

    def most_similar_cosmul(self, positive: Any = None, negative: Any = None, topn: int = 10) -> Ranked:
        """As most_similar, by the product of similarities to `positive` over that to `negative` (Levy and Goldberg
        2014), each moved to 0..1."""
        positive, negative = _as_list(positive), _as_list(negative)
        if not positive and not negative:
            raise ValueError("positive, negative: expected words or vectors, got none")
        units = self.get_normed_vectors()
        scores = np.ones(len(self))
        for key in positive:
            scores *= (1 + units @ self._vector(key, True)) / 2
        for key in negative:
            scores /= (1 + units @ self._vector(key, True)) / 2 + 1e-6
        asked = {self.key_to_index.get(key) for key in [*positive, *negative] if isinstance(key, str)}
        return self._best(scores, topn, asked, 0)

    def _best(self, scores: Array, topn: int, left_out: set[int | None], start: int) -> Ranked:
        wanted = min(topn + len(left_out), len(scores))
        if not topn or not wanted:
            return []
        best = np.argpartition(-scores, wanted - 1)[:wanted]
        best = best[np.argsort(-scores[best], kind="stable")]
        found = [(self.index_to_key[i + start], float(scores[i])) for i in best if i + start not in left_out]
        return found[:topn]

    def similar_by_word(self, word: str, topn: int = 10, restrict_vocab: int | None = None) -> Any:
        """The words nearest to a word."""
        return self.most_similar([word], topn=topn, restrict_vocab=restrict_vocab)

    similar_by_key = similar_by_word

    def similar_by_vector(self, vector: Any, topn: int = 10, restrict_vocab: int | None = None) -> Any:
        """The words nearest to a vector (D,)."""
        return self.most_similar([np.asarray(vector)], topn=topn, restrict_vocab=restrict_vocab)

    def doesnt_match(self, words: Sequence[str]) -> str:
        """The word that lies farthest from the mean of all."""
        known = [word for word in words if word in self]
        if not known:
            raise ValueError("words: expected words that have vectors, got none")
        mean = _unit(self.get_mean_vector(known))
        return min(known, key=lambda word: float(self.get_vector(word, True) @ mean))

    def closer_than(self, key1: str, key2: str) -> list[str]:
        """The words that are nearer to key1 than key2 is."""
        distances = self.distances(key1)
        near = np.flatnonzero(distances < distances[self.get_index(key2)])
        return [self.index_to_key[i] for i in near if i != self.get_index(key1)]

    def rank(self, key1: str, key2: str) -> int:
        """The place of key2 among the words nearest to key1, 1 for the nearest."""
        return len(self.closer_than(key1, key2)) + 1

    # --- Judged and stored ----------------------------------------------------------------------------------------

    def evaluate_word_analogies(self, analogies: Any, restrict_vocab: int = 300_000, **options: Any) -> Any:
        """How many of the questions "a is to b as c is to d" are answered right: see `evaluation.word_analogies`."""
        return evaluation.word_analogies(self, analogies, restrict_vocab, **options)

    def evaluate_word_pairs(self, pairs: Any, delimiter: str = "\t", **options: Any) -> Any:
        """How similarities agree with those that people gave: see `evaluation.word_pairs`."""
        return evaluation.word_pairs(self, pairs, delimiter, **options)

    def save_word2vec_format(self, fname: PathLike, binary: bool = False, write_header: bool = True) -> None:
        """Write the vectors in word2vec's text or binary format; without a header it is GloVe's. See `formats.save`."""
        formats.save(self, fname, binary=binary, header=write_header)

    @classmethod
    def load_word2vec_format(
        cls, fname: PathLike, binary: bool = False, limit: int | None = None, no_header: bool = False
    ) -> KeyedVectors:
        """Read vectors in word2vec's text or binary format, fastText's .vec or, with no_header, GloVe's. limit: only so
        many of the first words. See `formats.load`."""
        words, vectors = formats.load(fname, binary=binary, limit=limit, header=not no_header)
        loaded = KeyedVectors(vectors.shape[1])
        loaded.set_vectors(words, vectors)
        return loaded


def _unit(vector: Array) -> Array:
    length = float(np.sqrt(np.dot(vector.astype(float), vector)))
    return vector / np.float32(length) if length else vector


def _as_list(keys: Any) -> list[Any]:
    if keys is None:
        return []
    if isinstance(keys, (str, tuple)) or (isinstance(keys, np.ndarray) and keys.ndim == 1):
        return [keys]
    return list(keys)
