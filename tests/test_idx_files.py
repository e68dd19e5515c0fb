"""IDX files that are compressed: bombs, and several parts."""

from __future__ import annotations

import gzip
import io

import numpy as np
from process_cases import run_python

from fastrnn.datasets.idx import read_idx


def idx(shape, data):
    return b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes() + data


def test_a_gzipped_bomb_is_not_unpacked(tmp_path):
    """100 MB of zeros after a header of 12 pixels, and no header at all: neither takes 10 MB."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(idx((3, 2, 2), b""))
        for _ in range(100):
            file.write(bytes(1 << 20))
    zeros = gzip.compress(bytes(100 << 20), mtime=0)
    huge = gzip.compress(idx((2**32 - 1,) * 3, bytes(1000)))
    for content, words in (
        (buffer.getvalue(), "at least 1048576 bytes beyond the 28 that shape"),
        (zeros, "expected an IDX file, got one that begins with the bytes 00 00 00 00"),
        (huge, "truncated IDX file, expected .* bytes for shape"),
    ):
        (tmp_path / "bomb.gz").write_bytes(content)
        code = (
            "import resource, sys, fastrnn\nfrom fastrnn.datasets.idx import read_idx\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: read_idx(sys.argv[1])\nexcept ValueError as error: print(error)\n"
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
        )
        done = run_python("-c", code, tmp_path / "bomb.gz")
        said, megabytes = done.stdout.splitlines()
        import re

        assert re.search(words, said), done.stdout + done.stderr
        assert int(megabytes) < 10


def test_a_gzipped_file_in_several_parts(tmp_path):
    content = idx((3, 2), bytes(range(6)))
    (tmp_path / "x").write_bytes(gzip.compress(content[:9]) + gzip.compress(content[9:]))
    assert np.array_equal(read_idx(tmp_path / "x"), np.arange(6).reshape(3, 2))
