"""JapaneseVowels, read through aeon, and what a bidirectional layer with lengths makes of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastrnn import GRU, AdamW, Dropout, Linear, MeanPool, Sequential, Trainer
from fastrnn.datasets import japanese_vowels


def test_without_aeon(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(
        ImportError, match=r'^japanese_vowels: expected the package aeon; pip install "fastrnn\[datasets\]"$'
    ):
        japanese_vowels()


@pytest.mark.filterwarnings("ignore")  # aeon's imports may warn of its own dependencies
def test_who_is_speaking():
    pytest.importorskip("aeon")
    (x, y), (x_test, y_test) = japanese_vowels()
    assert (len(x), len(x_test)) == (270, 370) == (len(y), len(y_test))
    lengths = [len(sequence) for sequence in x + x_test]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert all(a.shape[1:] == (12,) and a.dtype == np.float32 and np.isfinite(a).all() for a in x + x_test)
    np.testing.assert_array_equal(np.bincount(y), [30] * 9)
    np.testing.assert_array_equal(np.bincount(y_test), [31, 35, 88, 44, 29, 24, 40, 50, 29])

    frames = np.concatenate(x)
    mean, std = frames.mean(axis=0), frames.std(axis=0)
    x, x_test = ([(sequence - mean) / std for sequence in part] for part in (x, x_test))
    accuracies = []
    for seed in range(3):
        model = Sequential(
            GRU(12, 32, bidirectional=True, batch_first=True, rng=seed),
            MeanPool(batch_first=True),
            Dropout(0.3, rng=seed),
            Linear(64, 9, rng=seed),
        )
        trainer = Trainer(model, optimizer=AdamW(lr=0.01), clip_norm=5.0, rng=seed)
        trainer.fit(x, y, epochs=15, batch_size=30, progress=False)
        accuracies.append(trainer.evaluate(x_test, y_test)["accuracy"])
    assert np.mean(accuracies) >= 0.95, accuracies
