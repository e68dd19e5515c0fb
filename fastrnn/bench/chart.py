"""The bench as a picture: where fastrnn stands per cell and shape, and how its time grows with size.

Needs matplotlib, which is imported when a chart is drawn: pip install "fastrnn[plot]".
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrnn.bench.gemm import GEMM
from fastrnn.bench.peers import FastRNN
from fastrnn.bench.report import Report, Result
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, SEQUENCE_MODES, STEP
from fastrnn.plot import make_figure

if TYPE_CHECKING:
    from fastrnn.bench.scaling import Point

# Colours that people with any colour vision tell apart (Okabe & Ito), and a marker for each, for print without colour.
STYLES = {
    "numpy": ("#999999", "s"),
    "torch": ("#D55E00", "o"),
    "torch-cell": ("#E69F00", "v"),
    "onnxruntime": ("#0072B2", "^"),
    "openvino": ("#CC79A7", "D"),
    "jax": ("#009E73", "P"),
}
OTHER_STYLE = ("#000000", "X")
TITLES = {FORWARD: "forward", FORWARD_BACKWARD: "forward + backward", STEP: "streaming, one time step per call"}


def draw_report(report: Report, path: str | Path) -> None:
    """A panel per mode and cell, a line per shape, a marker per peer: its time as a multiple of fastrnn's, on a
    logarithmic axis. The red side of the line at 1 is where fastrnn is behind. Raises ImportError without matplotlib.

    At the right of each line stand fastrnn's time and its GFLOP/s, in percent of the machine's large matrix product.
    The last line of a panel has the geometric means over the lines above it.
    """
    modes = [mode for mode in TITLES if any(result.mode == mode for result in report.results)]
    cells = list(dict.fromkeys(result.cell for result in report.results))
    shapes = {
        mode: list(dict.fromkeys(result.shape for result in report.results if result.mode == mode)) for mode in modes
    }
    lines = [len(shapes[mode]) + 3 for mode in modes]
    figure = make_figure(figsize=(2.5 + 4.4 * len(cells), 2.6 + 0.26 * sum(lines)))
    axes = figure.subplots(len(modes), len(cells), squeeze=False, height_ratios=lines)
    ratios = [result.ratio(name) for result in report.results for name in _peers(result)]
    least, most = min([0.8, *ratios]), max([1.25, *ratios])
    limits = (least / 1.15, most * 1.15)
    for row, mode in zip(axes, modes):
        for ax, cell in zip(row, cells):
            by_shape = {result.shape: result for result in report.results if (result.mode, result.cell) == (mode, cell)}
            _draw_panel(ax, report, [by_shape.get(shape) for shape in shapes[mode]], limits)
            names = [f"N={s.N}, D={s.D}, H={s.H}" if mode == STEP else str(s) for s in shapes[mode]]
            names.append("geometric mean")
            ax.set_yticks(range(len(names)), names if ax is row[0] else [])
            ax.set_title(f"{cell.upper()}, {TITLES[mode]}", fontsize=11, fontweight="bold")
    for ax in axes[-1]:
        ax.set_xlabel("time of the peer / time of fastrnn", fontsize=10)
    drawn = dict.fromkeys(name for result in report.results for name in _peers(result))
    handles = [_dots(axes[0][0], [], [], name) for name in report.peers if name in drawn]
    title = "How many times as long each library takes as fastrnn (right of 1: fastrnn is faster)"
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        frameon=False,
        fontsize=12,
        title=title,
        title_fontproperties={"size": 15, "weight": "bold"},
        markerscale=1.4,
    )
    figure.supxlabel(_about(report), fontsize=9, color="#444444")
    figure.savefig(path, dpi=110)


def _draw_panel(ax: Any, report: Report, results: Sequence[Result | None], limits: tuple[float, float]) -> None:
    ax.set_xscale("log")
    ax.set_xlim(limits)
    ax.set_ylim(len(results) + 0.6, -0.6)  # the first shape on top, the means below the last
    ax.axvspan(limits[0], 1, color="#D55E00", alpha=0.10, lw=0)
    ax.axvline(1, color="black", lw=1.4)
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if limits[0] <= tick <= limits[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.grid(axis="x", color="#dddddd", lw=0.8)
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    ax.tick_params(axis="x", labelsize=9.5)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    for y, result in enumerate(results):
        if result is None:
            continue
        found = {name: result.ratio(name) for name in _peers(result)}
        if found:
            ax.plot([min(1.0, *found.values()), max(found.values())], [y, y], color="#cccccc", lw=1, zorder=1)
        share = report.share_of_large(result)
        own = _short_time(result.seconds_per_step() if result.mode == STEP else result.median_seconds())
        if share is not None and result.mode != STEP:
            own += f" {100 * share:3.0f}%"
        ax.annotate(
            own,
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7.5,
            color="#444444",
            family="monospace",
            annotation_clip=False,
        )
    for name in report.peers:
        with_peer = [(y, result) for y, result in enumerate(results) if result and name in _peers(result)]
        if with_peer:
            ratios = [result.ratio(name) for _, result in with_peer]
            _dots(ax, ratios, [y for y, _ in with_peer], name)
            _dots(ax, [math.exp(sum(map(math.log, ratios)) / len(ratios))], [len(results)], name).set_markersize(9)
    ax.axhspan(len(results) - 0.5, len(results) + 0.5, color="#eeeeee", lw=0, zorder=0)


def _dots(ax: Any, x: Sequence[float], y: Sequence[float], name: str) -> Any:
    colour, marker = STYLES.get(name, OTHER_STYLE)
    return ax.plot(x, y, marker, color=colour, ms=6.5, mec="white", mew=0.6, label=name, zorder=3)[0]


def _peers(result: Result) -> list[str]:
    return [name for name in result.seconds if name not in (FastRNN.name, GEMM)]


def _short_time(seconds: float) -> str:
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _about(report: Report) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in report.versions.items())
    gemm = "; ".join(
        f"large {dtype} matrix product {max(measured.values()):.0f} GFLOP/s" for dtype, measured in report.gemm.items()
    )
    lines = [
        f"shapes T,N,D,H (time steps, batch, input size, hidden size; Ln: n layers; bi: bidirectional; f64: float64). "
        f"At the right: fastrnn's time, in streaming per step, and its GFLOP/s in percent of the {gemm or 'BLAS'}.",
        f"{report.config.get('cpu', 'unknown CPU')}, {report.config.get('isa', '')}, {report.num_threads} "
        f"thread{'s' if report.num_threads > 1 else ''}, {report.when[:10]}: {versions}",
        report.command,
    ]
    return "\n".join(textwrap.fill(line, 150) for line in lines if line)


def draw_scaling(points: Sequence[Point], path: str | Path) -> None:
    """Time per step over T, from zero, and over N and H*(D+H), both axes logarithmic. Dotted: growth as it should be,
    proportional (over T: none), through the last point. Raises ImportError without matplotlib."""
    from fastrnn.bench.scaling import CURVES

    curves = [curve for curve in CURVES if any(point.curve == curve for point in points)]
    figure = make_figure(figsize=(1 + 4.6 * len(curves), 4.8))
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    cells = list(dict.fromkeys(point.cell for point in points))
    for ax, curve in zip(axes, curves):
        for cell, (colour, marker) in zip(cells, [STYLES["onnxruntime"], STYLES["torch"], STYLES["jax"]]):
            for mode, line in zip(SEQUENCE_MODES, ("-", "--")):
                of_line = [point for point in points if (point.curve, point.cell, point.mode) == (curve, cell, mode)]
                if not of_line:
                    continue
                sizes = [point.size for point in of_line]
                times = [point.seconds_per_step() * 1e6 for point in of_line]
                ax.loglog(sizes, times, line + marker, color=colour, ms=5, label=f"{cell.upper()} {mode}")
                power = 0 if curve == "T" else 1
                ideal = [times[-1] * math.pow(size / sizes[-1], power) for size in sizes]
                ax.loglog(sizes, ideal, ":", color=colour, lw=0.8)
        if curve == "T":
            ax.set_yscale("linear")
            ax.set_ylim(0)
        first = next(point.shape for point in points if point.curve == curve)
        fixed = {
            "T": f"N={first.N}, D=H={first.H}",
            "N": f"T={first.T}, D=H={first.H}",
            "H*(D+H)": f"T={first.T}, N={first.N}, D=H",
        }[curve]
        ax.set_title(f"over {curve} ({fixed})", fontsize=10, fontweight="bold")
        ax.set_xlabel(curve)
        ax.grid(color="#dddddd", lw=0.8)
    axes[0].set_ylabel("microseconds per time step (dotted: as it should grow)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
