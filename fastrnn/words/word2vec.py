"""Word2Vec: the vectors of words, learned from what stands beside them.

Letters: V words, D vector_size, B buckets of n-grams.

Design: a) Names, defaults and attributes are gensim's, so that code moves over by its import. What is ours alone is
keyword-only:
   `min_n`, `max_n`, `bucket` (gensim's FastText), `shared_negatives`, `deterministic`.
b) The mathematics and every draw stand in fastrnn/reference/words.py; training itself is compiled (src/words.c).
c) MARGIN: in effect that of gensim, whose table of the sigmoid is read at 0.996 f - 0.03 on average. It costs
nothing, and CBOW learns rare words better by it (benches/DECISIONS.md).
d) Rows of the matrices are padded to whole cache lines. `wv.vectors` is a view of the first D columns: no copy.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native, serialization
from .._native import _words
from .._validate import check_boolean, check_not_negative, check_number, check_positive, check_size
from .corpus import PIECE, Corpus, stretches
from .keyed_vectors import KeyedVectors
from .subwords import SubwordVectors
from .tokens import PathLike

Array = NDArray[Any]
TASK = 10_000  # tokens between two looks at the learning rate, as in gensim
MARGIN = 0.03  # taken from a score in negative sampling before it is judged


def padded_matrix(rows: int, columns: int) -> Array:
    """Zeros (rows, columns up to the next multiple of 16), aligned to cache lines."""
    stride = (columns + 15) // 16 * 16
    raw = np.zeros(rows * stride + 16, np.float32)
    begin = -raw.ctypes.data % 64 // 4
    return raw[begin : begin + rows * stride].reshape(rows, stride)


class Word2Vec:
    """Skip-gram or CBOW, with negative sampling or hierarchical softmax.

        model = Word2Vec(sentences, vector_size=100, sg=1)      # lists of words, any re-iterable
        model = Word2Vec(corpus_file="text.txt.gz", sg=1)       # a sentence on each line, streamed
        model.wv.most_similar("word"); model.wv["word"]; model.wv.save_word2vec_format("vectors.txt")

    sentences: trains at once; without, call `build_vocab` and `train`. Sentences may have any length. vector_size: D.
    window: the most words to either side, drawn anew for each word from 1..window unless shrink_windows is False.
    min_count: words met less often are left out; max_final_vocab: then the most frequent ones up to so many;
    max_vocab_size: bounds the memory of counting. sg: 1 for skip-gram, 0 for CBOW, which averages the context, or sums
    it for cbow_mean=0. hs: 1 for hierarchical softmax; negative: words drawn beside the true one, with probability
    ~ count ** ns_exponent, 0 for none; with both, both are trained. sample: the part of the text above which words are
    thinned out, 0 for none. alpha, min_alpha: the learning rate falls from one to the other in a line. epochs: passes.
    seed: of all draws. workers: threads, at most `fastrnn.get_num_threads()`; they write to one model without locks,
    so results of more than one differ from run to run. deterministic: the same seed gives the same vectors at any
    `workers` and number of threads, because training then runs on one thread, whatever they say.
    compute_loss: keep the sum of the loss of each epoch (in float64) in `epoch_losses`.

    min_n, max_n: character n-grams of this size add to a word's vector, as in fastText, hashed into `bucket` rows;
    words that were never met then have vectors too. 0 for none. shared_negatives: the context words of a window share
    the words drawn (skip-gram), several times faster than drawing for each pair.

    Attributes: wv (`KeyedVectors`), syn1neg (V, D), syn1 (V - 1, D), corpus_count, corpus_total_words, epoch_losses.
    """

    def __init__(
        self,
        sentences: Any = None,
        corpus_file: Any = None,
        vector_size: int = 100,
        alpha: float = 0.025,
        window: int = 5,
        min_count: int = 5,
        max_vocab_size: int | None = None,
        sample: float = 1e-3,
        seed: int = 1,
        workers: int = 3,
        min_alpha: float = 0.0001,
        sg: int = 0,
        hs: int = 0,
        negative: int = 5,
        ns_exponent: float = 0.75,
        cbow_mean: int = 1,
        epochs: int = 5,
        max_final_vocab: int | None = None,
        compute_loss: bool = False,
        shrink_windows: bool = True,
        *,
        min_n: int = 0,
        max_n: int = 0,
        bucket: int = 2_000_000,
        shared_negatives: bool = True,
        deterministic: bool = False,
    ) -> None:
        self.vector_size, self.window = check_size("vector_size", vector_size), check_size("window", window)
        self.min_count, self.epochs = check_size("min_count", min_count, 0), check_size("epochs", epochs)
        self.max_vocab_size = None if max_vocab_size is None else check_size("max_vocab_size", max_vocab_size)
        self.max_final_vocab = None if max_final_vocab is None else check_size("max_final_vocab", max_final_vocab)
        self.alpha, self.min_alpha = check_positive("alpha", alpha), check_not_negative("min_alpha", min_alpha)
        self.sample = check_not_negative("sample", sample)
        self.ns_exponent = check_number("ns_exponent", ns_exponent)
        self.seed, self.workers = check_size("seed", seed, 0), check_size("workers", workers)
        if self.seed >> 64:
            raise ValueError(f"seed: expected a whole number below 2**64, got {seed}")
        self.sg, self.hs, self.cbow_mean = (_flag(*pair) for pair in (("sg", sg), ("hs", hs), ("cbow_mean", cbow_mean)))
        self.negative = check_size("negative", negative, 0)
        if not self.negative and not self.hs:
            raise ValueError("negative, hs: expected negative > 0 or hs=1, got neither, so nothing would be learned")
        self.compute_loss = check_boolean("compute_loss", compute_loss)
        self.shrink_windows = check_boolean("shrink_windows", shrink_windows)
        self.min_n, self.max_n = check_size("min_n", min_n, 0), check_size("max_n", max_n, 0)
        if self.max_n and not 1 <= self.min_n <= self.max_n:
            raise ValueError(f"min_n, max_n: expected 1 <= min_n <= max_n, got {min_n}, {max_n}")
        self.bucket = check_size("bucket", bucket)
        self.shared_negatives = check_boolean("shared_negatives", shared_negatives)
        self.deterministic = check_boolean("deterministic", deterministic)
        self.wv = self._no_vectors()
        self.syn1neg: Array | None = None
        self.syn1: Array | None = None
        self.epoch_losses: list[float] = []
        self.corpus_count = self.corpus_total_words = 0
        if sentences is not None or corpus_file is not None:
            self.build_vocab(sentences, corpus_file)
            self.train(sentences, corpus_file, total_examples=self.corpus_count, epochs=self.epochs)

    def __repr__(self) -> str:
        return f"Word2Vec(vocab={len(self.wv)}, vector_size={self.vector_size}, alpha={self.alpha})"

    def _no_vectors(self) -> KeyedVectors:
        if self.max_n:
            return SubwordVectors(self.vector_size, self.min_n, self.max_n, self.bucket)
        return KeyedVectors(self.vector_size)

    # --- The vocabulary -------------------------------------------------------------------------------------------

    def build_vocab(self, corpus_iterable: Any = None, corpus_file: Any = None) -> None:
        """Count the words of a corpus and start all vectors anew."""
        counts = Corpus(corpus_iterable, corpus_file).count(self.max_vocab_size)
        self.build_vocab_from_freq(counts.words, counts.sentences)
        self.corpus_total_words = counts.total_words

    def build_vocab_from_freq(self, word_freq: dict[str, int], corpus_count: int | None = None) -> None:
        """Take counts that are known already. corpus_count: how many sentences they are from."""
        for word, count in word_freq.items():
            if not isinstance(word, str) or check_size("word_freq", count, 0) >> 62:
                raise ValueError(f"word_freq: expected counts of words below 2**62, got {word!r}: {count!r}")
        ranked = sorted(word_freq.items(), key=lambda item: -item[1])  # stable: ties in the order they were met
        ranked = [item for item in ranked if item[1] >= max(self.min_count, 1)][: self.max_final_vocab]
        if len(ranked) < (2 if self.hs else 1):
            raise ValueError(
                f"corpus: expected {'two words' if self.hs else 'a word'} met at least {self.min_count} times, got "
                f"{len(ranked)} of {len(word_freq)}; lower min_count or give more text"
            )
        self.corpus_count = corpus_count or 0
        self.corpus_total_words = sum(word_freq.values())
        self._start([word for word, _ in ranked], np.array([count for _, count in ranked], np.int64))

    def _start(self, words: list[str], counts: Array) -> None:
        V, D = len(words), self.vector_size
        self._counts = counts
        self._grams = _words.ngram_rows(words, self.min_n, self.max_n, self.bucket, V) if self.max_n else None
        self._inputs = padded_matrix(V + self.bucket * bool(self.max_n), D)
        rng = np.random.default_rng(self.seed)
        for begin in range(0, len(self._inputs), 1 << 14):  # in pieces: no second matrix of this size
            part = self._inputs[begin : begin + (1 << 14), :D]
            part[...] = (rng.random(part.shape, np.float32) * 2 - 1) / D
        self._outputs = padded_matrix(V, D) if self.negative else None
        self._nodes = padded_matrix(V - 1, D) if self.hs else None
        self.syn1neg = None if self._outputs is None else self._outputs[:, :D]
        self.syn1 = None if self._nodes is None else self._nodes[:, :D]
        self.wv = self._no_vectors()
        if isinstance(self.wv, SubwordVectors):
            self.wv.set_parts(words, self._inputs[:V, :D], self._inputs[V:, :D], counts, self._grams)
        else:
            self.wv.set_vectors(words, self._inputs[:, :D], counts)

    # --- Training -------------------------------------------------------------------------------------------------

    def train(
        self,
        corpus_iterable: Any = None,
        corpus_file: Any = None,
        total_examples: int | None = None,
        total_words: int | None = None,
        epochs: int | None = None,
        start_alpha: float | None = None,
        end_alpha: float | None = None,
        compute_loss: bool | None = None,
    ) -> tuple[int, int]:
        """Train on a corpus; call `build_vocab` before. total_examples, total_words: of another corpus than that of the
        vocabulary, its sentences or words, for the learning rate's way. Other arguments: None for the model's own.
        Returns how many tokens were trained on (known words and ends of sentences) in all epochs, and how many words
        the corpus has times epochs.

        Ctrl-C stops within 0.2 s and raises KeyboardInterrupt. The model is whole: its vectors are what was learned
        until then, and can be looked at, saved, and trained on, with `start_alpha` for where the rate was;
        epoch_losses has the epochs that were finished."""
        corpus = Corpus(corpus_iterable, corpus_file)
        if not len(self.wv):
            raise RuntimeError("vocabulary: expected one, got none yet; call build_vocab first")
        epochs = self.epochs if epochs is None else check_size("epochs", epochs)
        start = self.alpha if start_alpha is None else check_positive("start_alpha", start_alpha)
        end = self.min_alpha if end_alpha is None else check_not_negative("end_alpha", end_alpha)
        total = self._expected_tokens(total_examples, total_words)
        trainer = self._trainer(self.compute_loss if compute_loss is None else compute_loss)
        threads = 1 if self.deterministic else min(self.workers, _native.get_num_threads())
        row = None
        if corpus.keeps(total):
            row = np.concatenate([*corpus.pieces(self.wv.key_to_index)])
            if not (row >= 0).any():
                raise ValueError("corpus: expected words of the vocabulary, got none")
            total = max(len(row), 1)
        self.epoch_losses = []
        trained = 0
        try:
            for epoch in range(epochs):
                loss, at = 0.0, 0
                for tokens, first, begin, stop in self._stretches(corpus, row, trainer, epoch):
                    loss += trainer.train(
                        tokens,
                        first,
                        begin,
                        stop,
                        epoch=epoch,
                        task_size=TASK,
                        rate=start - (start - end) * epoch / epochs,
                        slope=(start - end) / (epochs * total),
                        least_rate=min(start, end),
                        threads=threads,
                    )
                    at = first + stop
                trained += at
                self.epoch_losses.append(loss)
        finally:
            self.wv.refresh()  # norms, and what else is kept of the vectors; after Ctrl-C too
        self._check_finite(start)
        return trained, self.corpus_total_words * epochs

    def _check_finite(self, alpha: float) -> None:
        if not np.isfinite(np.add.reduce(self._inputs, axis=None, dtype=np.float64)):
            raise FloatingPointError(f"alpha: expected one with which vectors stay finite, got {alpha:g}")

    def _stretches(self, corpus: Corpus, row: Array | None, trainer: _words.Trainer, epoch: int) -> Iterable[Any]:
        if row is None:
            return stretches(corpus.pieces(self.wv.key_to_index), trainer, epoch, TASK)
        step = PIECE // TASK * TASK  # not all at once, so that Ctrl-C is heard
        return ((row, 0, begin, min(begin + step, len(row))) for begin in range(0, len(row), step))

    def _expected_tokens(self, sentences: int | None, words: int | None) -> int:
        """How many tokens the corpus has as numbers, breaks included: known words of the vocabulary's corpus, in
        proportion for another."""
        known, of = int(self._counts.sum()), self.corpus_total_words
        if sentences is not None and self.corpus_count:
            part = check_size("total_examples", sentences) / self.corpus_count
        elif words is not None and of:
            part = check_size("total_words", words) / of
        else:
            part = 1.0
        return max(round((known + self.corpus_count) * part), 1)

    def _trainer(self, compute_loss: bool) -> _words.Trainer:
        return _words.Trainer(
            self._inputs,
            self._outputs,
            self._nodes,
            keep_limits(self._counts, self.sample),
            _words.alias_table(_weights(self._counts, self.ns_exponent)),
            _words.huffman(self._counts) if self.hs else None,
            self._grams,
            seed=self.seed,
            margin=MARGIN,
            window=self.window,
            negative=self.negative,
            cbow=not self.sg,
            mean=bool(self.sg or self.cbow_mean),
            shrink=self.shrink_windows,
            shared=self.shared_negatives,
            compute_loss=check_boolean("compute_loss", compute_loss),
        )

    def get_latest_training_loss(self) -> float:
        """The loss of the last training, all epochs together; 0 unless compute_loss."""
        return float(sum(self.epoch_losses))

    def predict_output_word(self, context_words_list: Iterable[str], topn: int = 10) -> list[tuple[str, float]]:
        """The most likely words in the middle of a context, with probabilities (softmax over all words; needs negative
        sampling). Words that are not known are left out; ValueError where none is known."""
        if self.syn1neg is None:
            raise RuntimeError("predict_output_word: expected a model with negative > 0, got one without")
        known = [word for word in context_words_list if word in self.wv.key_to_index]
        if not known:
            raise ValueError("context_words_list: expected a word of the vocabulary, got none")
        h = np.sum([self.wv.get_vector(word) for word in known], 0, dtype=float)
        scores = self.syn1neg @ (h / len(known) if self.cbow_mean or self.sg else h)
        p = np.exp(scores - scores.max())
        p /= p.sum()
        return [(self.wv.index_to_key[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:topn]]

    # --- On disk --------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write everything that training goes on from, as safetensors. `wv.save_word2vec_format` writes the vectors
        alone, for other programs."""
        if not len(self.wv):
            raise RuntimeError("vocabulary: expected one, got none yet; call build_vocab first")
        arrays = {"inputs": self._inputs[:, : self.vector_size], "counts": self._counts}
        if self.syn1neg is not None:
            arrays["outputs"] = self.syn1neg
        if self.syn1 is not None:
            arrays["nodes"] = self.syn1
        options = {name: getattr(self, name) for name in _options()}
        found = {"corpus_count": self.corpus_count, "corpus_total_words": self.corpus_total_words}
        serialization.write(path, arrays, {"word2vec": {"options": options, "words": self.wv.index_to_key, **found}})

    @classmethod
    def load(cls, path: PathLike) -> Word2Vec:
        """Read what `save` wrote. ValueError, with the file's name, for anything else."""
        arrays, config = serialization.read(path)
        name = os.fspath(path)
        if not isinstance(config, dict) or "word2vec" not in config:
            raise ValueError(f"{name}: expected a file of Word2Vec.save, got another fastrnn checkpoint")
        try:
            content = config["word2vec"]
            model = cls(**content["options"])
            V, D = len(content["words"]), model.vector_size
            shapes = {"counts": (V,), "inputs": (V + model.bucket * bool(model.max_n), D)}
            shapes |= {"outputs": (V, D)} if model.negative else {}
            shapes |= {"nodes": (V - 1, D)} if model.hs else {}
            for key, shape in shapes.items():
                if arrays[key].shape != shape:
                    raise ValueError(f"{key}: expected shape {shape}, got {arrays[key].shape}")
            model._start(content["words"], arrays["counts"])
            model.corpus_count, model.corpus_total_words = content["corpus_count"], content["corpus_total_words"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a complete model, got a damaged one ({error})") from None
        model._inputs[:, :D] = arrays["inputs"]
        if model.syn1neg is not None:
            model.syn1neg[...] = arrays["outputs"]
        if model.syn1 is not None:
            model.syn1[...] = arrays["nodes"]
        model.wv.refresh()
        return model


def _options() -> list[str]:
    names = list(inspect.signature(Word2Vec).parameters)
    return [name for name in names if name not in ("sentences", "corpus_file")]


def keep_limits(counts: Array, sample: float) -> Array:
    """(V,) 32-bit limits: a token is kept where its hash is at most its word's."""
    total = float(counts.sum())
    threshold = total if not sample else sample * total if sample < 1 else sample * (3 + 5**0.5) / 2
    part = threshold / counts.astype(float)
    return np.minimum(np.minimum(np.sqrt(part) + part, 1) * 2.0**32, 0xFFFFFFFF).astype(np.uint32)


def _weights(counts: Array, exponent: float) -> Array:
    """counts ** exponent (V,), up to a factor."""
    with np.errstate(over="ignore", under="ignore"):
        weights: Array = counts.astype(float) ** exponent
        if not 0 < weights.sum() < np.inf:  # an exponent beyond all reason
            logs = np.log(counts.astype(float)) * exponent
            weights = np.exp(logs - logs.max())
    return weights


def _flag(name: str, value: Any) -> int:
    if value not in (0, 1):
        raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
    return int(value)
