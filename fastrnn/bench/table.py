"""The bench as text: one line per cell, shape and mode, streaming in a section of its own, and a summary.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastrnn.bench.peers import PEERS, FastRNN
from fastrnn.bench.report import Memory, Report, Result
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, SEQUENCE_MODES, STEP, Shape

SHORT = {FORWARD: "fwd", FORWARD_BACKWARD: "f+b", STEP: "step"}
LARGE = "H >= 256, N >= 64"


def format_table(report: Report) -> str:
    """The whole report: what ran where, the table, the summary."""
    printer = Printer(report)
    lines = [format_head(report), *(printer.rows([result]) for result in report.results)]
    lines += [printer.memory_row(memory) for memory in report.memory]
    return "\n".join([*lines, "", format_summary(report)])


def format_head(report: Report) -> str:
    """The lines above the table: the machine, the versions, who is missing, and what the columns mean."""
    versions = ", ".join(f"{package} {number}" for package, number in report.versions.items())
    return "\n".join(
        [
            f"{report.config.get('cpu', 'unknown CPU')}; instruction set {report.config.get('isa', 'unknown')}; "
            f"{report.num_threads} thread{'s' if report.num_threads > 1 else ''}; {report.when}",
            versions,
            *(f"left out: {name} ({why})" for name, why in report.left_out.items()),
            *(f"note: {note}" for note in report.notes),
            "time and GFLOP/s of fastrnn; its GFLOP/s in percent of a large matrix product's (peak%) and of products",
            "of this problem's sizes (same%); then the time of each peer as a multiple of fastrnn's (above 1: fastrnn",
            "is ahead); peers are measured at 1 and at this many threads, and the better time counts"
            if report.num_threads > 1
            else "is ahead)",
        ]
    )


class Printer:
    """Turns results into lines as they come, with column titles wherever another section begins.

    A section has a column for every peer that can do its modes; a peer that cannot do a case shows as a dash.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._section: tuple[str, ...] = ()
        shapes = [result.shape for result in report.results] + [memory.shape for memory in report.memory]
        self._wide = max([20, *(len(str(shape)) + 1 for shape in shapes)])

    def rows(self, results: Sequence[Result]) -> str:
        """The lines for one cell and shape, one per mode."""
        lines = []
        for result in results:
            peers = self._peers(SEQUENCE_MODES if result.mode in SEQUENCE_MODES else (STEP,))
            per = "per step" if result.mode == STEP else "time"
            lines += self._titles(("mode", per, "GF/s", "peak%", "same%"), peers)
            seconds = result.seconds_per_step() if result.mode == STEP else result.median_seconds()
            line = self._case(result.cell, result.shape) + f"{SHORT[result.mode]:5}|{_time(seconds):>11}"
            line += f"{result.gflops():6.0f} {_percent(self.report.share_of_large(result)):>5}"
            line += f" {_percent(result.share_of_same_flops()):>5} |"
            for name in peers:
                cell = f"{result.ratio(name):.2f}" if name in result.seconds else "-"
                line += f" {cell:>{_width(name) - 1}}"
            lines.append(line)
        return "\n".join(lines)

    def memory_row(self, memory: Memory) -> str:
        """The line for the peak memory of one cell and shape."""
        peers = self._peers((FORWARD_BACKWARD,))
        lines = self._titles(("mode", "peak MB", "", "", ""), peers)
        own = memory.peak[FastRNN.name]
        line = self._case(memory.cell, memory.shape) + f"{'mem':5}|{own / 1e6:>11.2f}{'':18} |"
        for name in peers:
            cell = f"{memory.peak[name] / own:.2f}" if name in memory.peak and own else "-"
            line += f"{cell:>{_width(name)}}"
        return "\n".join([*lines, line])

    def _peers(self, modes: Sequence[str]) -> list[str]:
        able = [name for name in self.report.peers if name not in PEERS or set(modes) & set(PEERS[name].modes)]
        return [name for name in able if name != FastRNN.name]

    def _case(self, cell: str, shape: Shape) -> str:
        return f"{cell:5}{shape!s:{self._wide}}"

    def _titles(self, columns: tuple[str, str, str, str, str], peers: Sequence[str]) -> list[str]:
        section = (*columns, *peers)
        if section == self._section:
            return []
        self._section = section
        mode, time, *rest = columns
        line = f"{'cell':5}{'T,N,D,H':{self._wide}}{mode:5}|{time:>11}" + "".join(f"{title:>6}" for title in rest)
        line += " |" + "".join(f"{name:>{_width(name)}}" for name in peers)
        return ["", line, "-" * len(line)]


def format_summary(report: Report) -> str:
    """For each mode and peer, on how many cases fastrnn was ahead, the geometric mean and the least ratio."""
    lines = []
    for dtype, measured in report.gemm.items():
        rates = ", ".join(f"{library} {rate:.0f}" for library, rate in measured.items())
        lines.append(f"large {dtype} matrix product, GFLOP/s: {rates}")
    for mode in dict.fromkeys(result.mode for result in report.results):
        of_mode = [result for result in report.results if result.mode == mode]
        for name in report.peers:
            cases = [result for result in of_mode if name in result.seconds]
            if name == FastRNN.name or not cases:
                continue
            ratios = [result.ratio(name) for result in cases]
            least = min(cases, key=lambda result: result.ratio(name))
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            lines.append(
                f"{mode}: ahead of {name} on {sum(r > 1 for r in ratios)} of {len(ratios)}; geometric mean {mean:.2f}, "
                f"least {min(ratios):.2f} ({least.cell} {least.shape})"
            )
        large = [result for result in of_mode if result.shape.H >= 256 and result.shape.N >= 64]
        shares = [(share, result) for result in large if (share := result.share_of_same_flops()) is not None]
        if shares:
            share, least = min(shares, key=lambda pair: pair[0])
            lines.append(
                f"{mode}: {LARGE}: {_percent(share)}% to {_percent(max(shares, key=lambda pair: pair[0])[0])}% of the "
                f"speed of matrix products of the same sizes, least {least.cell} {least.shape}"
            )
    for name in report.peers:
        both = [memory for memory in report.memory if name in memory.peak]
        if name != FastRNN.name and both:
            fewer = sum(memory.peak[FastRNN.name] <= memory.peak[name] for memory in both)
            lines.append(f"peak memory of a training step: no more than {name}'s on {fewer} of {len(both)}")
    lines.append(f"{report.total_seconds:.0f} s in all")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us" if seconds < 1e-4 else f"{seconds * 1e3:.3f} ms"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def _width(name: str) -> int:
    return max(len(name), 6) + 2
