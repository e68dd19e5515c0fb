"""The IDX format of MNIST and its relatives.

A file is two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension
as a big-endian 32-bit integer, then the elements, big-endian, last axis fastest; often all of it gzipped.
Source: "The IDX file format" on the MNIST page, http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np

ELEMENT_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 32  # more than any data has, and NumPy 1.26 takes no more
MOST_UNZIPPED = 1032  # times the size of a file: two bits of deflate stand for at most 258 bytes
CHUNK = 1 << 20


class Source(Protocol):
    """A file to read: a path, or a resource of an installed package."""

    def read_bytes(self) -> bytes: ...


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzipped or not (told by content, not by name), in this machine's byte order.

    Raises FileNotFoundError for a missing file and ValueError, naming the file, for one that is truncated,
    too long, or no IDX file.
    """
    return read_source(Path(path))


def read_source(source: Source) -> np.ndarray:
    """``read_idx`` for anything with ``read_bytes``; ``str(source)`` names it in errors."""
    raw = source.read_bytes()
    try:
        file: IO[bytes] = io.BytesIO(raw)
        if raw[:2] == b"\x1f\x8b":
            file = cast(IO[bytes], gzip.GzipFile(fileobj=file))
        return _read(source, file, len(raw) * MOST_UNZIPPED)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{source}: truncated or damaged gzip file ({error})") from error


def _read(source: Source, file: IO[bytes], most: int) -> np.ndarray:
    """The header first, then no more than it says. most: bytes that the file cannot have more of."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in ELEMENT_TYPES or not 1 <= head[3] <= MAX_DIMENSIONS:
        begins = head.hex(" ") or "(none)"
        raise ValueError(f"{source}: expected an IDX file, got one that begins with the bytes {begins}")
    start = 4 + 4 * head[3]
    sizes = file.read(start - 4)
    if len(sizes) < start - 4:
        got = 4 + len(sizes)
        raise ValueError(f"{source}: truncated IDX file, expected a header of {start} bytes, got {got}")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(ELEMENT_TYPES[head[2]])
    expected = start + math.prod(shape) * dtype.itemsize
    if expected > most:
        raise ValueError(f"{source}: truncated IDX file, expected {expected} bytes for shape {shape}, got fewer")
    data = bytearray()
    while part := file.read(
        min(CHUNK, expected - start - len(data))
    ):  # asked for all, gzip takes that much memory first
        data += part
    if start + len(data) < expected:
        got = start + len(data)
        raise ValueError(f"{source}: truncated IDX file, expected {expected} bytes for shape {shape}, got {got}")
    beyond = len(file.read(CHUNK))
    if beyond:
        more = "at least " if beyond == CHUNK else ""
        raise ValueError(f"{source}: {more}{beyond} bytes beyond the {expected} that shape {shape} needs")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
