"""Handwritten digits: the bundled 2,000 of MNIST, or any images and labels in MNIST's files.

Letters: N images.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from .idx import Source, read_source

Split = tuple[np.ndarray, np.ndarray]

TEST_PART = 5  # of one pair of files, the last fifth is for testing


def mnist(
    path: str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
) -> tuple[Split, Split]:
    """``(x_train, y_train), (x_test, y_test)``: images to be read row by row, and their classes.

    Parameters
    ----------
    path : one of
        None: the digits that come with fastrnn, 1,600 for training and 400 for testing;
        a folder with the four files of MNIST, Fashion-MNIST and the like (``train-images-idx3-ubyte``,
        ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``);
        a folder with one pair, ``*images-idx3-ubyte`` and ``*labels-idx1-ubyte``, of which the last
        fifth (N // 5) is the test part;
        a pair (images_path, labels_path) of files, split in the same way.
        Names may have a dot for the hyphen before "idx" and may end in ".gz". Whether a file is gzipped is
        told by its content.

    Returns
    -------
    x : float32 (N, 28, 28), grey values scaled to [0, 1]; the rows are the time steps. Files of images
        of another size give (N, rows, columns).
    y : int64 (N,)

    Raises
    ------
    FileNotFoundError : a file is missing; the error names it.
    ValueError : a file is truncated, too long or foreign, or images and labels do not fit together.
    """
    if path is None:
        from importlib import resources  # here, for its import takes longer than all of this package's

        data = resources.files(__package__) / "data"
        return _split(data / "mnist2000-images-idx3-ubyte.gz", data / "mnist2000-labels-idx1-ubyte.gz")
    if isinstance(path, (tuple, list)):
        if len(path) != 2:
            raise ValueError(f"path: expected a pair (images_path, labels_path), got {len(path)} paths")
        return _split(Path(path[0]), Path(path[1]))
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if not folder.is_dir():
        raise ValueError(f"path: expected a folder or a pair (images_path, labels_path), got the file {folder}")
    images, labels = _find(folder, "images", 3), _find(folder, "labels", 1)
    prefixes = images.keys() | labels.keys()
    if len(prefixes) == 1:
        (prefix,) = prefixes
        return _split(_file(images, folder, prefix, "images", 3), _file(labels, folder, prefix, "labels", 1))
    if prefixes and "train-" not in prefixes and "t10k-" not in prefixes:
        raise ValueError(f"{folder}: expected one pair of images and labels, got {', '.join(sorted(prefixes))}")
    train, test = (
        _load(_file(images, folder, prefix, "images", 3), _file(labels, folder, prefix, "labels", 1))
        for prefix in ("train-", "t10k-")
    )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{folder}: expected test images of {train[0].shape[1:]} as for training, got {test[0].shape[1:]}"
        )
    return train, test


def _find(folder: Path, kind: str, dimensions: int) -> dict[str, Path]:
    """The IDX files of a kind in a folder by the beginning of their names, e.g. "train-"."""
    found: dict[str, Path] = {}
    for separator in "-.":
        for ending in ("", ".gz"):
            name = f"{kind}{separator}idx{dimensions}-ubyte{ending}"
            for file in sorted(folder.glob("*" + name)):
                found.setdefault(file.name[: -len(name)], file)
    return found


def _file(found: dict[str, Path], folder: Path, prefix: str, kind: str, dimensions: int) -> Path:
    if prefix not in found:
        missing = folder / f"{prefix}{kind}-idx{dimensions}-ubyte"
        raise FileNotFoundError(errno.ENOENT, "No such file, nor with .gz", str(missing))
    return found[prefix]


def _split(images: Source, labels: Source) -> tuple[Split, Split]:
    x, y = _load(images, labels)
    train = len(x) - len(x) // TEST_PART
    if train == len(x):
        raise ValueError(f"{images}: expected at least {TEST_PART} images to keep a part for testing, got {len(x)}")
    return (x[:train], y[:train]), (x[train:].copy(), y[train:].copy())  # a view would keep the large part in memory


def _load(images: Source, labels: Source) -> Split:
    pixels = _bytes(images, 3, "images, unsigned bytes (N, rows, columns)")
    classes = _bytes(labels, 1, "labels, unsigned bytes (N,)")
    if len(pixels) != len(classes):
        raise ValueError(f"{images} has {len(pixels)} images, but {labels} has {len(classes)} labels")
    return np.divide(pixels, 255, dtype=np.float32), classes.astype(np.int64)


def _bytes(source: Source, dimensions: int, expected: str) -> np.ndarray:
    array = read_source(source)
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise ValueError(f"{source}: expected {expected}, got {array.dtype} {array.shape}")
    return array
