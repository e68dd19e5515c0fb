"""Sentences from memory, from any iterable or from files: their words counted, and as numbers in long rows.

Letters: L tokens of a row, breaks between sentences counted.

Design:
a) A corpus is one row of numbers with a break behind each sentence. It comes in pieces, so that a file of any size and
   a sentence of any length need the memory of one piece.
b) Lists, and files whose words are no more than KEPT tokens, are turned into numbers once for all epochs. Other
iterables
   are read anew for each epoch, since they may give something else each time.
c) Files are split, counted and numbered in compiled code; Python hands over the bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._native import _words
from .tokens import open_binary

Row = NDArray[np.int32]
PIECE = 1 << 20  # tokens
BYTES = 1 << 20  # of a file that are read at once
KEPT = 1 << 24  # tokens of files that are kept as numbers, 64 MB
LONGEST = 1 << 24  # bytes of a word


class Counts:
    """What is in a corpus: how often each word, how many words and sentences."""

    def __init__(self, words: dict[str, int], total_words: int, sentences: int) -> None:
        self.words, self.total_words, self.sentences = words, total_words, sentences


class Corpus:
    """Sentences to be read once or more often. Either `sentences`, an iterable of token lists that can be read anew, or
    `files`, one path or several, gzip too, with a sentence on each line and white space between words."""

    def __init__(self, sentences: Any = None, files: Any = None) -> None:
        if (sentences is None) == (files is None):
            raise ValueError("corpus_iterable, corpus_file: expected one of them, got " + _both(sentences))
        self.paths: list[str] | None = None
        self.sentences = sentences
        if files is not None:
            one = isinstance(files, (str, os.PathLike))
            self.paths = [os.fspath(path) for path in ([files] if one else files)]
            for path in self.paths:
                if os.path.isdir(path):
                    raise IsADirectoryError(f"corpus_file: expected a file, got the folder {path!r}")
        elif isinstance(sentences, (str, bytes)) or not isinstance(sentences, Iterable):
            raise TypeError(f"corpus_iterable: expected lists of words, got {type(sentences).__name__}")
        elif isinstance(sentences, Iterator):
            raise TypeError(
                "corpus_iterable: expected an iterable that can be read more than once, a list or an object with "
                f"__iter__, got {type(sentences).__name__}"
            )

    # --- Counting -------------------------------------------------------------------------------------------------

    def count(self, max_vocab_size: int | None = None) -> Counts:
        """Read it once. max_vocab_size: forget rare words while counting, whenever there are more than so many."""
        return self._count_files(max_vocab_size) if self.paths is not None else self._count_sentences(max_vocab_size)

    def _count_sentences(self, most: int | None) -> Counts:
        counts: Counter[str] = Counter()
        words = sentences = 0
        least = 1
        for sentence in self.sentences:
            sentence = _check_sentence(sentence)
            for begin in range(0, len(sentence), PIECE):  # not all at once, so that Ctrl-C is heard
                counts.update(sentence if len(sentence) <= PIECE else sentence[begin : begin + PIECE])
            words += len(sentence)
            sentences += 1
            while most is not None and len(counts) > most:
                least += 1
                counts = Counter({word: count for word, count in counts.items() if count >= least})
        for word in counts:
            if not isinstance(word, str):
                raise TypeError(f"corpus_iterable: expected lists of words, got a word of {type(word).__name__}")
        return Counts(counts, words, sentences)

    def _count_files(self, most: int | None) -> Counts:
        lexicon = _words.Lexicon()
        least, lines, room = 1, 0, (1 << 31) - 2 if most is None else most
        for path in self.paths or ():
            text = _Text(path)
            for piece in text:
                done = lexicon.count(piece, 0, text.last, room)
                while len(lexicon) > room:
                    least += 1
                    lexicon.prune(least)
                    done = lexicon.count(piece, done, text.last, room)
                text.took(done)
            lines += not text.ends
        try:
            words = {word.decode(): count for word, count in lexicon.items()}
        except UnicodeDecodeError as error:
            names = ", ".join(self.paths or ())
            raise ValueError(f"{names}: expected UTF-8 text, got the word {error.object!r}") from None
        return Counts(words, lexicon.words, lexicon.lines + lines)

    # --- As numbers -----------------------------------------------------------------------------------------------

    def pieces(self, index: dict[str, int]) -> Iterator[Row]:
        """The words in `index` as numbers, with breaks, in rows of about PIECE tokens each."""
        size = PIECE
        return self._pieces_of_files(index, size) if self.paths is not None else self._pieces_of_lists(index, size)

    def keeps(self, tokens: int) -> bool:
        """Whether a corpus of so many tokens is turned into numbers once for all epochs."""
        return isinstance(self.sentences, (list, tuple)) or (self.paths is not None and tokens <= KEPT)

    def _pieces_of_lists(self, index: dict[str, int], size: int) -> Iterator[Row]:
        out, at = np.empty(size, np.int32), 0
        for sentence in self.sentences:
            sentence = _check_sentence(sentence)
            end = _words.encode(sentence, index, out, at)
            if end < 0:
                yield out[:at]
                out = np.empty(max(size, len(sentence) + 1), np.int32)
                end = _words.encode(sentence, index, out, 0)
            at = end
        yield out[:at]

    def _pieces_of_files(self, index: dict[str, int], size: int) -> Iterator[Row]:
        lexicon = _words.Lexicon(index)
        out, at = np.empty(size, np.int32), 0
        for path in self.paths or ():
            text = _Text(path)
            for piece in text:
                done, at = lexicon.encode(piece, 0, text.last, out, at)
                while at == size:
                    yield out
                    out = np.empty(size, np.int32)
                    done, at = lexicon.encode(piece, done, text.last, out, 0)
                text.took(done)
            if not text.ends:
                out[at] = _words.BREAK
                at += 1
        yield out[:at]


def _both(sentences: Any) -> str:
    return "none" if sentences is None else "both"


def _check_sentence(sentence: Any) -> Any:
    if isinstance(sentence, (str, bytes)) or not isinstance(sentence, Iterable):
        raise TypeError(
            "corpus_iterable: expected lists of words, got a sentence of "
            f"{type(sentence).__name__}; split it into words"
        )
    return sentence if isinstance(sentence, (list, tuple)) else list(sentence)


class _Text:
    """The bytes of a file, piece by piece; what of a piece was not taken comes again at the head of the next."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last = False  # whether this piece is the last
        self.ends = True  # whether the last line has an end
        self._rest = b""

    def took(self, count: int) -> None:
        """Say how many bytes of the piece were taken."""
        self._rest = self._rest[count:]
        if len(self._rest) > LONGEST:
            raise ValueError(f"{self.path}: expected words of at most {LONGEST} bytes, got a longer one")

    def __iter__(self) -> Iterator[bytes]:
        with open_binary(self.path) as file:
            while not self.last:
                chunk = file.read(BYTES)
                self.last = not chunk
                if chunk:
                    self.ends = chunk.endswith(b"\n")
                self._rest += chunk
                yield self._rest


def stretches(
    pieces: Iterable[Row], trainer: _words.Trainer, epoch: int, task_size: int
) -> Iterator[tuple[Row, int, int, int]]:
    """Rows to train on, as (tokens, first, begin, end): windows from begin..end stay within the row, tokens[0] stands
    at `first` in the corpus, and `end` is where a task ends."""
    held, first, begin = np.empty(0, np.int32), 0, 0
    for piece in pieces:
        held = np.concatenate([held, piece])
        end = (first + len(held)) // task_size * task_size - first
        while end > begin and trainer.right(held, first, end, epoch) < 0:
            end -= task_size
        if end > begin:
            yield held, first, begin, end
            left = trainer.left(held, first, end, epoch)
            held, first, begin = held[left:], first + left, end - left
    if begin < len(held):
        yield held, first, begin, len(held)
