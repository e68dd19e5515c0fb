"""The contenders: every one computes what fastrnn computes, and one that does not is never timed.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_bench import SMALL, TINY_PLAN

import fastrnn
from fastrnn import bench
from fastrnn.bench.peers import PEERS, WEIGHTS, FastRNN, Peer, make_problem
from fastrnn.bench.run import ResultsDiffer, check_equal, compare
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, GATES, MODES, STEP, Shape

STACKED = Shape(5, 3, 4, 6, num_layers=2, bidirectional=True)
RAGGED = Shape(5, 4, 4, 6, lengths=True)
RAGGED_STACK = Shape(5, 4, 4, 6, num_layers=2, bidirectional=True, lengths=True)
DEEP = Shape(5, 2, 4, 6, num_layers=3, dtype="float64")


def agree(name: str, cell: str, shape: Shape) -> None:
    problem = make_problem(cell, shape, seed=1)
    modes = [mode for mode in MODES if PEERS[name].suits(shape, mode)]
    for mode in modes:
        peers = {"fastrnn": FastRNN(problem), name: PEERS[name](problem)}
        assert 0 <= check_equal(peers, mode)[name] < (2e-5 if shape.dtype == "float32" else 1e-12)


@pytest.mark.parametrize("cell", bench.CELLS)
@pytest.mark.parametrize("shape", [SMALL, STACKED, DEEP, RAGGED, RAGGED_STACK], ids=str)
@pytest.mark.parametrize("name", [name for name in PEERS if name not in ("openvino", "jax")])
def test_every_peer_agrees_with_fastrnn(name, shape, cell):
    if PEERS[name].missing():
        pytest.skip(f"{PEERS[name].missing()} not installed")
    agree(name, cell, shape)


@pytest.mark.parametrize("name", ["openvino", "jax"])
def test_peers_that_change_their_process_agree_too(name):
    """In a process of their own: JAX makes every later fork warn, and OpenVINO's threads would stay."""
    if PEERS[name].missing():
        pytest.skip(f"{PEERS[name].missing()} not installed")
    code = (
        "from test_bench_peers import *\n"
        f"assert PEERS[{name!r}].set_num_threads(1) is None\n"
        f"for cell, shape in [('lstm', SMALL), ('gru', STACKED)]: agree({name!r}, cell, shape)\n"
        "print('agreed')"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(fastrnn.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "agreed\n"), done.stderr


def test_who_can_do_what():
    assert [name for name, peer in PEERS.items() if peer.suits(SMALL, FORWARD_BACKWARD)] == ["numpy", "torch", "jax"]
    assert [name for name, peer in PEERS.items() if not peer.suits(SMALL, FORWARD)] == ["torch-cell"]
    assert [name for name, peer in PEERS.items() if peer.suits(DEEP, STEP)] == ["numpy", "torch", "jax"]
    assert not any(peer.suits(STACKED, STEP) for peer in [FastRNN, *PEERS.values()])


@pytest.mark.parametrize("cell", bench.CELLS)
def test_streaming_carries_the_state_and_starts_from_zero_every_time(cell):
    peer = FastRNN(make_problem(cell, Shape(6, 2, 3, 5)))
    once, again = peer.step_outputs(), peer.step_outputs()
    np.testing.assert_array_equal(once, again)
    np.testing.assert_allclose(once, peer.output(), rtol=0, atol=1e-6)
    assert not np.allclose(once[1], peer.layer(peer.problem.x[1:2])[0][0], atol=1e-3)  # as if there were no state


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_limiting_threads_limits_the_library(library):
    for package in {"numpy": ["threadpoolctl"], "torch": ["threadpoolctl", "torch"]}[library]:
        pytest.importorskip(package)
    import threadpoolctl

    def threads():
        if library == "torch":
            import torch

            return {torch.get_num_threads()}
        return {info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"}

    (before,) = threads()
    try:
        assert PEERS[library].set_num_threads(1) is None
        assert threads() == {1}
    finally:
        PEERS[library].set_num_threads(before)
    assert threads() == {before}


def test_numpys_threads_without_threadpoolctl_are_a_note(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "threadpoolctl" in PEERS["numpy"].set_num_threads(1)


@pytest.mark.parametrize("cell", bench.CELLS)
def test_gradients_do_not_accumulate_over_repeats(cell):
    for peer_class in (FastRNN, PEERS["numpy"]):
        peer = peer_class(make_problem(cell, SMALL))
        once, twice = peer.gradients(), peer.gradients()
        assert set(once) == {"x", *(f"{name}_l0" for name in WEIGHTS)}
        for name in once:
            np.testing.assert_array_equal(once[name], twice[name], err_msg=name)


def test_problems_are_random_float32_and_repeatable():
    one, same, other = (make_problem("gru", SMALL, seed=seed) for seed in (3, 3, 4))
    T, N, D, H = SMALL[:4]
    assert one.x.shape == (T, N, D) and one.doutput.shape == (T, N, H)
    assert [array.shape for array in one.weights.values()] == [(3 * H, D), (3 * H, H), (3 * H,), (3 * H,)]
    for array in (one.x, one.doutput, *one.weights.values()):
        assert array.dtype == np.float32 and np.unique(array).size == array.size
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
    assert GATES[one.cell] == 3


def test_problems_of_stacked_layers_have_pytorchs_names_and_sizes():
    problem = make_problem("rnn", STACKED._replace(dtype="float64"))
    assert {name: array.shape for name, array in problem.weights.items() if name.startswith("weight_ih")} == {
        "weight_ih_l0": (6, 4),
        "weight_ih_l0_reverse": (6, 4),
        "weight_ih_l1": (6, 12),
        "weight_ih_l1_reverse": (6, 12),
    }
    assert problem.doutput.shape == (5, 3, 12)
    assert {array.dtype for array in (problem.x, problem.doutput, *problem.weights.values())} == {np.dtype("float64")}


class Spoiled(Peer):
    """fastrnn with one entry off: the bench must notice."""

    name = "spoiled"
    key = "output"
    by = 1e-3

    def __init__(self, problem):
        super().__init__(problem)
        self.inner = FastRNN(problem)

    def spoil(self, array):
        array = array.copy()
        array.flat[-1] += self.by
        return array

    def forward(self):
        return self.output()

    def output(self):
        return self.spoil(self.inner.output())

    def forward_backward(self):
        return self.gradients()

    def gradients(self):
        return {key: self.spoil(array) if key == self.key else array for key, array in self.inner.gradients().items()}


@pytest.mark.parametrize("key", ["output", "x", *(f"{name}_l0" for name in WEIGHTS)])
@pytest.mark.parametrize("by", [1e-2, np.nan])
def test_differing_results_are_never_timed(key, by):
    contender = type("Spoiled", (Spoiled,), {"key": key, "by": by})
    mode = FORWARD if key == "output" else FORWARD_BACKWARD
    what = "output" if key == "output" else f"gradient by {key} "
    with pytest.raises(ResultsDiffer, match=f"lstm 4,3,5,6, forward.*: {what}.*spoiled differs"):
        compare("lstm", SMALL, [FastRNN, contender], modes=[mode], plan=TINY_PLAN)


def test_a_differing_step_is_never_timed():
    class AfterTheFirst(Spoiled):
        def step_outputs(self):
            return self.spoil(self.inner.step_outputs())

    with pytest.raises(ResultsDiffer, match="lstm 4,3,5,6, step: output of spoiled differs"):
        compare("lstm", SMALL, [FastRNN, AfterTheFirst], modes=[STEP], plan=TINY_PLAN)


def test_an_output_in_another_precision_differs():
    class Rounded(Spoiled):
        def output(self):
            return self.inner.output().astype(np.float32)

    problem = make_problem("rnn", SMALL._replace(dtype="float64"))
    with pytest.raises(ResultsDiffer, match="output of spoiled differs by inf"):
        check_equal({"fastrnn": FastRNN(problem), "spoiled": Rounded(problem)}, FORWARD)


def test_an_output_of_another_shape_differs_even_if_it_would_broadcast():
    class OneBatchRow(Spoiled):
        def output(self):
            return self.inner.output()[:, :1]

    problem = make_problem("rnn", Shape(4, 1, 5, 6))
    check_equal({"fastrnn": FastRNN(problem), "spoiled": OneBatchRow(problem)}, FORWARD)  # the same when N = 1
    problem = make_problem("rnn", SMALL)
    with pytest.raises(ResultsDiffer, match="output of spoiled differs by inf"):
        check_equal({"fastrnn": FastRNN(problem), "spoiled": OneBatchRow(problem)}, FORWARD)
