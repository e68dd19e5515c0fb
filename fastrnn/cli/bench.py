"""`fastrnn bench`: measure, print line by line, write JSON and chart."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fastrnn
from fastrnn.bench import chart, dispatch, scaling, table
from fastrnn.bench.measure import FULL, QUICK
from fastrnn.bench.run import run, start
from fastrnn.bench.shapes import (
    CELLS,
    FORWARD,
    MEMORY,
    MODES,
    QUICK_SHAPES,
    QUICK_SHORT_SHAPES,
    QUICK_STEP_SHAPES,
    SEQUENCE_MODES,
    SHAPES,
    SHORT_SHAPES,
    STEP,
    STEP_SHAPES,
    Shape,
)

from .arguments import UserError, names, shape, whole_number


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time the kernels against NumPy, PyTorch, ONNX Runtime, OpenVINO and JAX",
        description="Time forward, forward+backward and streaming, one time step per call, against the NumPy "
        "reference, and against PyTorch, ONNX Runtime, OpenVINO and JAX where they are installed. All run in turns in "
        "this process, on the same weights and inputs, and are timed only after their results were found equal.",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="instead of the usual shapes few steps of few rows: T 1 to 16, N 1 and 4, D = H 64 to 512, one direction "
        "and two, with and without lengths; forward",
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes and repeats: three minutes")
    parser.add_argument(
        "--cell", type=names("lstm", "gru", "rnn"), metavar="CELL[,CELL]", help="lstm, gru, rnn (default: all)"
    )
    parser.add_argument(
        "--shapes",
        type=shape,
        nargs="+",
        metavar="T,N,D,H",
        help="instead of the usual ones; T,N,D,H,L2,bi,f64 has two layers, is bidirectional and float64",
    )
    parser.add_argument(
        "--modes",
        type=names("forward", "forward+backward", "step", "memory"),
        metavar="MODE[,MODE]",
        help="forward, forward+backward, step, memory (default: all but memory; with --shapes the first two)",
    )
    parser.add_argument(
        "--peers",
        type=names("numpy", "torch", "torch-cell", "onnxruntime", "onnx-steps", "openvino", "jax"),
        metavar="PEER[,PEER]",
        help="numpy, torch, torch-cell, onnxruntime, onnx-steps, openvino, jax (default: all that are installed, but "
        "numpy not where it takes very long)",
    )
    parser.add_argument("--threads", type=whole_number(1), metavar="N", help="for fastrnn and its peers")
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
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> None:
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
        check_dispatch(**common, shapes=args.shapes)
    elif args.scaling:
        draw_scaling(**common, chart_file=args.chart)
    else:
        try:
            compare(
                **common,
                shapes=args.shapes,
                memory=args.memory,
                peers=args.peers,
                short=args.short,
                chart_file=args.chart,
                command=shlex.join(["fastrnn", *args.typed]),
            )
        except ValueError as error:
            raise UserError(f"--modes: {error}") from error


def compare(
    *,
    cells: Sequence[str] | None = None,
    shapes: Sequence[Shape] | None = None,
    modes: Sequence[str] | None = None,
    memory: bool = False,
    peers: Sequence[str] | None = None,
    quick: bool = False,
    short: bool = False,
    json_file: Path | None = None,
    chart_file: Path | None = None,
    command: str = "",
) -> None:
    """fastrnn against its peers; None and False: the usual ones. modes: of MODES, and "memory".

    With `shapes` mode "step" takes those, one call per time step, and is left out unless `modes` names it.
    """
    if short and not shapes:
        shapes, modes = QUICK_SHORT_SHAPES if quick else SHORT_SHAPES, modes or (FORWARD,)
    chosen = tuple(modes or (SEQUENCE_MODES if shapes else MODES))
    timed = [mode for mode in MODES if mode in chosen]
    step_shapes: Sequence[Shape] = ()
    if not shapes:
        shapes = QUICK_SHAPES if quick else SHAPES
        if STEP in timed:
            timed.remove(STEP)
            step_shapes = QUICK_STEP_SHAPES if quick else STEP_SHAPES
    printers: list[table.Printer] = []

    def print_head(report: Any) -> None:
        print(table.format_head(report), flush=True)
        printers.append(table.Printer(report))

    report = run(
        cells or CELLS,
        shapes,
        modes=timed,
        step_shapes=step_shapes,
        memory=memory or MEMORY in chosen,
        peers=peers,
        plan=QUICK if quick else FULL,
        command=command,
        on_start=print_head,
        on_results=lambda _, results: print(printers[0].rows(results), flush=True),
        on_memory=lambda _, found: print(printers[0].memory_row(found), flush=True),
    )
    print("", table.format_summary(report), sep="\n")
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n")
        print(f"numbers: {json_file}")
    if chart_file is not None:
        chart.draw_report(report, chart_file)
        print(f"chart: {chart_file}")


def check_dispatch(
    *,
    cells: Sequence[str] | None = None,
    shapes: Sequence[Shape] | None = None,
    modes: Sequence[str] | None = None,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """The dispatcher's own choice against every forced plan."""
    _print_machine()
    print(dispatch.format_head(fastrnn.get_num_threads()), flush=True)
    choices = dispatch.run_dispatch(
        cells or CELLS,
        shapes or (QUICK_SHAPES if quick else SHAPES),
        [mode for mode in SEQUENCE_MODES if mode in (modes or SEQUENCE_MODES)],
        plan=dispatch.PLAN,
        on_choice=lambda choice: print(dispatch.format_row(choice), flush=True),
    )
    print("", dispatch.format_summary(choices), sep="\n")
    if json_file is not None:
        _write_json(json_file, "dispatch", [asdict(choice) | {"shape": choice.shape._asdict()} for choice in choices])


def draw_scaling(
    *,
    cells: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    quick: bool = False,
    json_file: Path | None = None,
    chart_file: Path | None = None,
) -> None:
    """Time per step over T, N and H*(D+H); quick: without the larger half of each curve."""
    _print_machine()
    print(scaling.HEAD, flush=True)
    points: list[scaling.Point] = []

    def print_point(point: scaling.Point) -> None:
        points.append(point)
        print(scaling.format_row(point, scaling.growth(points[-2:])[-1]), flush=True)

    curves = {name: shapes[: (len(shapes) + 1) // 2] if quick else shapes for name, shapes in scaling.CURVES.items()}
    modes = [mode for mode in SEQUENCE_MODES if mode in (modes or SEQUENCE_MODES)]
    scaling.run_scaling(cells or CELLS, modes, curves=curves, plan=scaling.PLAN, on_point=print_point)
    if json_file is not None:
        _write_json(json_file, "scaling", [asdict(point) | {"shape": point.shape._asdict()} for point in points])
    if chart_file is not None:
        chart.draw_scaling(points, chart_file)
        print(f"chart: {chart_file}")


def _print_machine() -> None:
    print(table.format_head(start(())[0]).split("\n")[0])


def _write_json(file: Path, name: str, entries: list[dict[str, Any]]) -> None:
    report, _ = start(())
    about = {key: getattr(report, key) for key in ("config", "versions", "num_threads", "when")}
    file.write_text(json.dumps({**about, name: entries}, indent=1) + "\n")
    print(f"numbers: {file}")
