"""`fastrnn train text` and `fastrnn train csv`: train on files, say how it goes, write a model.

Letters: N batch, T time steps, V vocabulary.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.models import LanguageModel, SeriesModel, Table, help_topics, read_texts
from fastrnn.models.language import measures

from .arguments import UserError, whole_number
from .training import add_network, add_training, ascending, check_output, load_trainer, share, split, train


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "train", help="train a language model on texts, or a forecast on a CSV file", description="Train on files."
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    text = kinds.add_parser(
        "text",
        help="a language model of characters or words",
        description="Train a model that tells the next character or word. It reads the text in order, --batch-size "
        "places side by side, with an update after each --steps and the state carried on.",
    )
    text.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="UTF-8, .gz too (default: the help topics of Python)"
    )
    text.add_argument("--words", action="store_true", help="words and marks instead of characters")
    text.add_argument("--max-size", type=whole_number(2), metavar="V", help="most frequent characters or words only")
    text.add_argument("--embedding-size", type=whole_number(1), metavar="D", help="default: H")
    text.add_argument(
        "--cutoffs",
        type=ascending,
        metavar="A,B",
        help="an adaptive softmax with clusters of rarer words from these on",
    )
    text.add_argument("--tie-weights", action="store_true", help="the output layer's weights are the embedding's")
    text.add_argument("--sparse", action="store_true", help="lazy steps of the embedding, whatever its size")
    text.add_argument("--steps", type=whole_number(1), default=128, metavar="T", help="default: %(default)s")
    text.add_argument("--held-out", type=share, default=0.1, help="last share of the text, to test (default: 0.1)")
    add_network(text, cell="lstm", hidden_size=256, layers=2)
    add_training(text, epochs=5, batch_size=32, lr=2e-3, output="text.safetensors")
    text.set_defaults(run=train_text)
    table = kinds.add_parser(
        "csv",
        help="a forecast of one column of a CSV file",
        description="Train a model that tells one column some rows ahead, from the last rows of all columns.",
    )
    table.add_argument("file", type=Path, metavar="FILE", help="CSV with names in its first line, in order of time")
    table.add_argument("--target", required=True, metavar="COLUMN", help="what to tell")
    table.add_argument("--columns", metavar="A,B", help="what to read (default: all columns of numbers)")
    table.add_argument("--window", type=whole_number(1), default=24, metavar="T", help="rows (default: %(default)s)")
    table.add_argument("--horizon", type=whole_number(1), default=1, metavar="K", help="rows ahead (default: 1)")
    table.add_argument("--held-out", type=share, default=0.2, help="last share of the rows, to test (default: 0.2)")
    add_network(table, cell="gru", hidden_size=64, layers=1)
    add_training(table, epochs=30, batch_size=32, lr=2e-3, output="series.safetensors")
    table.set_defaults(run=train_csv)


def train_text(args: argparse.Namespace) -> None:
    check_output(args.output, args.resume)
    try:
        text = read_texts(args.files) if args.files else help_topics()
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    if args.resume:
        trainer = load_trainer(args.output, LanguageModel)
    else:
        try:
            model = LanguageModel.of(
                text,
                "words" if args.words else "characters",
                max_size=args.max_size,
                cell=args.cell,
                hidden_size=args.hidden_size,
                num_layers=args.layers,
                embedding_size=args.embedding_size,
                dropout=args.dropout,
                cutoffs=args.cutoffs,
                tie_weights=args.tie_weights,
                sparse=args.sparse,
                rng=args.seed,
            )
        except ValueError as error:  # cutoffs that do not fit the vocabulary
            raise UserError("--" + str(error).replace("tie_weights", "tie-weights", 1)) from error
        trainer = fastrnn.Trainer(
            model,
            model.loss,
            optimizer=fastrnn.Adam(args.lr),
            clip_norm=args.clip_norm,
            stateful=True,
            metrics=(),
            rng=args.seed,
        )
    lm: Any = trainer.model
    seen, held = split(text, args.held_out)
    try:
        x, y = lm.samples(seen, args.batch_size, args.steps)
    except ValueError as error:
        raise UserError(f"{error}; a smaller --batch-size or --steps may help") from error
    characters = len(seen) / len(lm.vocabulary.split(seen))
    kind = "tokens" if lm.vocabulary.level == "words" else "characters"
    print(f"{len(seen):,} characters to train on, {len(held):,} to test; {len(lm.vocabulary):,} {kind}; {_network(lm)}")

    def line(trainer: fastrnn.Trainer, logs: dict[str, float]) -> str:
        said = f"{_said(measures(logs['loss'], characters))}  {logs['samples_per_second'] * args.steps:,.0f} tokens/s"
        if len(held) < 2:
            return said
        score = lm.score(held, min(16, max(1, len(held) // 1000)))
        return f"{said}  held out: {_said(score)}"

    train(trainer, x, y, args, line, None)


def _said(score: dict[str, float]) -> str:
    return (
        f"loss {score['loss']:.4f}  perplexity {score['perplexity']:.2f}  "
        f"bits per character {score['bits_per_character']:.3f}"
    )


def train_csv(args: argparse.Namespace) -> None:
    check_output(args.output, args.resume)
    try:
        columns = args.columns.split(",") if args.columns else None
        table = Table.read_csv(args.file, None if columns is None else list(dict.fromkeys([*columns, args.target])))
        seen, held = (Table(table.names, part) for part in split(table.values, args.held_out))
        if args.resume:
            trainer = load_trainer(args.output, SeriesModel)
        else:
            model = SeriesModel.of(
                seen,
                args.target,
                columns,
                window=args.window,
                horizon=args.horizon,
                cell=args.cell,
                hidden_size=args.hidden_size,
                num_layers=args.layers,
                dropout=args.dropout,
                rng=args.seed,
            )
            trainer = fastrnn.Trainer(model, "mse", fastrnn.Adam(args.lr), clip_norm=args.clip_norm, rng=args.seed)
        series: Any = trainer.model
        x, y = series.samples(seen)
    except (OSError, ValueError) as error:
        raise UserError(str(error).replace("table: ", f"{args.file}: ", 1)) from error
    print(
        f"{len(seen):,} rows to train on, {len(held):,} to test; reads {', '.join(series.columns)}; {_network(series)}"
    )
    ahead = series.window + series.horizon - 1
    known = table.select([series.target])[:, 0]
    tested = np.arange(len(table)) >= max(len(seen), ahead)
    last = np.concatenate([np.full(series.horizon, np.nan), known[: -series.horizon]])

    def line(trainer: fastrnn.Trainer, logs: dict[str, float]) -> str:
        said = f"error {logs['loss'] ** 0.5 * series.deviation[-1]:.4g}"
        if not tested.any():
            return said
        told = np.concatenate([np.full(ahead, np.nan), series.forecast(table)[: -series.horizon]])
        errors = [_root_mean_square(values[tested] - known[tested]) for values in (told, last)]
        return f"{said}  held out: error {errors[0]:.4g}, of the last value {errors[1]:.4g}"

    train(trainer, x, y, args, line, None)


def _root_mean_square(errors: Any) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def _network(model: Any) -> str:
    """Its recurrent layers in a few words, and how many numbers all layers learn."""
    layer = next(layer for layer in model if hasattr(layer, "hidden_size"))
    levels = f"{layer.num_layers} layers of " if layer.num_layers > 1 else ""
    size = sum(param.size for param in model.params.values())
    return f"{levels}{type(layer).__name__} with H={layer.hidden_size}, {size:,} parameters"
