"""Files of word vectors: word2vec's text and binary format, fastText's .vec and GloVe's.

Letters: V words, D vector_size.

    text     "V D", then a line "word x1 ... xD" for each word; fastText's .vec is the same, GloVe's has no first line
    binary   "V D" and a line's end, then for each word its UTF-8 bytes, a space, and D little-endian float32

Numbers of text have nine digits, so float32 comes back as it was. Names that end in .gz are packed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .files import write_atomically
from .tokens import PathLike, open_binary

if TYPE_CHECKING:
    from .keyed_vectors import KeyedVectors

Array = NDArray[Any]
CHUNK = 1 << 20  # bytes


def save(vectors: KeyedVectors, path: PathLike, *, binary: bool = False, header: bool = True) -> None:
    """Write vectors; the file is there whole or not at all. Raises ValueError for words with white space in them, which
    these formats cannot hold."""
    if binary and not header:
        raise ValueError("write_header: expected True where binary is, got False")
    for word in vectors.index_to_key:
        if not word or any(space in word for space in " \n\r\t\v\f"):
            raise ValueError(f"words: expected words without white space, got {word!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ValueError(f"words: expected words that UTF-8 can hold, got {word!r}")
    write_atomically(path, _rows(vectors, binary, header))


def _rows(vectors: KeyedVectors, binary: bool, header: bool) -> Iterator[bytes]:
    if header:
        yield f"{len(vectors)} {vectors.vector_size}\n".encode()
    numbers = " ".join(["%.9g"] * vectors.vector_size)
    for word, row in zip(vectors.index_to_key, vectors.vectors):
        name = word.encode() + b" "
        yield name + (row.astype("<f4").tobytes() if binary else (numbers % tuple(row.tolist())).encode() + b"\n")


def load(
    path: PathLike, *, binary: bool = False, limit: int | None = None, header: bool | None = None
) -> tuple[list[str], Array]:
    """Read the words and their vectors (V, D). limit: only the first so many. header: whether the first line gives V
    and D; None to look. Of a word that comes twice the first counts. Raises ValueError that names the file and what is
    wrong."""
    name = os.fspath(path)
    with open_binary(path) as file:
        first = file.readline(1 << 20)
        sizes = _sizes(first)
        if header is None:
            header = sizes is not None
        if header and sizes is None:
            raise ValueError(f"{name}: expected a first line with two whole numbers, got {_short(first)}")
        if not header:
            if binary:
                raise ValueError(f"{name}: expected a first line with two whole numbers, got {_short(first)}")
            words, rows = _read_text(name, file, first, None, len(first.split()) - 1, limit)
        else:
            V, D = sizes or (0, 0)
            _check_sizes(name, file, V, D, binary)
            if binary:
                words, rows = _read_binary(name, file, V if limit is None else min(V, limit), D)
            else:
                words, rows = _read_text(name, file, b"", V, D, limit)
    return _first_of_each(words, rows)


def _sizes(line: bytes) -> tuple[int, int] | None:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 19 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _check_sizes(name: str, file: IO[bytes], V: int, D: int, binary: bool) -> None:
    """Before memory is taken for what a damaged or foreign file claims to hold."""
    if D < 1:
        raise ValueError(f"{name}: expected vectors of at least one number, got {D}")
    least = V * (4 * D + 2 if binary else 2 * D + 2)
    if not name.endswith(".gz") and least > os.path.getsize(name):
        raise ValueError(
            f"{name}: expected at least {least} bytes for {V} vectors of {D} numbers, got {os.path.getsize(name)}; "
            "the file is cut short, or no file of vectors"
        )


def _read_text(
    name: str, file: IO[bytes], first: bytes, V: int | None, D: int, limit: int | None
) -> tuple[list[str], Array]:
    """Lines, of which `first` was read already. V: how many there are to be, None for as many as there are."""
    if D < 1:
        raise ValueError(f"{name}: expected a word and its numbers in the first line, got {_short(first)}")
    wanted = V if limit is None else limit if V is None else min(V, limit)
    words: list[str] = []
    rows: list[Array] = []
    line = first or file.readline()
    with np.errstate(over="raise"):  # by a number that float32 does not hold
        while line and (wanted is None or len(words) < wanted):
            # From the right, since some of GloVe's words have spaces in them.
            parts = line.rstrip(b" \r\n").rsplit(b" ", D)
            try:
                if len(parts) != D + 1:
                    raise ValueError
                rows.append(np.array(parts[1:], np.float32))
                words.append(parts[0].decode())
            except UnicodeDecodeError:
                raise ValueError(f"{name}: expected UTF-8 text, got {_short(parts[0])} as a word") from None
            except (ValueError, FloatingPointError):
                number, got = len(words) + 1 + (V is not None), _short(line)
                raise ValueError(f"{name}: expected a word and {D} numbers in line {number}, got {got}") from None
            line = file.readline()
    if V is not None and wanted is not None and len(words) < wanted:
        raise ValueError(f"{name}: expected {V} vectors, got {len(words)}; the file is cut short")
    return words, np.array(rows, np.float32).reshape(len(words), D)


def _read_binary(name: str, file: IO[bytes], V: int, D: int) -> tuple[list[str], Array]:
    words: list[str] = []
    try:
        rows = np.empty((V, D), np.float32)
    except (ValueError, MemoryError):
        raise ValueError(f"{name}: expected what memory can hold, got {V} vectors of {D} numbers") from None
    chunk, at = b"", 0
    while len(words) < V:
        space = chunk.find(b" ", at)
        if space < 0 or len(chunk) < space + 1 + 4 * D:
            more = file.read(max(CHUNK, 4 * D))
            if not more:
                raise ValueError(f"{name}: expected {V} vectors, got {len(words)}; the file is cut short")
            chunk, at = chunk[at:] + more, 0
            if space < 0 and len(chunk) > 4 * CHUNK:
                raise ValueError(f"{name}: expected a word before vector {len(words) + 1}, got bytes without a space")
            continue
        try:
            words.append(chunk[at:space].lstrip(b"\n").decode())  # word2vec's own tool ends vectors with a line's end
        except UnicodeDecodeError:
            raise ValueError(f"{name}: expected UTF-8 text, got {_short(chunk[at:space])} as a word") from None
        rows[len(words) - 1] = np.frombuffer(chunk, "<f4", D, space + 1)
        at = space + 1 + 4 * D
    return words, rows


def _first_of_each(words: list[str], rows: Array) -> tuple[list[str], Array]:
    if len(set(words)) == len(words):
        return words, rows
    first: dict[str, int] = {}
    for number, word in enumerate(words):
        first.setdefault(word, number)
    return list(first), rows[list(first.values())]


def _short(text: bytes) -> str:
    shown = text.rstrip(b"\r\n")
    return repr(shown[:40].decode("utf-8", "replace")) + ("..." if len(shown) > 40 else "")
