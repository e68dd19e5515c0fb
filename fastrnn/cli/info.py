"""`fastrnn info`: what fastrnn is, and what it found on this machine."""

from __future__ import annotations

import argparse
from typing import Any

import numpy

import fastrnn


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="version, CPU, instruction set, threads",
        description="Print what fastrnn is and what it found on this machine.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    fastrnn.show_config()
    print(f"{'NumPy:':17}{numpy.__version__}")
