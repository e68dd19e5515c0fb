"""Nine speakers of two Japanese vowels: short sequences of differing lengths, to be told apart."""

from __future__ import annotations

import numpy as np

Split = tuple[list[np.ndarray], np.ndarray]


def japanese_vowels() -> tuple[Split, Split]:
    """The Japanese vowels of Kudo, Toyama & Shimbo (1999, Multidimensional curve classification using passing-through
    regions), as the UCI and UEA archives have them: who says /ae/?

    Returns
    -------
    ((x_train, y_train), (x_test, y_test)), 270 and 370 utterances.
    x : list of float32 (T_i, 12), 12 LPC cepstrum coefficients in each of 7 to 29 frames
    y : int64 (N,), the speaker, 0..8

    The files come with the package aeon, an optional one; nothing is downloaded.

    Raises
    ------
    ImportError : aeon is not installed.
    """
    try:
        from aeon.datasets import load_japanese_vowels
    except ImportError as error:
        raise ImportError('japanese_vowels: expected the package aeon; pip install "fastrnn[datasets]"') from error
    train, test = (_split(*load_japanese_vowels(split=split)) for split in ("train", "test"))
    return train, test


def _split(sequences: list[np.ndarray], speakers: np.ndarray) -> Split:
    """From aeon's (features, T_i) and names "1" to "9"."""
    x = [np.ascontiguousarray(sequence.T, np.float32) for sequence in sequences]
    return x, np.asarray(speakers).astype(np.int64) - 1
