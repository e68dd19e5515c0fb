"""`fastrnn predict`: what a model says of a file."""

from __future__ import annotations

import argparse
import csv
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.models import LanguageModel, SeriesModel, Table, read_texts

from .arguments import UserError


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="what a trained model says of a file",
        description="A model of `fastrnn train csv` reads a CSV file and tells its target for each row, and beyond the "
        "last one; one of `fastrnn train text` says how well it tells a text; any other model reads x, samples first, "
        "in a .npy file.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("file", type=Path, metavar="FILE", help=".csv, a text, or .npy")
    parser.add_argument("--output", type=Path, metavar="FILE", help=".csv or .npy to write to (default: to the screen)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    try:
        model = fastrnn.serialization.load_model(args.model)
        if isinstance(model, SeriesModel):
            predict_series(model, args.file, args.output)
        elif isinstance(model, LanguageModel):
            score = model.score(read_texts([args.file]))
            print(*(f"{name.replace('_', ' ')}: {value:.6g}" for name, value in score.items()), sep="\n")
        else:
            predict_arrays(model, args.file, args.output)
    except (OSError, TypeError, ValueError, IndexError) as error:
        said = str(error)
        for name in ("table: ", "x: ", "text: ", "tokens: "):
            said = f"{args.file}: {said[len(name) :]}" if said.startswith(name) else said
        raise UserError(said) from error


def predict_series(model: SeriesModel, file: Path, output: Path | None) -> None:
    """Rows of CSV: the number of the row that is told, counted from 1, what the file has there, what the model says."""
    table = Table.read_csv(file, list(dict.fromkeys([*model.columns])))
    told = model.forecast(table)
    known = table.select([model.target])[:, 0] if model.target in table.names else np.empty(0)
    first = model.window + model.horizon - 1
    with open(output, "w", newline="", encoding="utf-8") if output else nullcontext(sys.stdout) as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["row", model.target, "predicted"])
        for row, value in enumerate(told, first):
            writer.writerow([row + 1, f"{known[row]:.6g}" if row < len(known) else "", f"{value:.6g}"])


def predict_arrays(model: Any, file: Path, output: Path | None) -> None:
    x = np.load(file, allow_pickle=False)
    y = fastrnn.Trainer(model, "mse").predict(x)
    if output is not None:
        np.save(output, y)
        print(f"{y.shape} {y.dtype}: {output}")
        return
    np.savetxt(sys.stdout, y.reshape(len(y), -1), fmt="%.6g", delimiter=",")
