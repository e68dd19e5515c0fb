"""What the commands that train have in common: arguments, a line for each epoch, a file that is always whole."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastrnn

from .arguments import UserError, positive_number, whole_number

Line = Callable[[fastrnn.Trainer, "dict[str, float]"], str]


def add_network(parser: argparse.ArgumentParser, *, cell: str, hidden_size: int, layers: int) -> None:
    parser.add_argument("--cell", choices=("lstm", "gru", "rnn"), default=cell, help="default: %(default)s")
    size = whole_number(1)
    parser.add_argument("--hidden-size", type=size, default=hidden_size, metavar="H", help="default: %(default)s")
    parser.add_argument("--layers", type=size, default=layers, metavar="L", help="default: %(default)s")
    parser.add_argument("--dropout", type=share, default=0.0, metavar="P", help="between layers (default: 0)")


def add_training(parser: argparse.ArgumentParser, *, epochs: int, batch_size: int, lr: float, output: str) -> None:
    size = whole_number(1)
    parser.add_argument(
        "--epochs",
        type=size,
        default=epochs,
        help="passes in all, those of a resumed run included (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=size, default=batch_size, metavar="N", help="default: %(default)s")
    parser.add_argument("--lr", type=positive_number, default=lr, help="of Adam (default: %(default)s)")
    parser.add_argument("--clip-norm", type=positive_number, default=1.0, help="of the gradient (default: %(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of weights and order (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="MODEL",
        help="where the model is written after each epoch, and at Ctrl-C (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the model in --output: its network, optimiser and history"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def ascending(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1 or sorted(set(numbers)) != list(numbers):
        raise argparse.ArgumentTypeError(f"expected ascending whole numbers such as 2000,10000, got {text!r}")
    return numbers


def share(text: str) -> float:
    """Of the data or of units, at least 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0 and below 1, got {text!r}")
    return number


def load_trainer(path: str | os.PathLike[str], kind: type[Any]) -> fastrnn.Trainer:
    """The trainer in a file, of a model of that kind. Raises UserError for any other file."""
    try:
        trainer = fastrnn.Trainer.load(path)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    if not isinstance(trainer.model, kind):
        raise UserError(f"{path}: expected a {kind.__name__}, got a {type(trainer.model).__name__}")
    return trainer


def check_output(output: Path, resume: bool) -> None:
    """Now, rather than fail when an epoch is over."""
    if resume and not output.exists():
        raise UserError(f"--resume: expected a model in {output}, got no such file")
    if output.is_dir():
        raise UserError(f"--output: expected a file to write, got the folder {output}")
    folder = output.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--output: expected a folder that can be written, got {folder}")


def train(trainer: fastrnn.Trainer, x: Any, y: Any, args: argparse.Namespace, line: Line, shuffle: bool | None) -> None:
    """Fit up to args.epochs, with a line on stdout and the model on disk after each; at Ctrl-C too."""
    if trainer.history.epochs >= args.epochs:
        raise UserError(f"--epochs: expected more than the {trainer.history.epochs} of the model, got {args.epochs}")
    trainer.callbacks = [_Reporter(args.epochs, line), _Saver(args.output, save="last")]
    try:
        trainer.fit(
            x,
            y,
            epochs=args.epochs,
            batch_size=args.batch_size,
            shuffle=shuffle,
            progress=not args.no_progress,
            resume=args.resume,
        )
    except FloatingPointError as error:
        raise UserError(f"{error}; a smaller --lr may help") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--output: {error}") from error
    except KeyboardInterrupt:
        print(f"\nmodel: {args.output}; the same command with --resume goes on", flush=True)
        raise
    print(f"model: {args.output}")


class _Saver(fastrnn.ModelCheckpoint):
    """After each epoch, and at Ctrl-C after the batch under way."""

    saves_on_interrupt = True

    def on_interrupt(self, trainer: fastrnn.Trainer) -> None:
        trainer.save(self.path)


class _Reporter(fastrnn.Callback):
    def __init__(self, epochs: int, line: Line) -> None:
        self.epochs, self.line = epochs, line

    def on_epoch_end(self, trainer: fastrnn.Trainer, epoch: int, logs: dict[str, float]) -> None:
        print(f"epoch {epoch + 1:{len(str(self.epochs))}}/{self.epochs}  {self.line(trainer, logs)}", flush=True)


def split(values: Any, held_out: float) -> tuple[Any, Any]:
    """The first part, to train on, and the last one."""
    cut = len(values) - round(held_out * len(values))
    return values[:cut], values[cut:]
