"""From text to tokens, and from one long row of tokens to samples of equal length.

Letters: N samples, T steps of a sample, L tokens of a text.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_boolean, check_size

Tokens = NDArray[np.intp]
PathLike = str | os.PathLike[str]

WORDS = r"\w+(?:['’]\w+)*|[^\w\s]"
"""Runs of letters and digits with apostrophes inside, and every other character but white space by itself."""


class Tokenizer:
    """Splits text by a regular expression: what matches is a token, what stands between matches is dropped.

        Tokenizer()("Don't stop, me now.")  ->  ["Don't", "stop", ",", "me", "now", "."]

    pattern: an expression of Python's `re`; groups in it must be (?:...), so that the match is the token. lowercase:
    text is lowered first. Raises ValueError for a pattern that does not compile, that has groups or that matches
    nothing at all."""

    def __init__(self, pattern: str = WORDS, *, lowercase: bool = False) -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"pattern: expected a regular expression as a string, got {type(pattern).__name__}")
        try:
            self._expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern: expected a regular expression, got {pattern!r} ({error})") from None
        if self._expression.groups:
            raise ValueError(f"pattern: expected no groups but (?:...), got {pattern!r}")
        if self._expression.fullmatch(""):
            raise ValueError(f"pattern: expected one that matches some text, got {pattern!r}, which matches none")
        self.pattern = pattern
        self.lowercase = check_boolean("lowercase", lowercase)

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text."""
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {type(text).__name__}")
        return self._expression.findall(text.lower() if self.lowercase else text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return (self.pattern, self.lowercase) == (other.pattern, other.lowercase)

    def __hash__(self) -> int:
        return hash((self.pattern, self.lowercase))

    def __repr__(self) -> str:
        return f"Tokenizer({self.pattern!r}, lowercase={self.lowercase})"


class _Unpacked(gzip.GzipFile):
    """A packed file that says its name where it is none, or is damaged."""

    def _named(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{self.name}: expected a gzip file, got a damaged one ({error})") from None

    def read(self, size: int | None = -1) -> bytes:
        return self._named(super().read, -1 if size is None else size)

    def peek(self, size: int) -> bytes:
        return self._named(super().peek, size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._named(super().readline, -1 if size is None else size)


def open_binary(path: PathLike) -> IO[bytes]:
    """A file to read bytes from, unpacked where its name ends in .gz, without the mark that some programs put before
    UTF-8. Raises ValueError, with the file's name, here or in reading, where what is packed is damaged or cut short."""
    path = os.fspath(path)
    return _without_mark(_Unpacked(path, "rb") if path.endswith(".gz") else open(path, "rb"))


def _without_mark(file: Any) -> IO[bytes]:
    try:
        if file.peek(3).startswith(codecs.BOM_UTF8):
            file.read(3)
    except BaseException:
        file.close()
        raise
    unmarked: IO[bytes] = file
    return unmarked


def read_lines(path: PathLike) -> Iterator[str]:
    """The lines of a UTF-8 text, gzip too, without their ends. ValueError where a line is not UTF-8."""
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{os.fspath(path)}: expected UTF-8 text, got {error.reason} in line {number}"
                ) from None


def texts_of(source: Any, name: str = "texts") -> Iterator[str | list[str]]:
    """The texts, or lists of tokens, in what a caller may give: one string, a path (line by line), or an iterable of
    strings, paths and token lists."""
    if isinstance(source, str):
        yield source
    elif isinstance(source, Path):
        yield from read_lines(source)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        for item in source:
            if isinstance(item, str):
                yield item
            elif isinstance(item, os.PathLike):
                yield from read_lines(item)
            else:
                yield check_tokens(f"{name}: expected texts, paths or lists of tokens", item)
    else:
        raise TypeError(f"{name}: expected texts, paths or lists of tokens, got {type(source).__name__}")


def check_tokens(expected: str, item: Any) -> list[str]:
    """A list of strings, from any iterable of strings."""
    if isinstance(item, (bytes, bytearray)) or not isinstance(item, Iterable):
        raise TypeError(f"{expected}, got {type(item).__name__}")
    tokens = list(item)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"{expected}, got a token of {type(token).__name__}")
    return tokens


def windows(tokens: Any, length: int, step: int | None = None) -> tuple[Tokens, Tokens]:
    """Cut a long text into samples for a model that tells the next token.

    tokens: whole numbers, (L,). length: T, the steps of a sample. step: how far one sample begins after the one before;
    None for `length`, side by side. Returns x and y, both (N, T), y one token ahead of x, with
    N = (L - 1 - T) // step + 1; tokens at the end that fill no sample are left out. Raises ValueError where L <= T.
    """
    tokens, length = _check_row(tokens), check_size("length", length)
    step = length if step is None else check_size("step", step)
    if len(tokens) <= length:
        raise ValueError(f"tokens: expected at least length + 1 = {length + 1}, got {len(tokens)}")
    rows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::step]
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def streams(tokens: Any, batch_size: int) -> tuple[Tokens, Tokens]:
    """Cut a long text into `batch_size` pieces that are read side by side, for a state that is carried on.

    Returns x and y, both (batch_size, T), with T = (L - 1) // batch_size; y is one token ahead of x, and row n goes on
    where row n - 1 ends. Raises ValueError where T would be 0.
    """
    tokens, N = _check_row(tokens), check_size("batch_size", batch_size)
    T = (len(tokens) - 1) // N
    if T < 1:
        raise ValueError(f"tokens: expected at least batch_size + 1 = {N + 1}, got {len(tokens)}")
    return tokens[: N * T].reshape(N, T).copy(), tokens[1 : N * T + 1].reshape(N, T).copy()


def _check_row(tokens: Any) -> Tokens:
    tokens = np.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"tokens: expected whole numbers, got {tokens.dtype}; encode texts with a Vocabulary")
    if tokens.ndim != 1:
        raise ValueError(f"tokens: expected shape (L,), got {tokens.shape}")
    return tokens.astype(np.intp, copy=False)
