"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
from collections.abc import Iterable
from typing import IO, cast

from .tokens import PathLike


def write_atomically(path: PathLike, pieces: Iterable[bytes]) -> None:
    """Write the pieces into a file beside `path` and move it there; packed where the name ends in .gz."""
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, scratch = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            packed = path.endswith(".gz")
            file = cast("IO[bytes]", gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)) if packed else raw
            for piece in pieces:
                file.write(piece)
            if packed:
                file.close()
            raw.flush()
            os.fsync(raw.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(scratch, 0o666 & ~mask)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise
