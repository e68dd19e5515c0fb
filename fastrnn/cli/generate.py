"""`fastrnn generate`: text that a language model writes, as it is made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import fastrnn
from fastrnn.models import LanguageModel

from .arguments import UserError, whole_number


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="write text with a language model",
        description="Write text with a model of `fastrnn train text`, character by character or word by word.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what it goes on from (default: a new line)")
    parser.add_argument(
        "--length", type=whole_number(1), default=500, help="characters or words (default: %(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest (default: %(default)s)")
    parser.add_argument("--top-k", type=whole_number(1), metavar="K", help="only the K likeliest")
    parser.add_argument("--top-p", type=float, metavar="P", help="only the likeliest that together have probability P")
    parser.add_argument("--seed", type=whole_number(0), help="for the same text again")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    try:
        model: Any = fastrnn.serialization.load_model(args.model)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    if not isinstance(model, LanguageModel):
        raise UserError(f"{args.model}: expected a LanguageModel, got a {type(model).__name__}")
    try:
        pieces = model.write(
            args.prompt, args.length, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, rng=args.seed
        )
    except (TypeError, ValueError) as error:
        name, _, said = str(error).partition(": ")
        raise UserError(f"--{name.replace('_', '-')}: {said}") from error
    sys.stdout.write(args.prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
