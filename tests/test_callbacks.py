"""Callbacks of the trainer: when they are called, stopping early, checkpoints, learning rates."""

from __future__ import annotations

import math
import os

import pytest
from trainer_cases import Recorder, classifier, sign_of_sum

from fastrnn import optim
from fastrnn.trainer import Trainer
from fastrnn.trainer.callbacks import Callback, EarlyStopping, LearningRateSchedule, ModelCheckpoint


def test_callbacks_are_called_in_order():
    recorder = Recorder()
    trainer = Trainer(classifier(), callbacks=[recorder])
    x, y = sign_of_sum(10)
    trainer.fit(x, y, epochs=2, batch_size=5, validation_data=(x, y), progress=False)
    trainer.fit(x, y, epochs=1, batch_size=10, progress=False)
    assert recorder.events == [
        "fit",
        "epoch 0",
        "batch 0",
        "batch 1",
        "end 0",
        "epoch 1",
        "batch 0",
        "batch 1",
        "end 1",
        "done",
        "fit",
        "epoch 2",
        "batch 0",
        "end 2",
        "done",
    ]
    assert [set(logs) for logs in recorder.batches] == [{"loss", "accuracy"}] * 5
    assert [logs["loss"] for logs in recorder.epochs] == trainer.history["loss"]


class Script(Callback):
    """Puts given numbers into the logs, ahead of the callbacks behind it."""

    def __init__(self, **scripts: list[float]) -> None:
        self.scripts = scripts

    def on_epoch_end(self, trainer, epoch, logs):
        trainer.model.params["2.bias"][...] = epoch
        logs |= {name: values[epoch] for name, values in self.scripts.items()}


def run_script(*callbacks: Callback, **scripts: list[float]) -> Trainer:
    (values,) = scripts.values()
    trainer = Trainer(classifier(), optimizer=optim.SGD(lr=0.0), callbacks=[Script(**scripts), *callbacks])
    trainer.fit(*sign_of_sum(4), epochs=len(values), progress=False)
    return trainer


@pytest.mark.parametrize(
    "scripts, options, epochs, best_epoch",
    [
        ({"val_loss": [5, 4, 4, 4, 3, 2]}, {"patience": 2}, 4, 1),
        ({"val_loss": [5, 4, 4, 3, 3, 2]}, {"patience": 2}, 6, 5),
        ({"val_loss": [5, 4.9, 4.8, 4.7, 3, 2]}, {"patience": 3, "min_delta": 0.5}, 4, 0),
        ({"val_accuracy": [1, 2, 3, 2, 1, 9]}, {"patience": 1, "monitor": "val_accuracy"}, 4, 2),
        ({"score": [1, 2, 3, 2, 1, 9]}, {"patience": 2, "monitor": "score", "mode": "max"}, 5, 2),
        ({"val_loss": [math.nan, math.nan, 1]}, {"patience": 2}, 2, None),
    ],
)
def test_early_stopping(scripts, options, epochs, best_epoch):
    stopping = EarlyStopping(**options)
    trainer = run_script(stopping, **scripts)
    assert trainer.history.epochs == epochs
    assert stopping.best_epoch == best_epoch
    assert (trainer.model.params["2.bias"] == epochs - 1).all()


def test_early_stopping_restores_the_best():
    trainer = run_script(EarlyStopping(patience=2, restore_best=True), val_loss=[5, 4, 4, 4, 3, 2])
    assert (trainer.model.params["2.bias"] == 1).all()


def test_model_checkpoint(tmp_path):
    best, last, top = tmp_path / "best", tmp_path / "last", tmp_path / "top"
    checkpoints = ModelCheckpoint(best), ModelCheckpoint(last, save="last"), ModelCheckpoint(top, mode="max")
    run_script(*checkpoints, val_loss=[5, 3, 4, 7, 6])
    for path, epoch in [(best, 1), (last, 4), (top, 3)]:
        trainer = Trainer.load(path)
        assert trainer.history.epochs == epoch + 1
        assert (trainer.model.params["2.bias"] == epoch).all()
    assert sorted(os.listdir(tmp_path)) == ["best", "last", "top"]


def test_learning_rate_schedule_goes_by_the_epoch():
    rates = []

    class Watch(Callback):
        def on_batch_end(self, trainer, batch, logs):
            rates.append(trainer.optimizer.lr)

    trainer = Trainer(classifier(), callbacks=[LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch), Watch()])
    x, y = sign_of_sum(4)
    trainer.fit(x, y, epochs=2, batch_size=2, progress=False)
    trainer.fit(x, y, epochs=1, batch_size=4, progress=False)
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_callback_errors():
    with pytest.raises(
        ValueError, match="^monitor: expected validation data for 'val_loss', got none; pass validation_data"
    ):
        Trainer(classifier(), callbacks=[EarlyStopping()]).fit(*sign_of_sum(4), progress=False)
    for make, message in [
        (lambda: EarlyStopping(mode="most"), "mode: expected 'auto', 'min' or 'max', got 'most'"),
        (lambda: EarlyStopping(patience=0), "patience: expected at least 1 epoch, got 0"),
        (lambda: EarlyStopping(min_delta=-1), "min_delta: expected a number of at least 0, got -1"),
        (lambda: ModelCheckpoint("x", save="all"), "save: expected 'best' or 'last', got 'all'"),
    ]:
        with pytest.raises(ValueError) as caught:
            make()
        assert str(caught.value) == message
