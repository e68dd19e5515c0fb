"""What `fastrnn bench` does once its arguments are read: measure, print line by line, write JSON and chart."""

from __future__ import annotations

import json
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
    MEMORY,
    MODES,
    QUICK_SHAPES,
    QUICK_STEP_SHAPES,
    SEQUENCE_MODES,
    SHAPES,
    STEP,
    STEP_SHAPES,
    Shape,
)


def compare(
    *,
    cells: Sequence[str] | None = None,
    shapes: Sequence[Shape] | None = None,
    modes: Sequence[str] | None = None,
    memory: bool = False,
    peers: Sequence[str] | None = None,
    quick: bool = False,
    json_file: Path | None = None,
    chart_file: Path | None = None,
    command: str = "",
) -> None:
    """fastrnn against its peers; None and False: the usual ones. modes: of MODES, and "memory".

    With `shapes` mode "step" takes those, one call per time step, and is left out unless `modes` names it.
    """
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
