"""The command `fastrnn`: one file beside this one for each of its commands.

Whatever a user got wrong ends in one line on stderr and exit code 2; a traceback is a bug of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import fastrnn

from . import bench, convert, demo, generate, info, predict, train
from .arguments import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own). Returns 0, or ends with SystemExit as argparse does."""
    if sys.stdout is None:  # closed by who started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 for the rest of the process
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
        args.typed = sys.argv[1:] if argv is None else list(argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit:  # of --help and --version, whose words are still to be written
        try:
            sys.stdout.flush()
        except OSError:
            _leave_stdout()
        raise
    except UserError as error:
        _end(parser, f"{args.command}: error: {error}")
    except MemoryError as error:
        said = str(error) or "out of memory"
        _end(parser, f"{args.command}: error: not enough memory for these sizes: {said}")
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        _leave_stdout()
    except OSError as error:  # a full disk
        _leave_stdout()
        _end(parser, f"{args.command}: error: {error}")
    except KeyboardInterrupt:
        parser.exit(130, f"\nfastrnn {args.command}: interrupted\n")
    return 0


def _end(parser: argparse.ArgumentParser, words: str) -> NoReturn:
    parser.exit(2, f"fastrnn {words}\n")


def _leave_stdout() -> None:
    """Let what is still to be written, at the end of the process too, go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # one of a test, or of a notebook, that has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description="Recurrent networks, fast on a CPU.")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (demo, train, generate, predict, convert, bench, info):
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Keeps errors to one line: argparse would print the usage above each."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")
