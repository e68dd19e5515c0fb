"""A model's summary: every layer, shapes with letters, parameters counted once.

Letters: N batch, T time steps.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Dropout, Embedding, LastStep, Linear, Repeat, Sequential

PAGE = Path(__file__).parent.parent / "docs" / "layers.md"


def test_the_table_of_the_docs():
    model = Sequential(Embedding(50, 32), LSTM(32, 32, batch_first=True), Linear(32, 50), rng=0)
    model.tie("2.weight", to="0.weight")
    model[0].freeze()
    shown = model.summary()
    if not PAGE.exists():
        pytest.skip("no docs/ beside tests/")
    assert f"```\n{shown}\n```" in PAGE.read_text(encoding="utf-8")
    assert sum(a.size for a in model.params.values()) == 10_098


@pytest.mark.parametrize("batch_first, axes", [(True, "N, T"), (False, "T, N")])
def test_shapes_and_names(batch_first, axes):
    inner = Sequential(Linear(10, 4), fastrnn.Activation("tanh"))
    layers = Dropout(), GRU(3, 5, 2, bidirectional=True, batch_first=batch_first), inner
    model = Sequential(*layers, LastStep(batch_first=batch_first), Linear(4, 2), rng=0)
    before = model.state_dict()
    found = [re.split(r"  +", line.strip()) for line in model.summary().splitlines()[2:-3]]
    assert [row[0] for row in found] == ["0 Dropout", "1 GRU", "2.0 Linear", "2.1 Activation", "3 LastStep", "4 Linear"]
    assert [row[1] for row in found] == [f"({axes}, {n})" for n in (3, 10, 4, 4)] + ["(N, 4)", "(N, 2)"]
    numbers = [sum(a.size for name, a in model.params.items() if name.startswith(f"{k}.")) for k in range(5)]
    assert [int(row[2].replace(",", "")) for row in found] == [0, numbers[1], numbers[2], 0, 0, numbers[4]]
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name])


def test_models_that_do_not_say_what_they_read():
    assert "?" in Sequential(Dropout(), rng=0).summary()
    assert "(N, 3)" in Sequential(Dropout(), rng=0).summary(np.zeros((2, 3), np.float32))
    assert "(T, N, 4)" in Sequential(Repeat(4), GRU(3, 4), rng=0).summary()
    assert "TreeLSTM  ?" in fastrnn.TreeLSTM(3, 4).summary()
    halves = [Sequential(Embedding(9, 4), GRU(4, 5)), Sequential(Embedding(9, 4), GRU(4, 5), Linear(5, 9))]
    shown = fastrnn.EncoderDecoder(*halves, start=1).summary()
    assert "encoder.1 GRU" in shown and "decoder.2 Linear" in shown
