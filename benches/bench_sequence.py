"""Whole sequences: fastrnn, its NumPy reference, PyTorch and ONNX Runtime, one group per cell, shape and mode.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import pytest

from fastrnn.bench import CELLS, PEERS, Shape
from fastrnn.bench.peers import FastRNN
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, flops

CONTENDERS = [FastRNN, *PEERS.values()]
MODERATE_SHAPES = [
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(28, 128, 28, 128),
    Shape(100, 1, 64, 128),
    Shape(100, 32, 64, 128),
    Shape(1000, 16, 32, 32),
]

every_cell = pytest.mark.parametrize("cell", CELLS)
every_shape = pytest.mark.parametrize("shape", MODERATE_SHAPES, ids=lambda shape: "x".join(map(str, shape)))
timed = pytest.mark.benchmark(disable_gc=True, warmup=True, warmup_iterations=3, min_rounds=3, max_time=0.3)


@timed
@every_cell
@every_shape
@pytest.mark.parametrize("peer_class", CONTENDERS, ids=lambda peer: peer.name)
def test_forward(benchmark, checked, peer_class, cell, shape):
    peer = checked(peer_class, cell, shape, FORWARD)
    benchmark.group = f"{cell} {shape} {FORWARD}"
    benchmark(peer.forward)
    note_gflops(benchmark, flops(cell, shape, FORWARD))


@timed
@every_cell
@every_shape
@pytest.mark.parametrize("peer_class", [peer for peer in CONTENDERS if peer.has_backward], ids=lambda peer: peer.name)
def test_forward_backward(benchmark, checked, peer_class, cell, shape):
    peer = checked(peer_class, cell, shape, FORWARD_BACKWARD)
    benchmark.group = f"{cell} {shape} {FORWARD_BACKWARD}"
    benchmark(peer.forward_backward)
    note_gflops(benchmark, flops(cell, shape, FORWARD_BACKWARD))


def note_gflops(benchmark, operations: int) -> None:
    if benchmark.enabled:
        benchmark.extra_info["gflops"] = operations / benchmark.stats.stats.median / 1e9
