"""Edges of the compiled core: memory that is shared, empty or handed in wrongly, and what streams will rely on.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import every_cell, every_dtype, make_case

import fastrnn
from fastrnn import _native, functional

ELSEWHERE = Path(fastrnn.__file__).parents[1]  # where `python -c` finds the fastrnn under test, and no other


def small(cell, options=None, T=4, N=3, D=5, H=5, dtype="float32"):
    return make_case(cell, options or {}, (T, N, D, H), dtype)


def forward(case, x=None, state=None, **options):
    return replace(case, x=case.x if x is None else x, state=state or case.state).forward(functional, **options)


def backward(case, cache, **options):
    return case.backward(functional, cache, **options)


@every_cell
@every_dtype
@pytest.mark.parametrize(("N", "D", "H"), [(1, 5, 3), (2, 70, 33), (7, 28, 64), (1, 512, 130)])
def test_steps_have_the_bits_of_the_whole_sequence(isa, cell, options, dtype, N, D, H):
    case = small(cell, options, 6, N, D, H, dtype)
    output, *last = forward(case, training=False)[:-1]
    state = case.state
    for t in range(6):
        y, *state = forward(case, case.x[t : t + 1], state, training=False)[:-1]
        np.testing.assert_array_equal(y[0], output[t])
    for stepped, whole in zip(state, last):
        np.testing.assert_array_equal(stepped, whole)


@every_dtype
@pytest.mark.parametrize(("N", "D", "M"), [(1, 5, 3), (3, 70, 33), (8, 28, 10)])
def test_linear_rows_have_the_same_bits_alone(isa, dtype, N, D, M):
    rng = np.random.default_rng(3)
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((9, N, D), (M, D), (M,)))
    whole, _ = functional.linear_forward(x, weight, bias)
    for t in range(9):
        np.testing.assert_array_equal(functional.linear_forward(x[t], weight, bias)[0], whole[t])


def test_no_steps_through_a_bidirectional_layer():
    layer = fastrnn.LSTM(5, 4, num_layers=2, bidirectional=True, rng=0)
    x = np.zeros((0, 2, 5), np.float32)
    output, (h_n, c_n) = layer(x, training=True)
    assert output.shape == (0, 2, 8)
    assert not h_n.any() and not c_n.any()
    dx, (dh0, dc0) = layer.backward(output, (h_n + 1, c_n + 2))
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dh0, 1)
    np.testing.assert_array_equal(dc0, 2)


@every_cell
def test_h0_may_be_a_view_of_out(cell, options):
    """One buffer carried from call to call: h0 is the end of the last output, and is overwritten."""
    case = small(cell, options, T=1)
    expected = forward(case)
    expected_gradients = backward(case, expected[-1])
    out = np.empty((1, 3, 5), np.float32)
    out[0] = case.state[0]
    got = forward(case, state=(out[-1], *case.state[1:]), out=out)
    np.testing.assert_array_equal(got[0], expected[0])
    gradients = backward(case, got[-1])
    for name, gradient in expected_gradients.items():
        np.testing.assert_array_equal(gradients[name], gradient, err_msg=name)


@every_cell
def test_out_over_an_input_is_refused(cell, options):
    case = small(cell, options)
    with pytest.raises(ValueError, match="^out: expected an array apart from x"):
        forward(case, out=case.x)
    both = np.zeros((4, 3, 10), np.float32)  # interleaved halves do not overlap
    both[:, :, 5:] = case.x
    forward(case, both[:, :, 5:], out=both[:, :, :5])
    np.testing.assert_array_equal(both[:, :, :5], forward(case)[0])


def wrong_state_sums():
    frozen = np.zeros((3, 5), np.float32)
    frozen.flags.writeable = False
    yield "dtype", np.zeros((3, 5)), TypeError
    yield "shape", np.zeros((2, 3, 5), np.float32), ValueError
    yield "read-only", frozen, ValueError
    yield "integers", np.zeros((3, 5), np.int32), TypeError


@pytest.mark.parametrize(
    ("array", "error"), [case[1:] for case in wrong_state_sums()], ids=[c[0] for c in wrong_state_sums()]
)
def test_wrong_into_h0_leaves_the_cache_unused(array, error):
    case = small("lstm")
    cache = forward(case)[-1]
    with pytest.raises(error, match=r"^into\['h0'\]: expected"):
        backward(case, cache, into={"h0": array})
    assert np.isfinite(backward(case, cache)["x"]).all()


def test_empty_tape_is_refused():
    with pytest.raises(TypeError, match="^cache: expected the cache of lstm_forward"):
        functional.lstm_backward(None, None, None, _native.SequenceCache())


def test_absurd_sizes_are_refused():
    case = small("lstm", D=1, H=1, N=1)
    x = np.broadcast_to(np.zeros((1, 1, 1), np.float32), (2**58, 1, 1))
    out = np.lib.stride_tricks.as_strided(np.zeros((1, 1, 1), np.float32), (2**58, 1, 1), (0, 4, 4))
    with pytest.raises(MemoryError):
        forward(case, x, out=out)


@pytest.mark.parametrize("plan", [{"threads": -1}, {"partitions": -1}, {"partitions": 65}, {"chunk": 0}], ids=str)
def test_force_plan_refuses_what_no_plan_is(plan):
    (name,) = plan
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        _native.force_plan(**plan)


def test_a_cache_without_backward_gives_its_memory_back():
    """Dropped, refused and used caches of 5 MB each: 300 that stayed would be 1.5 GB."""
    resource = pytest.importorskip("resource")
    case = small("lstm", T=80, N=16, D=16, H=200)
    wrong = {"h0": np.zeros((1, 1), np.float32)}

    def three_ways():
        forward(case)
        with pytest.raises(ValueError):
            backward(case, forward(case)[-1], into=wrong)
        backward(case, forward(case)[-1])

    for _ in range(3):
        three_ways()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        three_ways()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 100e6


@pytest.mark.skipif(not hasattr(signal, "sigwait"), reason="needs POSIX signals")
def test_workers_leave_signals_to_the_program():
    script = (
        "import os, signal, numpy as np, fastrnn\n"
        "fastrnn.set_num_threads(2)\n"
        "fastrnn.LSTM(64, 64, rng=0)(np.zeros((50, 32, 64), np.float32))\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print(signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1)\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment, cwd=ELSEWHERE
    )
    assert run.stdout.strip() == "True", run.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FASTRNN_ISA", "mmx", "FASTRNN_ISA"),
        ("FASTRNN_NUM_THREADS", "0", "FASTRNN_NUM_THREADS"),
        ("FASTRNN_NUM_THREADS", "many", "FASTRNN_NUM_THREADS"),
    ],
)
def test_wrong_environment_is_an_error(name, value, said):
    run = subprocess.run(
        [sys.executable, "-c", "import fastrnn"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {name: value},
        cwd=ELSEWHERE,
    )
    assert run.returncode != 0
    assert f"environment variable {said}: " in run.stderr and repr(value) in run.stderr
