"""Threads and processes: the same bits for every number of threads, calls side by side, forked children."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import assert_output_close, assert_results_close, every_cell, every_dtype, expect, make_case

import fastrnn
from fastrnn import functional, reference


@pytest.fixture
def threads() -> Iterator[Any]:
    """`_native.set_num_threads`, with the number restored afterwards."""
    from fastrnn import _native

    before = _native.get_num_threads()
    yield _native.set_num_threads
    _native.set_num_threads(before)


@pytest.fixture
def plan() -> Iterator[Any]:
    """`_native.force_plan`: calls as small as these would choose one thread. Restored afterwards."""
    from fastrnn import _native

    yield _native.force_plan
    _native.force_plan()


# By batch; one row; few rows with weights beyond a core's cache; long and thin.
THREAD_SHAPES = [(6, 70, 28, 64), (9, 1, 40, 96), (4, 3, 40, 320), (40, 17, 8, 12)]
# More threads than cores; rows in more shares than threads, in chunks of steps; units, which meet after each step.
PLANS = [
    {"threads": 2},
    {"threads": 3},
    {"threads": 8},
    {"threads": 2, "by_units": False, "partitions": 5, "chunk": 1},
    {"threads": 3, "by_units": False, "partitions": 3, "chunk": 4, "fused": False},
    {"threads": 3, "by_units": True},
    {"threads": 2, "by_units": True, "fused": False},
]


@pytest.mark.parametrize("shape", THREAD_SHAPES, ids=str)
@every_dtype
@every_cell
def test_bitwise_equal_however_work_is_shared(cell, options, dtype, shape, plan):
    case = make_case(cell, options, shape, dtype)
    for forced in PLANS:
        plan(threads=1, fused=forced.get("fused"))
        expected = case.run(functional)
        inference = case.forward(functional, training=False)[0]
        plan(**forced)
        for name, array in case.run(functional).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} with {forced}")
        np.testing.assert_array_equal(case.forward(functional, training=False)[0], inference, err_msg=str(forced))
    if shape == THREAD_SHAPES[0]:
        assert_results_close(expected, expect(case), dtype)


@pytest.mark.parametrize("hidden", [200, 320, 450])
def test_bitwise_equal_where_weights_exceed_a_cache(hidden, threads):
    """By the library's own choice: two threads share units instead of rows from a size on that depends on L2."""
    layer = fastrnn.LSTM(256, hidden, rng=0)
    x = np.random.default_rng(0).standard_normal((3, 33, 256), dtype=np.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(layer(x)[0])
    arrays = [array.astype(np.float64) for array in (x, *layer.params.values())]
    expected = reference.lstm_forward(arrays[0], None, None, *arrays[1:])[0]
    assert_output_close(results[0], expected, "float32")
    for output in results[1:]:
        np.testing.assert_array_equal(output, results[0])


@pytest.mark.parametrize(
    "lengths",
    [[30] + 24 * [1], [30, 30] + 23 * [0], list(range(6, 31)), 12 * [30] + 13 * [7]],
    ids=["one long", "two and none", "even", "two kinds"],
)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rows_of_different_lengths_are_shared_by_work(cell, lengths, plan):
    """A partition's chunks end where its own rows have so much behind them: at the same step for none of the others."""
    lengths = np.random.default_rng(3).permutation(lengths)
    case = replace(make_case(cell, {}, (30, 25, 12, 20), "float32"), lengths=lengths)
    plan(threads=1)
    expected = case.run(functional)
    assert_results_close(expected, expect(case), "float32")
    for partitions in (2, 3, 5):
        for chunk in (1, 4, 30):
            plan(threads=2, by_units=False, partitions=partitions, chunk=chunk)
            for name, array in case.run(functional).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=f"{name}, {partitions} by {chunk}")


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_two_python_threads(cell, isa):
    """Inference from two threads at once, on different cases that both use the pool."""
    cases = [make_case(cell, {}, shape, "float32") for shape in [(20, 64, 28, 64), (30, 2, 20, 200)]]
    alone = [case.forward(functional, training=False)[0] for case in cases]
    for case, output in zip(cases, alone):
        assert_output_close(output, case.astype(np.float64).forward(reference)[0], "float32")
    start = threading.Barrier(2)

    def work(case, output):
        start.wait(timeout=20)
        return sum(not np.array_equal(case.forward(functional, training=False)[0], output) for _ in range(30))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, cases, alone, timeout=60)) == [0, 0]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_two_python_threads_training(cell, isa):
    """Forward and backward from two threads at once, each with its own cache."""
    cases = [make_case(cell, {}, shape, "float32") for shape in [(10, 40, 28, 64), (15, 2, 20, 130)]]
    alone = [case.run(functional) for case in cases]

    def work(case, expected):
        for _ in range(10):
            for name, array in case.run(functional).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=name)
        return True

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, cases, alone, timeout=60)) == [True, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_forked_child(cell, threads):
    """After the parent's pool has worked, a child computes the same, and so does the parent afterwards."""
    threads(2)
    case = make_case(cell, {}, (10, 64, 28, 64), "float32")
    expected = case.run(functional)

    def same_again():
        return all(np.array_equal(array, expected[name]) for name, array in case.run(functional).items())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork in a process with threads
        pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if same_again() and same_again() else 1
        finally:
            os._exit(status)
    assert same_again()
    deadline = time.monotonic() + 20
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0, "1: other numbers, 2: an exception, negative: a signal"
    assert same_again()


def test_threadpoolctl_limits_our_threads(threads):
    threadpoolctl = pytest.importorskip("threadpoolctl", minversion="3.4")
    threads(3)
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "fastrnn"] == [3]
    with threadpoolctl.threadpool_limits(1):
        assert fastrnn.get_num_threads() == 1
    assert fastrnn.get_num_threads() == 3
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert fastrnn.get_num_threads() == 3
