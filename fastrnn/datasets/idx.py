"""The IDX format of MNIST and its relatives.

A file is two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension
as a big-endian 32-bit integer, then the elements, big-endian, last axis fastest; often all of it gzipped.
Source: "The IDX file format" on the MNIST page, http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

ELEMENT_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 32  # more than any data has, and NumPy 1.26 takes no more


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
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{source}: truncated or damaged gzip file ({error})") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in ELEMENT_TYPES or not 1 <= raw[3] <= MAX_DIMENSIONS:
        begins = raw[:4].hex(" ") or "(none)"
        raise ValueError(f"{source}: expected an IDX file, got one that begins with the bytes {begins}")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"{source}: truncated IDX file, expected a header of {start} bytes, got {len(raw)}")
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], ">u4"))
    dtype = np.dtype(ELEMENT_TYPES[raw[2]])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) < expected:
        raise ValueError(f"{source}: truncated IDX file, expected {expected} bytes for shape {shape}, got {len(raw)}")
    if len(raw) > expected:
        raise ValueError(f"{source}: {len(raw) - expected} bytes beyond the {expected} that shape {shape} needs")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
