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
    config = fastrnn.show_config()
    lines = {
        "fastrnn": config["version"],
        "CPU": config["cpu"],
        "instruction set": f"{config['isa']} (available: {', '.join(config['isa_available'])})",
        "threads": config["num_threads"],
        "precision": config["matmul_precision"],
        "NumPy": numpy.__version__,
        "Python": config["python"],
    }
    for name, value in lines.items():
        print(f"{name + ':':17}{value}")
