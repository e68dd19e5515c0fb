"""Puts the bench together: builds each problem, asserts that all contenders agree on it, then times them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import numpy as np

import fastrnn
from fastrnn import runtime
from fastrnn.bench.gemm import GEMM, LIBRARIES, large_gflops, products_call
from fastrnn.bench.measure import FULL, Plan, measure
from fastrnn.bench.memory import peak_memory
from fastrnn.bench.peers import PEERS, FastRNN, Peer, make_problem
from fastrnn.bench.report import Memory, Report, Result
from fastrnn.bench.shapes import CELLS, FORWARD_BACKWARD, SEQUENCE_MODES, SHAPES, STEP, Shape, flops, products

# Largest allowed difference from fastrnn: outputs absolute (they lie within -1..1), gradients relative to the largest
# entry. Sums over up to T*N = 56,000 rows meet in a gradient, in another order in each library.
TOLERANCE = {"float32": {"output": 1e-5, "gradient": 2e-5}, "float64": {"output": 1e-13, "gradient": 1e-12}}


class ResultsDiffer(Exception):
    """A peer computed something else than fastrnn, so timing them against each other would say nothing."""


def run(
    cells: Sequence[str] = CELLS,
    shapes: Sequence[Shape] = SHAPES,
    *,
    modes: Sequence[str] = SEQUENCE_MODES,
    step_shapes: Sequence[Shape] = (),
    memory: bool = False,
    peers: Iterable[str] | None = None,
    plan: Plan = FULL,
    command: str = "",
    on_start: Callable[[Report], object] = lambda report: None,
    on_results: Callable[[Report, list[Result]], object] = lambda report, results: None,
    on_memory: Callable[[Report, Memory], object] = lambda report, memory: None,
) -> Report:
    """Time every cell and shape in every mode, then every cell and step shape in mode "step".

    memory: afterwards find the peak memory of a training step on each of `shapes`.
    peers: None for all, less the NumPy reference where a call takes it very long; what is not installed is left out.
    Peers are measured at one thread and at as many as fastrnn is set to, and their better time counts; JAX, which
    starts anew for another number, at the latter alone. The report names those who do not let it be set.
    on_start(report) is called before the first measurement, on_results(report, results) as soon as a cell and shape
    are done, with one result per mode, on_memory(report, memory) likewise.
    Raises ResultsDiffer where a peer does not agree with fastrnn, ValueError for a bidirectional shape in mode "step".
    """
    for shape in (*(shapes if STEP in modes else ()), *step_shapes):
        if shape.bidirectional:
            raise ValueError(
                f"shape {shape}: expected one direction in mode {STEP}, as a bidirectional layer needs "
                "the end of the sequence for its first output"
            )
    report, contenders = start(PEERS if peers is None else peers, command)
    on_start(report)
    begin = time.perf_counter()
    jobs = [(cell, shape, modes) for cell in cells for shape in shapes if modes]
    jobs += [(cell, shape, (STEP,)) for cell in cells for shape in step_shapes]
    for cell, shape, of_case in jobs:
        if shape.dtype not in report.gemm:
            libraries = [name for name in LIBRARIES if name == "numpy" or name in report.peers]
            report.gemm[shape.dtype] = large_gflops(libraries, shape.dtype, plan)
        results = compare(
            cell, shape, contenders, modes=of_case, plan=plan, blas=report.best_blas(shape.dtype), all_sizes=bool(peers)
        )
        report.results += results
        on_results(report, results)
    for cell, shape in [(cell, shape) for cell in cells for shape in shapes if memory]:
        found = peak_memory(cell, shape, contenders, report.num_threads)
        report.memory.append(found)
        on_memory(report, found)
    report.total_seconds = time.perf_counter() - begin
    return report


def start(peers: Iterable[str], command: str = "") -> tuple[Report, list[type[Peer]]]:
    """An empty report, and the contenders that are installed, fastrnn first, limited to fastrnn's threads."""
    peers = list(peers)
    left_out = {name: f"{' and '.join(PEERS[name].missing())} not installed" for name in peers if PEERS[name].missing()}
    contenders: list[type[Peer]] = [FastRNN, *(PEERS[name] for name in peers if name not in left_out)]
    num_threads = fastrnn.get_num_threads()
    unlimited = {contender.name: contender.set_num_threads(num_threads) for contender in contenders}
    report = Report(
        config=runtime.config(),
        versions=_versions(contenders),
        num_threads=num_threads,
        peers=[contender.name for contender in contenders],
        left_out=left_out,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        notes=[f"{name}: {why}" for name, why in unlimited.items() if why],
    )
    return report, contenders


