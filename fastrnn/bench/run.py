"""Puts the bench together: builds each problem, asserts that all contenders agree on it, then times them.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import numpy as np

import fastrnn
from fastrnn.bench.measure import FULL, Plan, measure, ratio
from fastrnn.bench.peers import PEERS, FastRNN, Peer, make_problem
from fastrnn.bench.shapes import CELLS, FORWARD, MODES, SHAPES, Shape, flops

# Largest allowed difference from fastrnn, in float32: outputs absolute (they lie within -1..1), gradients relative to
# the largest entry. Sums over up to T*N = 56,000 rows meet in a gradient, in another order in each library.
TOLERANCE = {"output": 1e-5, "gradient": 2e-5}


class ResultsDiffer(Exception):
    """A peer computed something else than fastrnn, so timing them against each other would say nothing."""


@dataclass(frozen=True)
class Result:
    """One cell, shape and mode. seconds: peer -> seconds per call in each round; difference: peer -> from fastrnn."""

    cell: str
    shape: Shape
    mode: str
    seconds: dict[str, list[float]]
    difference: dict[str, float] = field(default_factory=dict)

    def median_seconds(self, name: str = FastRNN.name) -> float:
        return median(self.seconds[name])

    def gflops(self, name: str = FastRNN.name) -> float:
        """1e9 floating point operations per second, as `flops` counts them."""
        return flops(self.cell, self.shape, self.mode) / self.median_seconds(name) / 1e9

    def ratio(self, name: str) -> float:
        """How many times as long as fastrnn this peer takes; above 1 fastrnn is ahead."""
        return ratio(self.seconds[name], self.seconds[FastRNN.name])


@dataclass
class Report:
    """Everything that one run of the bench found out. peers: those that ran; left_out: peer -> why it did not."""

    config: dict[str, Any]
    versions: dict[str, str]
    num_threads: int
    peers: list[str]
    left_out: dict[str, str]
    when: str
    results: list[Result] = field(default_factory=list)
    total_seconds: float = 0.0

    def to_json(self) -> str:
        """The raw numbers of every round, with medians, GFLOP/s and ratios beside them for other readers."""
        data = asdict(self)
        for entry, result in zip(data["results"], self.results):
            entry["shape"] = result.shape._asdict()
            entry["median_seconds"] = {name: result.median_seconds(name) for name in result.seconds}
            entry["gflops"] = {name: result.gflops(name) for name in result.seconds}
            entry["ratio"] = {name: result.ratio(name) for name in result.seconds if name != FastRNN.name}
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote; derived numbers are computed anew."""
        data = json.loads(text)
        data["results"] = [
            Result(
                cell=entry["cell"],
                shape=Shape(**entry["shape"]),
                mode=entry["mode"],
                seconds=entry["seconds"],
                difference=entry["difference"],
            )
            for entry in data["results"]
        ]
        return cls(**data)


def run(
    cells: Sequence[str] = CELLS,
    shapes: Sequence[Shape] = SHAPES,
    *,
    peers: Iterable[str] = tuple(PEERS),
    modes: Sequence[str] = MODES,
    plan: Plan = FULL,
    on_start: Callable[[Report], object] = lambda report: None,
    on_results: Callable[[Report, list[Result]], object] = lambda report, results: None,
) -> Report:
    """Time every cell and shape in every mode; peers that are not installed are left out and named in the report.

    Peers use as many threads as fastrnn is set to, where they let that be set.
    on_start(report) is called before the first measurement, on_results(report, results) as soon as a cell and shape
    are done, with one result per mode. Raises ResultsDiffer where a peer does not agree with fastrnn.
    """
    peers = list(peers)
    left_out = {name: f"{' and '.join(PEERS[name].missing())} not installed" for name in peers if PEERS[name].missing()}
    contenders: list[type[Peer]] = [FastRNN, *(PEERS[name] for name in peers if name not in left_out)]
    num_threads = fastrnn.get_num_threads()
    report = Report(
        config=dict(fastrnn.show_config()),
        versions=_versions(contenders),
        num_threads=num_threads,
        peers=[contender.name for contender in contenders],
        left_out=left_out,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    on_start(report)
    begin = time.perf_counter()
    for contender in contenders:
        contender.set_num_threads(num_threads)
    for cell in cells:
        for shape in shapes:
            results = compare(cell, shape, contenders, modes=modes, plan=plan)
            report.results += results
            on_results(report, results)
    report.total_seconds = time.perf_counter() - begin
    return report


def compare(
    cell: str, shape: Shape, contenders: Sequence[type[Peer]], *, modes: Sequence[str] = MODES, plan: Plan = FULL
) -> list[Result]:
    """One result per mode for one cell and shape, after all contenders were found to agree."""
    problem = make_problem(cell, shape)
    peers = {contender.name: contender(problem) for contender in contenders}
    results = []
    for mode in modes:
        able = {name: peer for name, peer in peers.items() if mode == FORWARD or peer.has_backward}
        difference = check_equal(able, mode)
        calls = {name: peer.forward if mode == FORWARD else peer.forward_backward for name, peer in able.items()}
        settling = {name: peer.settling for name, peer in able.items()}
        results.append(Result(cell, shape, mode, measure(calls, plan, settling=settling), difference))
    return results


def check_equal(peers: Mapping[str, Peer], mode: str) -> dict[str, float]:
    """The largest difference of each peer from fastrnn. Raises ResultsDiffer beyond TOLERANCE or for a NaN."""
    expected = _what_to_compare(peers[FastRNN.name], mode)
    limit = TOLERANCE["output" if mode == FORWARD else "gradient"]
    difference = {}
    for name, peer in peers.items():
        if name == FastRNN.name:
            continue
        found = _what_to_compare(peer, mode)
        off = {key: _distance(found[key], array, relative=mode != FORWARD) for key, array in expected.items()}
        for key, distance in off.items():
            if not distance <= limit:
                what = key if mode == FORWARD else f"gradient by {key}"
                raise ResultsDiffer(
                    f"{peer.problem.cell} {peer.problem.shape}: {what} of {name} differs by {distance:.1e} from "
                    f"fastrnn's (at most {limit:.0e} expected)"
                )
        difference[name] = max(off.values())
    return difference


def _what_to_compare(peer: Peer, mode: str) -> dict[str, np.ndarray]:
    return {"output": peer.output()} if mode == FORWARD else peer.gradients()


def _distance(found: np.ndarray, expected: np.ndarray, *, relative: bool) -> float:
    """The largest difference of two entries; relative to the largest entry. Infinite for arrays of different shapes."""
    if found.shape != expected.shape:
        return np.inf
    largest = float(np.abs(found - expected).max())
    return largest / float(np.abs(expected).max()) if relative else largest


def _versions(contenders: Iterable[type[Peer]]) -> dict[str, str]:
    packages = ["numpy", *(package for contender in contenders for package in contender.requires)]
    found = {"fastrnn": fastrnn.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # importable without having been installed
            found[package] = "unknown"
    return found
