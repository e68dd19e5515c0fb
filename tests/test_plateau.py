"""The learning rate is reduced on a plateau."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_cases import classifier, fit, sign_of_sum

from fastrnn import SGD, ReduceLROnPlateau, Trainer
from fastrnn.trainer.callbacks import Callback


class Script(Callback):
    """Puts numbers into the logs."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, trainer, epoch, logs):
        logs["score"] = self.values[epoch]


def rates(callback, values):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append(trainer.optimizer.lr)

    trainer = Trainer(classifier(), optimizer=SGD(lr=1.0), callbacks=[Script(values), callback, Watch()])
    fit(trainer, *sign_of_sum(4), epochs=len(values))
    return seen


def test_the_rate_is_reduced_on_a_plateau():
    values = [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, mode="min"), values)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=2, min_lr=0.3, mode="min"), values)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


def test_the_plateau_is_like_keras():
    keras = pytest.importorskip("keras")
    values = np.random.default_rng(0).integers(0, 8, 40).astype(float).tolist()
    theirs = keras.callbacks.ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=3, min_delta=1e-4, mode="min")

    class Model:
        class optimizer:
            learning_rate = np.float64(1.0)

    theirs.set_model(Model)
    theirs.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"score": value})
        expected.append(float(Model.optimizer.learning_rate))
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=3, mode="min"), values)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
