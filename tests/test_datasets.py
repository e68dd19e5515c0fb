"""The IDX reader and the digits: small files written here, byte by byte, and the bundled ones."""

from __future__ import annotations

import gzip
import re
import struct
from importlib import resources

import numpy as np
import pytest

from fastrnn.datasets import mnist, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray) -> bytes:
    """The array as the content of an IDX file."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def digits(count: int, seed: int = 0, size: tuple[int, int] = (28, 28)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *size), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)


def write(folder, name, content, gz=False):
    path = folder / name
    path.write_bytes(gzip.compress(content) if gz else content)
    return path


# IDX ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 1, 3, 2), (0, 5)])
@pytest.mark.parametrize("code", CODES)
def test_every_element_type(code, shape, gz, tmp_path):
    array = (1000 * np.random.default_rng(0).standard_normal(shape)).astype(np.int64).astype(code)
    path = write(tmp_path, "data", idx(array), gz)
    read = read_idx(path)
    assert read.dtype == np.dtype(code) and read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array, strict=True)
    np.testing.assert_array_equal(read_idx(str(path)), array)


def test_bytes_by_hand(tmp_path):
    path = write(tmp_path, "data", bytes.fromhex("00000b02 00000002 00000001 0102 fffe"))
    np.testing.assert_array_equal(read_idx(path), np.array([[258], [-2]], np.int16), strict=True)


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(read_idx(write(tmp_path, "plain.gz", idx(array))), array)
    np.testing.assert_array_equal(read_idx(write(tmp_path, "zipped", idx(array), gz=True)), array)


GOOD = idx(np.arange(24, dtype=np.int32).reshape(2, 3, 4))
ZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    "content, message",
    [
        (GOOD[:-1], "truncated IDX file, expected 112 bytes for shape (2, 3, 4), got 111"),
        (GOOD[:16], "truncated IDX file, expected 112 bytes for shape (2, 3, 4), got 16"),
        (GOOD[:15], "truncated IDX file, expected a header of 16 bytes, got 15"),
        (gzip.compress(GOOD[:-1], mtime=0), "truncated IDX file, expected 112 bytes for shape (2, 3, 4), got 111"),
        (GOOD + b"\0", "1 bytes beyond the 112 that shape (2, 3, 4) needs"),
        (b"", "expected an IDX file, got one that begins with the bytes (none)"),
        (GOOD[:3], "expected an IDX file, got one that begins with the bytes 00 00 0c"),
        (b"\x89PNG\r\n\x1a\n", "expected an IDX file, got one that begins with the bytes 89 50 4e 47"),
        (b"\0\0\x0a\x01" + GOOD[4:], "expected an IDX file, got one that begins with the bytes 00 00 0a 01"),
        (b"\0\0\x08\0\x05", "expected an IDX file, got one that begins with the bytes 00 00 08 00"),
        (b"\0\0\x08\xff" + bytes(1020), "expected an IDX file, got one that begins with the bytes 00 00 08 ff"),
        (b"\0\0\x08\x04" + b"\xff" * 16, f"truncated IDX file, expected {20 + (2**32 - 1) ** 4} bytes"),
        (gzip.compress(b"hello", mtime=0), "expected an IDX file, got one that begins with the bytes 68 65 6c 6c"),
        *[(ZIPPED[:size], "truncated or damaged gzip file") for size in (2, 9, 10, len(ZIPPED) // 2)],
        *[(ZIPPED[:-size], "truncated or damaged gzip file") for size in (1, 4, 8)],
        (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "truncated or damaged gzip file"),  # checksum
        (ZIPPED[:12] + b"\xff\xff\xff" + ZIPPED[15:], "truncated or damaged gzip file"),
        (ZIPPED + b"more", "truncated or damaged gzip file"),
    ],
)
def test_damaged_and_foreign_files(content, message, tmp_path):
    path = write(tmp_path, "data", content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_idx(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nowhere"))):
        read_idx(tmp_path / "nowhere")


# the bundled digits ------------------------------------------------------------------------------------------


def test_bundled_digits():
    (x_train, y_train), (x_test, y_test) = mnist()
    assert x_train.shape == (1600, 28, 28) and y_train.shape == (1600,)
    assert x_test.shape == (400, 28, 28) and y_test.shape == (400,)
    for x, y in ((x_train, y_train), (x_test, y_test)):
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.min() == 0 and x.max() == 1
        assert x.flags.c_contiguous and x.flags.writeable
    np.testing.assert_array_equal(np.bincount(np.concatenate([y_train, y_test])), np.full(10, 200))
    # Digits stand in the middle: the first and the last rows are empty, the middle ones are not.
    ink = x_train.mean(axis=(0, 2))
    assert ink[0] < 0.01 and ink[-1] < 0.02 and ink[10:18].min() > 0.15


def test_the_licence_stands_beside_the_files():
    data = resources.files("fastrnn.datasets") / "data"
    notice = (data / "NOTICE").read_text(encoding="utf-8")
    assert "Attribution-Share Alike 3.0" in re.sub(r"\s+", " ", notice)
    for file in data.iterdir():
        assert file.name == "NOTICE" or file.name in notice


def test_bundled_files_as_folder_and_as_pair():
    data = resources.files("fastrnn.datasets") / "data"
    with resources.as_file(data) as folder:
        pair = folder / "mnist2000-images-idx3-ubyte.gz", folder / "mnist2000-labels-idx1-ubyte.gz"
        np.testing.assert_equal(mnist(folder), mnist())
        np.testing.assert_equal(mnist(str(folder)), mnist())
        np.testing.assert_equal(mnist(pair), mnist())


# folders and pairs -------------------------------------------------------------------------------------------

TRAIN, TEST = digits(7, seed=1), digits(3, seed=2)


def write_four(folder, separator="-", ending="", gz=False):
    for prefix, (images, labels) in (("train", TRAIN), ("t10k", TEST)):
        write(folder, f"{prefix}-images{separator}idx3-ubyte{ending}", idx(images), gz)
        write(folder, f"{prefix}-labels{separator}idx1-ubyte{ending}", idx(labels), gz)


def check(parts, train, test):
    for (x, y), (images, labels) in zip(parts, (train, test), strict=True):
        assert x.dtype == np.float32 and y.dtype == np.int64
        np.testing.assert_array_equal(x, images.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
def test_the_four_classic_files(separator, ending, gz, tmp_path):
    write_four(tmp_path, separator, ending, gz)
    check(mnist(tmp_path), TRAIN, TEST)
    check(mnist(str(tmp_path)), TRAIN, TEST)


def test_unpacked_beside_packed_files_are_the_same_data(tmp_path):
    write_four(tmp_path)
    write_four(tmp_path, ending=".gz", gz=True)
    check(mnist(tmp_path), TRAIN, TEST)


@pytest.mark.parametrize("prefix", ["", "some-", "train-"])
def test_the_last_fifth_of_one_pair_is_for_testing(prefix, tmp_path):
    images, labels = digits(14)
    pair = (
        write(tmp_path, f"{prefix}images-idx3-ubyte", idx(images)),
        write(tmp_path, f"{prefix}labels-idx1-ubyte.gz", idx(labels), gz=True),
    )
    for path in (tmp_path, pair, list(map(str, pair))):
        check(mnist(path), (images[:12], labels[:12]), (images[12:], labels[12:]))


def test_images_of_another_size(tmp_path):
    images, labels = digits(5, size=(8, 6))
    pair = write(tmp_path, "a", idx(images)), write(tmp_path, "b", idx(labels))
    assert [x.shape for x, _ in mnist(pair)] == [(4, 8, 6), (1, 8, 6)]


@pytest.mark.parametrize("kind", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
def test_one_of_four_is_missing(kind, tmp_path):
    write_four(tmp_path, ending=".gz", gz=True)
    (tmp_path / f"{kind}-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / f"{kind}-ubyte"))):
        mnist(tmp_path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist(tmp_path)
    labels = write(tmp_path, "some-labels-idx1-ubyte", idx(TRAIN[1]))
    with pytest.raises(FileNotFoundError, match="some-images-idx3-ubyte"):
        mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mnist((tmp_path / "nowhere", labels))


def test_two_pairs_of_unknown_names(tmp_path):
    for prefix in ("a-", "b-"):
        write(tmp_path, f"{prefix}images-idx3-ubyte", idx(TRAIN[0]))
        write(tmp_path, f"{prefix}labels-idx1-ubyte", idx(TRAIN[1]))
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: expected one pair of images and labels, got a-, b-")):
        mnist(tmp_path)


def test_a_damaged_file_of_four_is_named(tmp_path):
    write_four(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: truncated IDX file"):
        mnist(tmp_path)


def test_train_and_test_of_different_sizes(tmp_path):
    write_four(tmp_path)
    write(tmp_path, "t10k-images-idx3-ubyte", idx(digits(3, size=(28, 27))[0]))
    with pytest.raises(ValueError, match=re.escape("expected test images of (28, 28) as for training, got (28, 27)")):
        mnist(tmp_path)


def test_files_that_do_not_fit_together(tmp_path):
    images, labels = digits(6)
    a, b = write(tmp_path, "a", idx(images)), write(tmp_path, "b", idx(labels))
    short = write(tmp_path, "short", idx(labels[:-1]))
    floats = write(tmp_path, "floats", idx(images.astype(np.float32)))
    few = write(tmp_path, "few", idx(images[:4])), write(tmp_path, "few labels", idx(labels[:4]))
    for path, message in [
        ((a, short), f"{a} has 6 images, but {short} has 5 labels"),
        ((b, a), f"{b}: expected images, unsigned bytes (N, rows, columns), got uint8 (6,)"),
        ((a, a), f"{a}: expected labels, unsigned bytes (N,), got uint8 (6, 28, 28)"),
        ((floats, b), f"{floats}: expected images, unsigned bytes (N, rows, columns), got float32 (6, 28, 28)"),
        (few, f"{few[0]}: expected at least 5 images to keep a part for testing, got 4"),
        ((a, b, b), "path: expected a pair (images_path, labels_path), got 3 paths"),
        (a, f"path: expected a folder or a pair (images_path, labels_path), got the file {a}"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            mnist(path)
