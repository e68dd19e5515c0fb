"""The bench as text: one line per cell and shape, the modes side by side, and a summary.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastrnn.bench.peers import FastRNN
from fastrnn.bench.run import Report, Result

NAME_WIDTH = 5 + 16  # cell and shape


def format_table(report: Report) -> str:
    """The whole report: what ran where, the table, the summary."""
    rows = [format_row(results, report.peers) for results in _by_case(report.results)]
    return "\n".join([format_head(report), *rows, "", format_summary(report)])


def format_head(report: Report, modes: Sequence[str] | None = None) -> str:
    """The lines above the first row. modes: the columns to come, where the report has no results yet."""
    columns = [name for name in report.peers if name != FastRNN.name]
    versions = ", ".join(f"{package} {number}" for package, number in report.versions.items())
    lines = [
        f"{report.config.get('cpu', 'unknown CPU')}; instruction set {report.config.get('isa', 'unknown')}; "
        f"{report.num_threads} thread{'s' if report.num_threads > 1 else ''}; {report.when}",
        versions,
        *(f"left out: {name} ({why})" for name, why in report.left_out.items()),
        "ms and GFLOP/s of fastrnn; then the time of each peer as a multiple of fastrnn's (above 1: fastrnn is faster)",
        "",
    ]
    titles = f"{'':{NAME_WIDTH}}"
    names = f"{'cell':5}{'T,N,D,H':16}"
    for mode in modes or list(dict.fromkeys(result.mode for result in report.results)):
        block = f"{'ms':>9}{'GF/s':>6}" + "".join(f"{name:>{_width(name)}}" for name in columns)
        titles += f" | {mode:<{len(block)}}"
        names += f" | {block}"
    return "\n".join([*lines, titles.rstrip(), names, "-" * len(names)])


def format_row(results: Sequence[Result], peers: Sequence[str]) -> str:
    """One line for one cell and shape; a peer that cannot do a mode shows as a dash."""
    line = f"{results[0].cell:5}{str(results[0].shape):16}"
    for result in results:
        line += f" | {result.median_seconds() * 1e3:9.3f}{result.gflops():6.0f}"
        for name in peers:
            if name != FastRNN.name:
                cell = f"{result.ratio(name):.2f}" if name in result.seconds else "-"
                line += f"{cell:>{_width(name)}}"
    return line


def format_summary(report: Report) -> str:
    """For each mode and peer, on how many cases fastrnn was ahead, the geometric mean and the least ratio."""
    lines = []
    for mode in dict.fromkeys(result.mode for result in report.results):
        for name in report.peers:
            cases = [result for result in report.results if result.mode == mode and name in result.seconds]
            if name == FastRNN.name or not cases:
                continue
            ratios = [result.ratio(name) for result in cases]
            least = min(cases, key=lambda result: result.ratio(name))
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(
                f"{mode}: ahead of {name} on {sum(r > 1 for r in ratios)} of {len(ratios)}; geometric mean {mean:.2f}, "
                f"least {min(ratios):.2f} ({least.cell} {least.shape})"
            )
    lines.append(f"{report.total_seconds:.0f} s in all")
    return "\n".join(lines)


def _width(name: str) -> int:
    return max(len(name), 7) + 1


def _by_case(results: Sequence[Result]) -> list[list[Result]]:
    cases: dict[tuple, list[Result]] = {}
    for result in results:
        cases.setdefault((result.cell, result.shape), []).append(result)
    return list(cases.values())
