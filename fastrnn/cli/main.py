"""The command `fastrnn`: one file beside this one for each of its commands.

Whatever a user got wrong ends in one line on stderr and exit code 2; a traceback is a bug of ours.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import fastrnn

from . import bench, demo, generate, info, predict, train
from .arguments import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own). Returns 0, or ends with SystemExit as argparse does."""
    parser = build_parser()
    args = parser.parse_args(argv)
    args.typed = sys.argv[1:] if argv is None else list(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except UserError as error:
        parser.exit(2, f"fastrnn {args.command}: error: {error}\n")
    except MemoryError as error:
        said = str(error) or "out of memory"
        parser.exit(2, f"fastrnn {args.command}: error: not enough memory for these sizes: {said}\n")
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        parser.exit(130, f"\nfastrnn {args.command}: interrupted\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description="Recurrent networks, fast on a CPU.")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (demo, train, generate, predict, bench, info):
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Keeps errors to one line: argparse would print the usage above each."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")
