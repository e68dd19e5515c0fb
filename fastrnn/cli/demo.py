"""`fastrnn demo`: a network reads handwritten digits, one row per time step, and learns to name them.

Letters: N images, T rows, D columns, H hidden_size, M classes.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import fastrnn

CELLS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
MODEL_FILE = "model.safetensors"
CURVE_FILE = "learning_curve.png"


class Digits(NamedTuple):
    """Images float32 (N, T, D), and their classes, integers (N,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_digits(path: str | os.PathLike[str] | None = None) -> Digits:
    """The digits that come with fastrnn, or those in a folder of IDX files, standardised: over the training images
    the grey values have mean 0 and deviation 1. Errors as `datasets.mnist` raises them."""
    (x_train, y_train), (x_test, y_test) = fastrnn.datasets.mnist(path)
    mean, deviation = x_train.mean(), x_train.std()
    for images in (x_train, x_test):
        images -= mean
        images /= deviation
    return Digits(x_train, y_train, x_test, y_test)


def build_model(cell: str, D: int, H: int, M: int, rng: np.random.Generator) -> fastrnn.Sequential:
    """A recurrent layer over the rows, and the classes' logits from its last output.

    Dropped pixels keep a network from learning so few digits by heart. To remember the first rows, recurrent weights
    start orthogonal and the LSTM's forget gates open.
    """
    options = {"forget_bias": 1.0} if cell == "lstm" else {}
    return fastrnn.Sequential(
        fastrnn.Dropout(0.3, rng=rng),
        CELLS[cell](D, H, batch_first=True, init="orthogonal", rng=rng, **options),
        fastrnn.LastStep(batch_first=True),
        fastrnn.Linear(H, M, rng=rng),
    )


def run(
    digits: Digits,
    output: Path,
    *,
    cell: str = "lstm",
    hidden_size: int = 128,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
) -> float:
    """Train, say on stdout how it goes, write model and learning curve into the folder `output`.

    learning_rate: of Adam at the start; it falls to zero along a cosine.

    Returns the accuracy on the test digits.
    """
    x_train, y_train, x_test, y_test = digits
    _, T, D = x_train.shape
    M = int(max(y_train.max(), y_test.max())) + 1
    print(
        f"{len(x_train)} digits to train on, {len(x_test)} to test; {cell} reads T={T} rows of D={D}, "
        f"H={hidden_size}, M={M} classes"
    )
    trainer = fastrnn.Trainer(
        build_model(cell, D, hidden_size, M, np.random.default_rng(seed)),
        loss="cross_entropy",
        optimizer=fastrnn.Adam(lr=learning_rate),
        clip_norm=1.0,
        rng=seed,
    )
    updates = epochs * math.ceil(len(x_train) / batch_size)
    with tqdm(total=updates, unit="batch", leave=False, disable=not progress) as bar:
        trainer.callbacks = [
            fastrnn.LearningRateSchedule(lambda epoch: learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2),
            _Reporter(epochs, bar),
        ]
        history = trainer.fit(
            x_train, y_train, epochs=epochs, batch_size=batch_size, validation_data=(x_test, y_test), progress=False
        )
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    seconds = sum(of_epoch or 0.0 for of_epoch in history["seconds"])
    print(f"test accuracy {accuracy:.4f}; trained on {epochs * len(x_train) / seconds:.0f} samples per second")

    trainer.save(output / MODEL_FILE)
    print(f"model: {output / MODEL_FILE}")
    if importlib.util.find_spec("matplotlib") is None:
        print('no learning curve, as matplotlib is missing: pip install "fastrnn[plot]"')
    else:
        save_learning_curve(history, output / CURVE_FILE)
        print(f"learning curve: {output / CURVE_FILE}")
    return accuracy


def save_learning_curve(history: fastrnn.History, path: Path) -> None:
    """Loss and accuracy by epoch, on training and test digits, as PNG. Needs matplotlib."""
    from matplotlib.figure import Figure  # not pyplot: no window system is needed

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = range(1, history.epochs + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        axes.plot(epochs, history[name], marker=".", label="training")
        axes.plot(epochs, history[f"val_{name}"], marker=".", label="test")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")


class _Reporter(fastrnn.Callback):
    """One line per epoch on stdout, above the progress bar of the whole training on stderr."""

    def __init__(self, epochs: int, bar: tqdm) -> None:
        self.epochs = epochs
        self.bar = bar

    def on_batch_end(self, trainer: fastrnn.Trainer, batch: int, logs: dict[str, float]) -> None:
        self.bar.update()

    def on_epoch_end(self, trainer: fastrnn.Trainer, epoch: int, logs: dict[str, float]) -> None:
        self.bar.write(
            f"epoch {epoch + 1:{len(str(self.epochs))}}/{self.epochs}  loss {logs['loss']:.4f}  "
            f"accuracy {logs['accuracy']:.4f}  test accuracy {logs['val_accuracy']:.4f}  {logs['seconds']:.2f} s"
        )
