"""Short calls that come thick use two threads, others one; the bits are the same. T time steps, N batch, H hidden."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from process_cases import run_python

import fastrnn
from fastrnn import GRU, LSTM, RNN, _native

MANY = 40  # calls: far more than must come close before the second thread is asked

CALLS = [(LSTM, 1, 1, 256), (GRU, 1, 1, 256), (RNN, 1, 1, 512), (LSTM, 1, 12, 64), (RNN, 16, 1, 128), (LSTM, 4, 1, 66)]


@pytest.fixture
def two_threads():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    yield
    fastrnn.set_num_threads(before)
    _native.force_plan()


@pytest.mark.parametrize(("cell", "T", "N", "H"), CALLS)
def test_calls_that_come_thick_have_the_bits_of_calls_that_come_alone(two_threads, cell, T, N, H):
    layer = cell(H, H, rng=0)
    x = np.random.default_rng(1).standard_normal((T, N, H)).astype("float32")
    _native.force_plan(threads=1)
    expected, expected_n = layer(x)
    _native.force_plan()
    for call in range(MANY):
        if call == MANY // 2:
            time.sleep(0.002)
        output, state_n = layer(x)
        np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(np.asarray(state_n), np.asarray(expected_n))


@pytest.mark.parametrize(("cell", "N", "H"), [(LSTM, 1, 256), (GRU, 12, 64), (RNN, 1, 512)])
def test_steps_that_come_thick_have_the_bits_of_the_sequence(two_threads, cell, N, H):
    layer = cell(H, H, num_layers=2, rng=0)
    x = np.random.default_rng(1).standard_normal((MANY, N, H)).astype("float32")
    expected, _ = layer(x)
    stream = layer.stream(N)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), expected)
    stream.reset()
    blocks = [stream.run(x[:20]), stream.step(x[20])[None], stream.run(x[21:22]), stream.run(x[22:])]
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_more_threads_than_at_the_opening_of_a_stream(two_threads):
    fastrnn.set_num_threads(1)
    layer = LSTM(64, 128, rng=0)
    stream = layer.stream()
    fastrnn.set_num_threads(8)
    x = np.random.default_rng(1).standard_normal((MANY, 1, 64)).astype("float32")
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])


WORKERS = """
import os, sys, time
import numpy as np, fastrnn
fastrnn.set_num_threads(2)
layer, x = fastrnn.LSTM(256, 256, rng=0), np.ones((1, 1, 256), np.float32)
threads = lambda: len(os.listdir("/proc/self/task"))
layer(x)
before, end, calls = threads(), time.monotonic() + 30, 0
pause, most = float(sys.argv[1]), int(sys.argv[2])
while threads() == before and time.monotonic() < end and calls < most:
    for _ in range(20):
        layer(x)
        if pause:
            time.sleep(pause)
    calls += 20
print(threads() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts this process's threads in /proc")
@pytest.mark.parametrize(("pause", "most", "workers"), [(0.001, 100, 0), (0, 10**9, 1)])
def test_a_worker_is_asked_where_calls_come_thick_alone(pause, most, workers):
    assert run_python("-c", WORKERS, pause, most).stdout.split() == [str(workers)]
