"""How time grows with size: per time step over T, over the batch N, and over the weights H*(D+H).

Time per step should not depend on T, and grow linearly in N and in H*(D+H) once the arrays exceed the caches.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fastrnn.bench.measure import Plan, measure
from fastrnn.bench.peers import FastRNN, make_problem
from fastrnn.bench.shapes import SEQUENCE_MODES, Shape, flops
from fastrnn.bench.table import SHORT

PLAN = Plan(rounds=5, least_rounds=3, budget=1.5, block=0.02, pause=0.002)

CURVES: dict[str, tuple[Shape, ...]] = {
    "T": tuple(Shape(T, 4, 32, 32) for T in (10, 100, 1_000, 10_000, 100_000)),
    "N": tuple(Shape(32, N, 128, 128) for N in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)),
    "H*(D+H)": tuple(Shape(32, 64, H, H) for H in (16, 32, 64, 128, 256, 512, 1024)),
}


@dataclass(frozen=True)
class Point:
    """One measured point. curve: a key of CURVES; seconds: per call, one number per round."""

    curve: str
    cell: str
    shape: Shape
    mode: str
    seconds: list[float]

    @property
    def size(self) -> int:
        """Where the point lies on its curve's axis."""
        T, N, D, H = self.shape[:4]
        return {"T": T, "N": N, "H*(D+H)": H * (D + H)}[self.curve]

    def seconds_per_step(self) -> float:
        return median(self.seconds) / self.shape.T

    def gflops(self) -> float:
        return flops(self.cell, self.shape, self.mode) / median(self.seconds) / 1e9


def run_scaling(
    cells: Iterable[str],
    modes: Sequence[str] = SEQUENCE_MODES,
    *,
    curves: Mapping[str, Sequence[Shape]] = CURVES,
    plan: Plan = PLAN,
    on_point: Callable[[Point], object] = lambda point: None,
) -> list[Point]:
    """Measure fastrnn along every curve; on_point(point) is called as soon as one is measured."""
    points = []
    for cell in cells:
        for curve, shapes in curves.items():
            for mode in modes:
                for shape in shapes:
                    call = FastRNN(make_problem(cell, shape)).call(mode)
                    seconds = measure({FastRNN.name: call}, plan)[FastRNN.name]
                    points.append(Point(curve, cell, shape, mode, seconds))
                    on_point(points[-1])
    return points


def growth(points: Sequence[Point]) -> list[float | None]:
    """For each point the factor of its time per step over the last point's, over what it should be: 1 over T, the
    factor of the sizes over N and H*(D+H). None where a curve begins. 1: grows as it should; below: less."""
    found: list[float | None] = []
    for last, point in zip([None, *points], points):
        if last is None or (last.curve, last.cell, last.mode) != (point.curve, point.cell, point.mode):
            found.append(None)
            continue
        expected = 1.0 if point.curve == "T" else point.size / last.size
        found.append(point.seconds_per_step() / last.seconds_per_step() / expected)
    return found


HEAD = (
    "growth: factor of the time per step over the line above, divided by the factor expected (1 over T; that of the\n"
    "sizes over N and H*(D+H)): 1.00 grows as it should, less where a small size leaves the machine idle\n\n"
    f"{'cell':5}{'mode':5}{'over':9}{'size':>10}{'T,N,D,H':>20}{'per step':>14}{'GF/s':>7}{'growth':>8}"
)


def format_row(point: Point, grown: float | None) -> str:
    factor = "" if grown is None else f"{grown:.2f}"
    return (
        f"{point.cell:5}{SHORT[point.mode]:5}{point.curve:9}{point.size:>10,}{point.shape!s:>20}"
        f"{point.seconds_per_step() * 1e6:>11.2f} us{point.gflops():7.0f}{factor:>8}"
    )
