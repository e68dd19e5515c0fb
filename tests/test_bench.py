"""The bench: how it measures, that it refuses to time differing results, its table and JSON, every peer."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench.measure import Plan, measure, ratio
from fastrnn.bench.peers import PEERS, WEIGHTS, FastRNN, Peer, make_problem
from fastrnn.bench.run import Report, Result, ResultsDiffer, check_equal, compare
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, GATES, MODES, SHAPES, Shape, flops
from fastrnn.bench.table import format_head, format_row, format_summary, format_table

SMALL = Shape(4, 3, 5, 6)
TINY_PLAN = Plan(rounds=2, budget=0.05, block=0.001, max_repeats=3, pause=0.0)


# shapes ----------------------------------------------------------------------------------------------------------------


def test_flops_count_the_matrix_products():
    assert flops("lstm", Shape(7, 3, 5, 11), FORWARD) == 2 * (44 * 5 + 44 * 11) * 7 * 3
    assert flops("gru", Shape(7, 3, 5, 11), FORWARD_BACKWARD) == 3 * 2 * (33 * 5 + 33 * 11) * 7 * 3
    assert flops("rnn", Shape(1, 1, 1, 1), FORWARD) == 4


def test_shapes_read_what_they_write():
    assert len(set(SHAPES)) == 11
    for shape in SHAPES:
        assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1,2,0,4", "1.0,2,3,4"])
def test_a_foreign_shape_is_refused(text):
    with pytest.raises(ValueError, match="expected T,N,D,H"):
        Shape.parse(text)


# measure ---------------------------------------------------------------------------------------------------------------


class FakeTime:
    """A clock that only moves when a fake contender works or somebody sleeps, and a diary of both."""

    def __init__(self) -> None:
        self.now = 0.0
        self.diary: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.diary.append(f"sleep {seconds}")

    def worker(self, name, durations):
        """A contender whose calls take these seconds, the last one for ever."""
        left = list(durations)

        def call():
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.diary.append(name)

        return call


def test_turns_alternate_and_a_pause_comes_before_each():
    time = FakeTime()
    calls = {"a": time.worker("a", [1.0]), "b": time.worker("b", [2.0])}
    plan = Plan(rounds=3, budget=100, block=0.5, pause=0.25)
    blocks = measure(calls, plan, clock=time.clock, sleep=time.sleep)
    turns = [entry for entry in time.diary if not entry.startswith("sleep")]
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert time.diary[0::2] == ["sleep 0.25"] * 6
    assert blocks == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_the_pause_is_longer_after_a_contender_that_settles_slowly():
    time = FakeTime()
    calls = {"a": time.worker("a", [1.0]), "b": time.worker("b", [1.0])}
    plan = Plan(rounds=2, budget=100, block=0.5, pause=0.25)
    measure(calls, plan, settling={"a": 0.125, "b": 4.0}, clock=time.clock, sleep=time.sleep)
    assert time.diary == ["sleep 0.25", "a", "sleep 0.25", "b", "sleep 4.0", "b", "sleep 4.0", "a"]


def test_the_first_call_of_a_short_block_only_warms_up():
    time = FakeTime()
    plan = Plan(rounds=1, budget=100, block=1.0, pause=0.0)
    blocks = measure({"a": time.worker("a", [0.75, 0.125, 0.5, 0.25])}, plan, clock=time.clock, sleep=time.sleep)
    # After the warm-up come 0.125, 0.5, 0.25 and 0.25 s, which fill the block of one second: their median.
    assert blocks == {"a": [0.25]}
    assert time.diary.count("a") == 5


def test_a_block_ends_at_max_repeats():
    time = FakeTime()
    plan = Plan(rounds=1, budget=100, block=1.0, max_repeats=4, pause=0.0)
    measure({"a": time.worker("a", [0.001])}, plan, clock=time.clock, sleep=time.sleep)
    assert time.diary.count("a") == 1 + 4


def test_who_uses_up_the_budget_drops_out_after_one_round_at_least():
    time = FakeTime()
    calls = {"fast": time.worker("fast", [1.0]), "slow": time.worker("slow", [50.0])}
    plan = Plan(rounds=5, budget=3.0, block=0.5, pause=0.0)
    blocks = measure(calls, plan, clock=time.clock, sleep=time.sleep)
    assert blocks == {"fast": [1.0] * 3, "slow": [50.0]}


def test_garbage_collection_is_off_meanwhile_and_back_after_an_error():
    seen = []

    def fail():
        seen.append(gc.isenabled())
        raise RuntimeError("broken contender")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken contender"):
        measure({"a": fail}, TINY_PLAN)
    assert seen == [False]
    assert gc.isenabled()


def test_ratio_is_the_median_over_the_common_rounds():
    assert ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0
    assert ratio([6.0], [2.0, 1.0, 1.0]) == 3.0  # dropped out after round 0, where ours took 2 s


def test_the_plans_pause_long_enough_for_spinning_threads():
    assert bench.FULL.pause >= 0.012
    assert bench.QUICK.pause >= 0.012
    assert all(peer.settling >= 0.012 for peer in (FastRNN, *PEERS.values()))


# peers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", bench.CELLS)
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_agrees_with_fastrnn(name, cell):
    for package in PEERS[name].requires:
        pytest.importorskip(package)
    problem = make_problem(cell, SMALL, seed=1)
    peers = {"fastrnn": FastRNN(problem), name: PEERS[name](problem)}
    assert 0 <= check_equal(peers, FORWARD)[name] < 1e-5
    if PEERS[name].has_backward:
        assert 0 <= check_equal(peers, FORWARD_BACKWARD)[name] < 2e-5


@pytest.mark.parametrize("cell", bench.CELLS)
def test_gradients_do_not_accumulate_over_repeats(cell):
    for peer_class in (FastRNN, PEERS["numpy"]):
        peer = peer_class(make_problem(cell, SMALL))
        once, twice = peer.gradients(), peer.gradients()
        assert set(once) == {"x", *WEIGHTS}
        for name in once:
            np.testing.assert_array_equal(once[name], twice[name], err_msg=name)


def test_problems_are_random_float32_and_repeatable():
    one, same, other = (make_problem("gru", SMALL, seed=seed) for seed in (3, 3, 4))
    T, N, D, H = SMALL
    assert one.x.shape == (T, N, D) and one.doutput.shape == (T, N, H)
    assert [array.shape for array in one.weights.values()] == [(3 * H, D), (3 * H, H), (3 * H,), (3 * H,)]
    for array in (one.x, one.doutput, *one.weights.values()):
        assert array.dtype == np.float32 and np.unique(array).size == array.size
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
    assert GATES[one.cell] == 3


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


@pytest.mark.parametrize("key", ["output", "x", *WEIGHTS])
@pytest.mark.parametrize("by", [1e-2, np.nan])
def test_differing_results_are_never_timed(key, by):
    contender = type("Spoiled", (Spoiled,), {"key": key, "by": by})
    mode = FORWARD if key == "output" else FORWARD_BACKWARD
    what = "output" if key == "output" else f"gradient by {key} "
    with pytest.raises(ResultsDiffer, match=f"lstm 4,3,5,6: {what}.*spoiled differs"):
        compare("lstm", SMALL, [FastRNN, contender], modes=[mode], plan=TINY_PLAN)


def test_an_output_of_another_shape_differs_even_if_it_would_broadcast():
    class OneBatchRow(Spoiled):
        def output(self):
            return self.inner.output()[:, :1]

    problem = make_problem("rnn", Shape(4, 1, 5, 6))
    check_equal({"fastrnn": FastRNN(problem), "spoiled": OneBatchRow(problem)}, FORWARD)  # the same when N = 1
    problem = make_problem("rnn", SMALL)
    with pytest.raises(ResultsDiffer, match="output of spoiled differs by inf"):
        check_equal({"fastrnn": FastRNN(problem), "spoiled": OneBatchRow(problem)}, FORWARD)


# run, table, JSON ------------------------------------------------------------------------------------------------------


def test_run_measures_every_case_and_survives_json():
    rows = []
    started = []
    report = bench.run(
        ["gru", "rnn"],
        [SMALL, Shape(2, 1, 3, 4)],
        peers=["numpy"],
        plan=TINY_PLAN,
        on_start=lambda report: started.append(list(report.results)),
        on_results=lambda report, results: rows.append(results),
    )
    assert started == [[]]
    assert [(r.cell, str(r.shape), r.mode) for r in report.results] == [
        (cell, shape, mode) for cell in ("gru", "rnn") for shape in ("4,3,5,6", "2,1,3,4") for mode in MODES
    ]
    assert [result for results in rows for result in results] == report.results
    assert report.peers == ["fastrnn", "numpy"] and report.left_out == {}
    assert report.versions["numpy"] == np.__version__
    assert report.num_threads == fastrnn.get_num_threads()
    for result in report.results:
        assert set(result.seconds) == {"fastrnn", "numpy"}
        assert all(seconds > 0 for rounds in result.seconds.values() for seconds in rounds)
        assert result.difference["numpy"] < 2e-5
    again = Report.from_json(report.to_json())
    assert again.results == report.results
    assert format_table(again) == format_table(report)


def test_peers_get_as_many_threads_as_fastrnn(monkeypatch):
    seen = []
    monkeypatch.setattr(PEERS["numpy"], "set_num_threads", staticmethod(seen.append))
    report = bench.run(["rnn"], [SMALL], peers=["numpy"], plan=TINY_PLAN)
    assert seen == [fastrnn.get_num_threads()] == [report.num_threads]


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(PEERS["torch"], "requires", ("no_such_package",))
    report = bench.run(["rnn"], [SMALL], peers=["torch", "numpy"], plan=TINY_PLAN)
    assert report.peers == ["fastrnn", "numpy"]
    assert report.left_out == {"torch": "no_such_package not installed"}
    assert "left out: torch (no_such_package not installed)" in format_table(report)


def made_up_report() -> Report:
    """fastrnn takes 2 ms, then 6 ms; numpy 4 times and 3 times that; torch half, and it dropped out of round 1."""
    fast, slow = Shape(10, 2, 30, 20), Shape(10, 2, 30, 70)
    results = [
        Result("lstm", fast, FORWARD, {"fastrnn": [0.002] * 3, "numpy": [0.008] * 3}),
        Result("lstm", fast, FORWARD_BACKWARD, {"fastrnn": [0.002, 0.002], "numpy": [0.008] * 2, "torch": [0.001]}),
        Result("lstm", slow, FORWARD, {"fastrnn": [0.006], "numpy": [0.018]}),
        Result("lstm", slow, FORWARD_BACKWARD, {"fastrnn": [0.006], "numpy": [0.018], "torch": [0.003]}),
    ]
    return Report(
        config={"cpu": "Some CPU", "isa": "avx2"},
        versions={"fastrnn": "0.1.0"},
        num_threads=2,
        peers=["fastrnn", "numpy", "torch"],
        left_out={"onnxruntime": "onnx not installed"},
        when="2026-01-02T03:04:05+00:00",
        results=results,
        total_seconds=12.0,
    )


def test_table_shows_times_gflops_and_ratios():
    report = made_up_report()
    lines = format_table(report).splitlines()
    assert lines[0] == "Some CPU; instruction set avx2; 2 threads; 2026-01-02T03:04:05+00:00"
    assert "left out: onnxruntime (onnx not installed)" in lines
    row = next(line for line in lines if "10,2,30,20" in line)
    # 2*4*20*(30+20)*10*2 = 160,000 operations in 2 ms are 0.08 GFLOP/s
    assert row.split() == ["lstm", "10,2,30,20", "|", "2.000", "0", "4.00", "-", "|", "2.000", "0", "4.00", "0.50"]
    assert report.results[0].gflops() == pytest.approx(0.08, rel=1e-12)
    assert report.results[1].gflops("torch") == pytest.approx(0.48, rel=1e-12)
    head = format_head(report).splitlines()
    assert head[-2].split() == "cell T,N,D,H | ms GF/s numpy torch | ms GF/s numpy torch".split()
    for line in (row, format_row(report.results[2:], report.peers)):
        assert [i for i, c in enumerate(line) if c == "|"] == [i for i, c in enumerate(head[-2]) if c == "|"]


def test_summary_counts_who_is_ahead():
    lines = format_summary(made_up_report()).splitlines()
    assert lines == [
        "forward: ahead of numpy on 2 of 2; geometric mean 3.46, least 3.00 (lstm 10,2,30,70)",
        "forward+backward: ahead of numpy on 2 of 2; geometric mean 3.46, least 3.00 (lstm 10,2,30,70)",
        "forward+backward: ahead of torch on 0 of 2; geometric mean 0.50, least 0.50 (lstm 10,2,30,20)",
        "12 s in all",
    ]


def test_json_carries_raw_rounds_and_derived_numbers():
    report = made_up_report()
    data = json.loads(report.to_json())
    entry = data["results"][1]
    assert entry["shape"] == {"T": 10, "N": 2, "D": 30, "H": 20}
    assert entry["seconds"]["torch"] == [0.001]
    assert entry["median_seconds"] == {"fastrnn": 0.002, "numpy": 0.008, "torch": 0.001}
    assert entry["ratio"] == {"numpy": 4.0, "torch": 0.5}
    assert Report.from_json(report.to_json()) == report
