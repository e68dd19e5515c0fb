"""`fastrnn demo`: a network reads handwritten digits, one row per time step, and learns to name them.

Letters: N images, T rows, D columns, H hidden_size, M classes.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import fastrnn
from fastrnn import plot

from .arguments import UserError, positive_number, whole_number

CELLS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
MODEL_FILE = "model.safetensors"
CURVE_FILE = "learning_curve.png"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train a network that reads handwritten digits row by row",
        description="Train a recurrent network that reads handwritten digits, one row per time step, and names them.",
    )
    parser.add_argument(
        "--cell", choices=("lstm", "gru", "rnn"), default="lstm", help="default: %(default)s; rnn has tanh"
    )
    parser.add_argument(
        "--hidden-size",
        type=whole_number(1),
        default=128,
        metavar="H",
        help="units of the layer (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=whole_number(1), default=20, help="passes over the training digits (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=32, metavar="N", help="digits per update (default: %(default)s)"
    )
    parser.add_argument(
        "--lr", type=positive_number, default=2e-3, help="learning rate of Adam at first (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder with IDX files, gzipped or not, of MNIST or Fashion-MNIST (default: the 2,000 digits that come "
        "with fastrnn)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("fastrnn-demo"),
        metavar="DIR",
        help="where model and learning curve are written (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of weights and shuffling (default: %(default)s)"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    try:
        digits = load_digits(args.data)
    except (OSError, ValueError) as error:
        raise UserError(f"--data: {error}") from error
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        train(
            digits,
            args.output,
            cell=args.cell,
            hidden_size=args.hidden_size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            learning_rate=args.lr,
            seed=args.seed,
            progress=not args.no_progress,
        )
    except OSError as error:
        if error.filename is None:  # not of a file in the folder: main knows what to do
            raise
        raise UserError(f"--output: {error}") from error
    except FloatingPointError as error:
        raise UserError(f"{error}; a smaller --lr may help") from error


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


def train(
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
        plot.draw_learning_curve(history, output / CURVE_FILE)
        print(f"learning curve: {output / CURVE_FILE}")
    return accuracy


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
