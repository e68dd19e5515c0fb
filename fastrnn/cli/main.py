"""The command `fastrnn`: demo, bench and info.

Whatever a user got wrong ends in one line on stderr and exit code 2; a traceback is a bug of ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import fastrnn


class UserError(Exception):
    """Something that the user can put right; the message says what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own). Returns 0, or ends with SystemExit as argparse does."""
    parser = build_parser()
    args = parser.parse_args(argv)
    args.typed = sys.argv[1:] if argv is None else list(argv)
    try:
        args.run(args)
    except UserError as error:
        parser.exit(2, f"fastrnn {args.command}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\nfastrnn {args.command}: interrupted\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description="Recurrent networks, fast on a CPU.")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_bench(commands)
    _add_info(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Keeps errors to one line: argparse would print the usage above each."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


# demo ------------------------------------------------------------------------------------------------------------------


def _add_demo(commands: argparse._SubParsersAction) -> None:
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
        type=_whole_number(1),
        default=128,
        metavar="H",
        help="units of the layer (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=_whole_number(1), default=20, help="passes over the training digits (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=_whole_number(1), default=32, metavar="N", help="digits per update (default: %(default)s)"
    )
    parser.add_argument(
        "--lr", type=_positive_number, default=2e-3, help="learning rate of Adam at first (default: %(default)s)"
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
        "--seed", type=_whole_number(0), default=0, help="of weights and shuffling (default: %(default)s)"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> None:
    from fastrnn.cli import demo

    try:
        digits = demo.load_digits(args.data)
    except (OSError, ValueError) as error:
        raise UserError(f"--data: {error}") from error
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        demo.run(
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
        raise UserError(f"--output: {error}") from error
    except FloatingPointError as error:
        raise UserError(f"{error}; a smaller --lr may help") from error


# bench -----------------------------------------------------------------------------------------------------------------


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench",
        help="time the kernels against NumPy, PyTorch, ONNX Runtime, OpenVINO and JAX",
        description="Time forward, forward+backward and streaming, one time step per call, against the NumPy "
        "reference, and against PyTorch, ONNX Runtime, OpenVINO and JAX where they are installed. All run in turns in "
        "this process, on the same weights and inputs, and are timed only after their results were found equal.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes and repeats: under two minutes")
    parser.add_argument(
        "--cell", type=_names("lstm", "gru", "rnn"), metavar="CELL[,CELL]", help="lstm, gru, rnn (default: all)"
    )
    parser.add_argument(
        "--shapes",
        type=_shape,
        nargs="+",
        metavar="T,N,D,H",
        help="instead of the usual ones; T,N,D,H,L2,bi,f64 has two layers, is bidirectional and float64",
    )
    parser.add_argument(
        "--modes",
        type=_names("forward", "forward+backward", "step", "memory"),
        metavar="MODE[,MODE]",
        help="forward, forward+backward, step, memory (default: all but memory; with --shapes the first two)",
    )
    parser.add_argument(
        "--peers",
        type=_names("numpy", "torch", "torch-cell", "onnxruntime", "openvino", "jax"),
        metavar="PEER[,PEER]",
        help="numpy, torch, torch-cell, onnxruntime, openvino, jax (default: all that are installed, but numpy not "
        "where it takes very long)",
    )
    parser.add_argument("--threads", type=_whole_number(1), metavar="N", help="for fastrnn and its peers")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of a training step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios there: .png, .svg or .pdf")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dispatch", action="store_true", help="instead: the dispatcher's own choice against every forced one"
    )
    instead.add_argument(
        "--scaling", action="store_true", help="instead: time per step over T, over N and over H*(D+H)"
    )
    parser.set_defaults(run=_run_bench)


def _run_bench(args: argparse.Namespace) -> None:
    from fastrnn.cli import bench as command

    for other, without in (("dispatch", ("peers", "memory", "chart")), ("scaling", ("peers", "memory", "shapes"))):
        for option in without:
            if getattr(args, other) and getattr(args, option):
                raise UserError(f"--{option}: not with --{other}")
    if args.threads is not None:
        try:
            fastrnn.set_num_threads(args.threads)
        except ValueError as error:
            raise UserError(f"--threads: {error}") from error
    if args.chart is not None and args.chart.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--chart: expected a name that ends in .png, .svg or .pdf, got '{args.chart}'")
    if args.chart is not None and importlib.util.find_spec("matplotlib") is None:
        raise UserError('--chart: matplotlib is not installed: pip install "fastrnn[plot]"')
    for option in ("json", "chart"):
        file = getattr(args, option)
        if file is not None:
            try:
                file.touch()  # now, rather than fail when all is measured
            except OSError as error:
                raise UserError(f"--{option}: {error}") from error
    common = {"cells": args.cell, "modes": args.modes, "quick": args.quick, "json_file": args.json}
    if args.dispatch:
        command.check_dispatch(**common, shapes=args.shapes)
    elif args.scaling:
        command.draw_scaling(**common, chart_file=args.chart)
    else:
        try:
            command.compare(
                **common,
                shapes=args.shapes,
                memory=args.memory,
                peers=args.peers,
                chart_file=args.chart,
                command=shlex.join(["fastrnn", *args.typed]),
            )
        except ValueError as error:
            raise UserError(f"--modes: {error}") from error


# info ------------------------------------------------------------------------------------------------------------------


def _add_info(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "info",
        help="version, CPU, instruction set, threads",
        description="Print what fastrnn is and what it found on this machine.",
    )
    parser.set_defaults(run=_run_info)


def _run_info(args: argparse.Namespace) -> None:
    import numpy

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


# argument types --------------------------------------------------------------------------------------------------------


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return number

    return parse


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def _names(*known: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected {', '.join(known)} (separated by commas), got {name!r}")
        return names

    return parse


def _shape(text: str):
    from fastrnn.bench.shapes import Shape

    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
