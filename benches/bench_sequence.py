"""Whole sequences and streaming: fastrnn, its NumPy reference and its peers, one group per cell, shape and mode.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import pytest

from fastrnn.bench import CELLS, MODES, PEERS, STEP, STEP_SHAPES, Shape
from fastrnn.bench.peers import FastRNN
from fastrnn.bench.shapes import flops

MODERATE_SHAPES = (
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(28, 128, 28, 128),
    Shape(100, 1, 64, 128),
    Shape(100, 32, 64, 128),
    Shape(1000, 16, 32, 32),
)

CASES = [
    pytest.param(peer, cell, shape, mode, id=f"{peer.name}-{cell}-{str(shape).replace(',', 'x')}-{mode}")
    for mode in MODES
    for shape in (STEP_SHAPES if mode == STEP else MODERATE_SHAPES)
    for cell in CELLS
    for peer in (FastRNN, *PEERS.values())
    if peer.suits(shape, mode)
]


@pytest.mark.benchmark(disable_gc=True, warmup=True, warmup_iterations=3, min_rounds=3, max_time=0.3)
@pytest.mark.parametrize("peer_class, cell, shape, mode", CASES)
def test_speed(benchmark, checked, peer_class, cell, shape, mode):
    peer = checked(peer_class, cell, shape, mode)
    benchmark.group = f"{cell} {shape} {mode}" + (f" ({shape.T} steps)" if mode == STEP else "")
    benchmark(peer.call(mode))
    note_gflops(benchmark, flops(cell, shape, mode))


def note_gflops(benchmark, operations: int) -> None:
    if benchmark.enabled:
        benchmark.extra_info["gflops"] = operations / benchmark.stats.stats.median / 1e9
