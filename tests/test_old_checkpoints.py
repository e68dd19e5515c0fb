"""Files that the first version of fastrnn wrote are loaded, predict, and train on to the numbers of that version.

`data/checkpoints` has the files and, beside each, data and what that version said; see `data/README.md`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TOLERANCE

from fastrnn import Trainer
from fastrnn.serialization import load_model

FOLDER = Path(__file__).parent / "data" / "checkpoints"


def load(name):
    with np.load(FOLDER / f"{name}.npz") as expected:
        return Trainer.load(FOLDER / f"{name}.safetensors"), dict(expected)


def assert_close(result, expected):
    """Within the tolerance of float32: another instruction set rounds otherwise."""
    assert result.shape == expected.shape and result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=TOLERANCE["float32"], atol=TOLERANCE["float32"])


def test_layers_of_all_kinds_predict_and_train_on():
    """An embedding, an LSTM with all its options, a GRU of the original form in both directions, dropout, Adam."""
    trainer, expected = load("trainer_0_1")
    names = ["Embedding", "LSTM", "GRU", "RNN", "Dropout", "MeanPool", "Linear", "Activation", "Linear"]
    assert [type(layer).__name__ for layer in trainer.model] == names
    assert trainer.history.epochs == 2 and trainer.optimizer.steps == 6
    assert_close(trainer.predict(expected["x"]), expected["prediction"])
    history = trainer.fit(expected["x"], expected["y"], epochs=1, batch_size=4, progress=False)
    assert history["loss"][-1] == pytest.approx(float(expected["loss"]), rel=TOLERANCE["float32"])
    assert_close(trainer.predict(expected["x"]), expected["prediction_after"])


def test_a_stateful_fit_goes_on_from_the_state_in_the_file():
    trainer, expected = load("stateful_0_1")
    assert trainer.stateful and trainer.history.epochs == 2
    history = trainer.fit(expected["x"], expected["y"], epochs=1, batch_size=2, progress=False)
    assert history["loss"][-1] == pytest.approx(float(expected["loss"]), rel=TOLERANCE["float32"])
    assert_close(trainer.predict(expected["x"]), expected["prediction"])

    anew, _ = load("stateful_0_1")
    anew.reset_states()
    history = anew.fit(expected["x"], expected["y"], epochs=1, batch_size=2, progress=False)
    assert abs(history["loss"][-1] - float(expected["loss"])) > 1e-4  # so the state was in the file and mattered


def test_the_model_alone_comes_out_of_a_trainers_file():
    model, (trainer, _) = load_model(FOLDER / "trainer_0_1.safetensors"), load("trainer_0_1")
    assert repr(model) == repr(trainer.model)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(model.params[name], param)
