"""The tasks that datasets makes: what is in them, that they are the same for the same seed, and what learns to add.

Letters: N samples, T source steps, T' target steps.
"""

from __future__ import annotations

import datetime
import re

import numpy as np
import pytest

from fastrnn import GRU, LSTM, RNN, Adam, LastStep, Linear, Sequential, Trainer
from fastrnn.datasets import adding_problem, copy_task, dates, reverse_task
from fastrnn.datasets.characters import Characters


@pytest.mark.parametrize("task, written", [(copy_task, lambda row: row), (reverse_task, lambda row: row[::-1])])
def test_copy_and_reverse(task, written):
    source, targets = task(500, 6, 4, rng=0)
    assert source.shape == (500, 6) and targets.shape == (500, 7)
    lengths = (source != 0).sum(axis=1)
    assert set(lengths) == set(range(1, 7)) and set(np.unique(source)) == {0, 3, 4, 5, 6}
    for row, target, length in zip(source, targets, lengths):
        assert not row[length:].any()
        assert target.tolist() == [*written(row[:length].tolist()), 2, *[-100] * (6 - length)]
    np.testing.assert_array_equal(task(500, 6, 4, rng=0).source, source)
    assert (task(500, 6, 4, rng=1).source != source).any()


def read_date(text: str) -> datetime.date:
    """By other means than they were written with."""
    text = re.sub(r"(?<=\d)(st|nd|rd|th) of", "", text)
    for form in ("%d %B %Y", "%B %d, %Y", "%d %b %Y", "%b %d, %Y", "%A, %d %B %Y", "%d.%m.%Y", "%d/%m/%Y"):
        try:
            return datetime.datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise AssertionError(text)


def test_dates():
    data = dates(2000, rng=0)
    assert len(data.source) == len(data.targets) == 2000 and data.targets.shape[1] == 11
    for text, written in zip(data.source_texts, data.target_texts):
        assert read_date(text).isoformat() == written
        day = datetime.date.fromisoformat(written)
        assert 1950 <= day.year <= 2049
        if "," in text and text.split(",")[0].endswith("day"):
            assert datetime.datetime.strptime(text, "%A, %d %B %Y").weekday() == day.weekday()
    kinds = {re.sub(r"\d+", "9", re.sub(r"[A-Za-z]{3,}", "Name", text)) for text in data.source_texts}
    assert kinds >= {"9 Name 9", "Name 9, 9", "Name, 9 Name 9", "9th of Name 9", "9.9.9", "9/9/9"}
    assert data.source_characters.texts(data.source) == data.source_texts
    assert data.target_characters.texts(data.targets) == data.target_texts
    assert data.source.max() < len(data.source_characters) and data.targets.max() < len(data.target_characters)
    assert dates(5, rng=1).source.shape[1] == data.source.shape[1]
    assert dates(5, rng=1).source_texts == dates(5, rng=1).source_texts
    with pytest.raises(ValueError, match="last_year: expected at least first_year, 2000"):
        dates(3, first_year=2000, last_year=1999)


def test_characters():
    characters = Characters("abc")
    assert len(characters) == 6
    np.testing.assert_array_equal(characters.source(["ab", "", "c"]), [[3, 4], [0, 0], [5, 0]])
    np.testing.assert_array_equal(characters.source(["a"], width=3), [[3, 0, 0]])
    np.testing.assert_array_equal(characters.targets(["ab", "c"]), [[3, 4, 2], [5, 2, -100]])
    assert characters.texts(np.array([[3, 4, 2, 3], [1, 5, 0, 4]])) == ["ab", "cb"]
    for error, call in [
        ("alphabet: expected", lambda: Characters("aa")),
        ("texts: expected characters of 'abc', got 'd'", lambda: characters.source(["ad"])),
        ("width: expected at least 2, got 1", lambda: characters.source(["ab"], width=1)),
    ]:
        with pytest.raises(ValueError, match=error):
            call()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adding_problem(dtype):
    x, y = adding_problem(3000, 11, rng=0, dtype=dtype)
    assert x.shape == (3000, 11, 2) and y.shape == (3000, 1) and x.dtype == y.dtype == dtype
    marks = x[:, :, 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :5].sum(axis=1) == 1).all() and (marks[:, 5:].sum(axis=1) == 1).all()
    assert (marks.sum(axis=0) > 0).all()
    np.testing.assert_allclose((x[:, :, 0] * marks).sum(axis=1, keepdims=True), y, rtol=1e-6)
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, rel=0.1)
    with pytest.raises(ValueError, match="steps: expected at least 2"):
        adding_problem(3, 1)


@pytest.mark.parametrize("make", [copy_task, reverse_task, dates, lambda n: adding_problem(n, 4)])
def test_needs_samples(make):
    with pytest.raises(ValueError, match="samples: expected"):
        make(0)


# --- Long memory ------------------------------------------------------------------------------------------------------


def test_gates_remember_what_a_plain_network_forgets():
    """The adding problem, T = 40: a tanh RNN stays near always answering 1, whose error is 1/6."""

    def error_of(layer, lr, epochs):
        model = Sequential(layer, LastStep(batch_first=True), Linear(32, 1, rng=0))
        trainer, rng = Trainer(model, loss="mse", optimizer=Adam(lr=lr), clip_norm=1.0), np.random.default_rng(0)
        for _ in range(epochs):
            trainer.fit(*adding_problem(2000, 40, rng), batch_size=50, progress=False)
        return trainer.evaluate(*adding_problem(1000, 40, rng))["loss"]

    assert error_of(GRU(2, 32, batch_first=True, rng=0), 0.01, 7) < 0.01
    assert error_of(LSTM(2, 32, batch_first=True, forget_bias=3.0, rng=0), 0.005, 20) < 0.01
    assert error_of(RNN(2, 32, batch_first=True, rng=0), 0.002, 10) > 0.1
