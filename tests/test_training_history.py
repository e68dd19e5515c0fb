"""validation_split, the history of several fits, and what a trainer neither keeps nor minds of the caller's."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_cases import assert_same_params, classifier, fit, numbers, sign_of_sum

from fastrnn import GRU, Embedding, Linear, Sequential, Trainer


def test_validation_split_is_the_last_part():
    x, y = sign_of_sum(20)
    weights = np.linspace(1, 2, 20)
    split = fit(Trainer(classifier()), x, y, epochs=2, validation_split=0.25, sample_weight=weights)
    given = fit(
        Trainer(classifier()),
        x[:15],
        y[:15],
        epochs=2,
        validation_data=(x[15:], y[15:], None, weights[15:]),
        sample_weight=weights[:15],
    )
    assert_same_params(split.model, given.model)
    assert numbers(split.history) == numbers(given.history)
    ragged = list(x)
    assert "val_loss" in Trainer(classifier()).fit(ragged, y, validation_split=0.5, progress=False)
    with pytest.raises(ValueError, match="validation_split: expected 0 beside validation_data, got both"):
        Trainer(classifier()).fit(x, y, validation_split=0.5, validation_data=(x, y))


def test_fit_returns_its_own_epochs_and_the_trainer_has_all(tmp_path):
    x, y = sign_of_sum(8)
    trainer = Trainer(classifier())
    first = trainer.fit(x, y, epochs=2, validation_data=(x, y), progress=False)
    second = trainer.fit(x, y, epochs=3, progress=False)
    assert (first.epochs, second.epochs, trainer.history.epochs) == (2, 3, 5)
    assert "val_loss" not in second and trainer.history["loss"] == first["loss"] + second["loss"]
    trainer.history.to_csv(tmp_path / "history.csv")
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss,accuracy") and len(lines) == 6
    assert float(lines[1].split(",")[1]) == first["loss"][0] and lines[5].split(",")[-1] == ""
    pd = pytest.importorskip("pandas")
    frame = trainer.history.to_frame()
    assert list(frame.index) == [1, 2, 3, 4, 5] and frame["val_loss"].isna().sum() == 3
    pd.testing.assert_series_equal(frame["loss"], pd.Series(trainer.history["loss"], frame.index, name="loss"))


def test_labels_that_are_words_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="y: expected numbers, got <U3; number the classes from 0, or take"):
        Trainer(classifier()).fit(sign_of_sum(2)[0], ["yes", "no"])


def test_the_callers_numpy_state_does_not_stop_training():
    x, y = sign_of_sum(8)
    x *= 1e4  # gates saturate, and exp underflows
    calm = fit(Trainer(classifier(), metrics=["accuracy", "perplexity"]), x, y, epochs=2)
    with np.errstate(all="raise"):
        strict = fit(Trainer(classifier(), metrics=["accuracy", "perplexity"]), x, y, epochs=2)
        strict.evaluate(x, y)
        strict.predict(x)
    assert_same_params(calm.model, strict.model)
    stream = Sequential(Embedding(3, 2, rng=0), GRU(2, 4, rng=0), Linear(4, 2, rng=1))
    with np.errstate(all="raise"):
        Trainer(stream).partial_fit(1, 1)


def test_a_window_does_not_keep_the_users_array():
    """A view would keep all of a large array alive, and follow what is written into a buffer that is used again."""
    model = Sequential(GRU(2, 4, rng=0), Linear(4, 2, rng=1))
    trainer = Trainer(model, window=3)
    large = np.zeros((1000, 2), np.float32)
    trainer.partial_fit(large[3], 1)
    assert all(sample.base is None or sample.base.size == 2 for sample in trainer._window.samples)
