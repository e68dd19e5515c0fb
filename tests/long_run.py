"""A training run for tests/test_long_runs.py, also as a process of its own: python long_run.py FOLDER [SECONDS].

It goes on with what it finds in the folder. SECONDS: how long each batch waits, so that a signal can come in between.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import schedules

EPOCHS, BATCH = 3, 4


def data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (32, 9))
    y = np.full((32, 9), -100)
    y[:, 1:] = x[:, :-1]
    return x, y


class Wait(fastrnn.Callback):
    def __init__(self, seconds):
        self.seconds = seconds

    def on_batch_end(self, trainer, batch, logs):
        time.sleep(self.seconds)


def callbacks(folder, seconds=0.0, every_batches=1, **options):
    """Every kind that has something to remember."""
    return [
        Wait(seconds),
        fastrnn.LearningRateSchedule(schedules.cosine(0.02, total=60, warmup=6), per="update"),
        fastrnn.EMA(0.9),
        fastrnn.SWA(1, at_end=False),
        fastrnn.EarlyStopping("val_loss", patience=50, restore_best=True),
        fastrnn.Checkpoints(folder, every_batches=every_batches, keep=2, keep_best=2, **options),
    ]


def build(folder, seconds=0.0, stateful=False, every_batches=1, **options):
    model = fastrnn.Sequential(
        fastrnn.Embedding(5, 6, rng=1),
        fastrnn.LSTM(6, 8, 2, batch_first=True, dropout=0.3, rng=2),
        fastrnn.Linear(8, 5, rng=3),
    )
    optimizer = fastrnn.AdamW(0.02, groups=[{"params": "0.*", "lr_scale": 0.5}])
    return fastrnn.Trainer(
        model,
        functools.partial(fastrnn.losses.cross_entropy, label_smoothing=0.1),
        optimizer,
        clip_norm=1.0,
        metrics=["accuracy", "f1", "perplexity"],
        stateful=stateful,
        callbacks=callbacks(folder, seconds, every_batches),
        **options,
    )


def fit(trainer, resume=False, epochs=EPOCHS):
    x, y = data()
    return trainer.fit(x[:24], y[:24], epochs, BATCH, validation_data=(x[24:], y[24:]), progress=False, resume=resume)


def everything(trainer):
    """All that a run leaves, without times."""
    arrays = {f"model.{name}": param for name, param in trainer.model.params.items()}
    arrays |= trainer.optimizer.state_dict()
    for k, callback in enumerate(trainer.callbacks):
        if isinstance(callback, (fastrnn.EMA, fastrnn.SWA)) and callback.params is not None:
            arrays |= {f"{k}.{name}": param for name, param in callback.params.items()}
    times = ("seconds", "samples_per_second")
    history = {name: values for name, values in trainer.history.items() if name not in times}
    drawn = [rng.bit_generator.state for _, rng in trainer.model.generators()] + [trainer._rng.bit_generator.state]
    return arrays, history, drawn, trainer.optimizer.lr


def main(folder, seconds=0.0):
    folder = Path(folder)
    there = folder.is_dir() and any(folder.glob("step-*.safetensors"))
    trainer = fastrnn.Trainer.load(folder, callbacks=callbacks(folder, seconds)) if there else build(folder, seconds)
    fit(trainer, resume=True)
    trainer.save(folder / "done.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