def compare(
    cell: str,
    shape: Shape,
    contenders: Sequence[type[Peer]],
    *,
    modes: Sequence[str] = SEQUENCE_MODES,
    plan: Plan = FULL,
    blas: str | None = None,
    all_sizes: bool = True,
) -> list[Result]:
    """One result per mode for one cell and shape, after all contenders were found to agree.

    blas: the library whose products of the same sizes run beside the contenders, except in mode "step".
    all_sizes: False leaves out who would need very long, see `Peer.most_flops`.
    """
    problem = make_problem(cell, shape)
    peers: dict[str, tuple[Peer, int]] = {}  # "torch", or "torch@1" and "torch@2" -> the peer, and its threads
    results = []
    for mode in modes:
        able = [
            contender
            for contender in contenders
            if contender.suits(shape, mode) and (all_sizes or flops(cell, shape, mode) <= contender.most_flops)
        ]
        in_mode: dict[str, tuple[Peer, int]] = {}
        for contender in able:
            counts = contender.counts(fastrnn.get_num_threads())
            for threads in counts:
                label = f"{contender.name}@{threads}" if len(counts) > 1 else contender.name
                if label not in peers:
                    contender.set_num_threads(threads)
                    peers[label] = contender(problem), threads
                in_mode[label] = peers[label]
        difference = check_equal({label: peer for label, (peer, _) in in_mode.items()}, mode)
        calls = {label: peer.call(mode) for label, (peer, _) in in_mode.items()}
        settling = {label: peer.settling for label, (peer, _) in in_mode.items()}
        if blas is not None and mode != STEP and not shape.lengths:
            calls[GEMM] = products_call(blas, products(cell, shape), shape.dtype)
            settling[GEMM] = PEERS[blas].settling

        def before(label: str, running: Mapping[str, tuple[Peer, int]] = in_mode) -> None:
            if label in running:
                running[label][0].set_num_threads(running[label][1])

        seconds, threads_of = _better(measure(calls, plan, settling=settling, before=before))
        off: dict[str, float] = {}
        for label, distance in difference.items():
            name = label.partition("@")[0]
            off[name] = max(distance, off.get(name, 0.0))
        results.append(Result(cell, shape, mode, seconds, off, threads_of))
    for contender in contenders:
        contender.set_num_threads(fastrnn.get_num_threads())
    return results


def _better(seconds: Mapping[str, list[float]]) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Of a peer that was measured at several numbers of threads the better times, and at how many they are."""
    best: dict[str, list[float]] = {}
    threads: dict[str, int] = {}
    for label, times in seconds.items():
        name, _, count = label.partition("@")
        if name not in best or median(times) < median(best[name]):
            best[name] = times
            if count:
                threads[name] = int(count)
    return best, threads


def check_equal(peers: Mapping[str, Peer], mode: str) -> dict[str, float]:
    """The largest difference of each peer from fastrnn. Raises ResultsDiffer beyond TOLERANCE or for a NaN."""
    expected = peers[FastRNN.name].results(mode)
    backward = mode == FORWARD_BACKWARD
    limit = TOLERANCE[peers[FastRNN.name].problem.shape.dtype]["gradient" if backward else "output"]
    difference = {}
    for name, peer in peers.items():
        if name == FastRNN.name:
            continue
        found = peer.results(mode)
        off = {key: _distance(found[key], array, relative=backward) for key, array in expected.items()}
        for key, distance in off.items():
            if not distance <= limit:
                what = f"gradient by {key}" if backward else key
                raise ResultsDiffer(
                    f"{peer.problem.cell} {peer.problem.shape}, {mode}: {what} of {name} differs by {distance:.1e} "
                    f"from fastrnn's (at most {limit:.0e} expected)"
                )
        difference[name] = max(off.values())
    return difference


def _distance(found: np.ndarray, expected: np.ndarray, *, relative: bool) -> float:
    """The largest difference of two entries; relative to the largest entry. Infinite for arrays of different shapes
    or dtypes."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
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
