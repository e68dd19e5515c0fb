"""The bench: what it measures and how, its table and JSON. The contenders: test_bench_peers.py; memory, the dispatcher,
scaling and charts: test_bench_views.py."""

from __future__ import annotations

import gc
import itertools
import json
import time

import numpy as np
import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench.gemm import large_gflops, products_call
from fastrnn.bench.measure import Plan, measure, ratio
from fastrnn.bench.peers import PEERS, FastRNN
from fastrnn.bench.report import Memory, Report, Result
from fastrnn.bench.shapes import (
    FORWARD,
    FORWARD_BACKWARD,
    SEQUENCE_MODES,
    SHAPES,
    STEP,
    STEP_SHAPES,
    Shape,
    flops,
    products,
)
from fastrnn.bench.table import format_summary, format_table

SMALL = Shape(4, 3, 5, 6)
TINY_PLAN = Plan(rounds=2, least_rounds=1, budget=0.05, block=0.001, max_repeats=3, pause=0.0)


# shapes ---------------------------------------------------------------------------------------------------------------


def test_flops_count_the_matrix_products():
    assert flops("lstm", Shape(7, 3, 5, 11), FORWARD) == 2 * (44 * 5 + 44 * 11) * 7 * 3
    assert flops("gru", Shape(7, 3, 5, 11), FORWARD_BACKWARD) == 3 * 2 * (33 * 5 + 33 * 11) * 7 * 3
    assert flops("rnn", Shape(1, 1, 1, 1), FORWARD) == 4


def test_shapes_read_what_they_write():
    assert len(set(SHAPES)) == 21
    for shape in (*SHAPES, *STEP_SHAPES):
        assert Shape.parse(str(shape)) == shape
    assert str(Shape(1, 2, 3, 4, num_layers=3, bidirectional=True, dtype="float64")) == "1,2,3,4,L3,bi,f64"
    assert Shape.parse("1,2,3,4,f64,L3") == Shape(1, 2, 3, 4, num_layers=3, dtype="float64")
    assert str(Shape(1, 2, 3, 4, lengths=True)) == "1,2,3,4,len"
    assert Shape.parse("1,2,3,4,len,bi") == Shape(1, 2, 3, 4, bidirectional=True, lengths=True)


def test_flops_of_stacked_layers_are_those_of_their_products():
    shape = Shape(7, 3, 5, 11, num_layers=2, bidirectional=True)
    first, second = (21, 5 + 11, 44), (21, 22 + 11, 44)  # the second layer reads both directions of the first
    assert products("lstm", shape) == [first, first, second, second]
    assert flops("lstm", shape, FORWARD) == 2 * 2 * 21 * 44 * (16 + 33) == flops("lstm", shape, STEP)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "1,2,3,x",
        "1,2,0,4",
        "1.0,2,3,4",
        "1,2,3,4,L0",
        "1,2,3,4,L",
        "1,2,3,4,f32",
        "1,2,3,4,bi,bi",
        "1,2,3,4,L2,L3",
    ],
)
def test_a_foreign_shape_is_refused(text):
    with pytest.raises(ValueError, match="expected T,N,D,H"):
        Shape.parse(text)


# measure --------------------------------------------------------------------------------------------------------------


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


def test_a_pause_comes_before_each_turn():
    time = FakeTime()
    calls = {"a": time.worker("a", [1.0]), "b": time.worker("b", [2.0])}
    plan = Plan(rounds=3, budget=100, block=0.5, pause=0.25)
    blocks = measure(calls, plan, clock=time.clock, sleep=time.sleep)
    turns = [entry for entry in time.diary if not entry.startswith("sleep")]
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert time.diary[0::2] == ["sleep 0.25"] * 6
    assert blocks == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_the_pause_is_longer_after_a_contender_that_settles_slowly():
    time = FakeTime()
    calls = {"a": time.worker("a", [1.0]), "b": time.worker("b", [1.0])}
    plan = Plan(rounds=2, budget=100, block=0.5, pause=0.25)
    measure(calls, plan, settling={"a": 0.125, "b": 4.0}, clock=time.clock, sleep=time.sleep)
    assert time.diary == ["sleep 0.25", "a", "sleep 0.25", "b", "sleep 4.0", "a", "sleep 0.25", "b"]
    time.diary.clear()
    measure({"b": calls["b"]}, plan, settling={"b": 4.0}, clock=time.clock, sleep=time.sleep)
    assert time.diary == ["sleep 0.25", "b"] * 2, "who follows itself disturbs nobody else"


@pytest.mark.parametrize("contenders", range(2, 9))
def test_nobody_has_two_turns_in_a_row(contenders):
    time = FakeTime()
    names = "abcdefgh"[:contenders]
    plan = Plan(rounds=6, budget=100, block=0.5, pause=0.0)
    measure({name: time.worker(name, [1.0]) for name in names}, plan, clock=time.clock, sleep=time.sleep)
    turns = [entry for entry in time.diary if not entry.startswith("sleep")]
    assert all(a != b for a, b in itertools.pairwise(turns))
    rounds = ["".join(turns[k : k + contenders]) for k in range(0, len(turns), contenders)]
    assert all(sorted(order) == sorted(names) for order in rounds) and len(set(rounds)) > (contenders > 2)


def test_before_is_called_ahead_of_each_turn():
    time = FakeTime()
    calls = {"a": time.worker("a", [1.0]), "b": time.worker("b", [1.0])}
    plan = Plan(rounds=2, budget=100, block=0.5, pause=0.0)
    measure(calls, plan, before=lambda name: time.diary.append(f"before {name}"), clock=time.clock, sleep=time.sleep)
    diary = [entry for entry in time.diary if not entry.startswith("sleep")]
    assert diary == ["before a", "a", "before b", "b"] * 2


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


@pytest.mark.parametrize("least_rounds", [1, 2])
def test_who_uses_up_the_budget_drops_out_after_the_least_rounds(least_rounds):
    time = FakeTime()
    calls = {"fast": time.worker("fast", [1.0]), "slow": time.worker("slow", [50.0])}
    plan = Plan(rounds=5, least_rounds=least_rounds, budget=3.0, block=0.5, pause=0.0)
    blocks = measure(calls, plan, clock=time.clock, sleep=time.sleep)
    assert blocks == {"fast": [1.0] * 3, "slow": [50.0] * least_rounds}


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


# gemm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_products_are_computed_in_the_right_library(library, monkeypatch):
    module = pytest.importorskip(library)
    multiply = {"numpy": "matmul", "torch": "mm"}[library]
    real, seen = getattr(module, multiply), []

    def spy(a, b, out):
        seen.append((tuple(a.shape), tuple(b.shape), tuple(out.shape), str(out.dtype).split(".")[-1]))
        return real(a, b, out=out)

    monkeypatch.setattr(module, multiply, spy)
    products_call(library, [(4, 3, 2), (5, 6, 7)], "float64")()
    assert seen == [((4, 3), (3, 2), (4, 2), "float64"), ((5, 6), (6, 7), (5, 7), "float64")]


def test_large_products_report_gflops():
    rates = large_gflops(["numpy"], "float32", TINY_PLAN)
    assert list(rates) == ["numpy"] and rates["numpy"] > 0


# run, table, JSON -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_large_product(monkeypatch):
    """The machine's large product takes a while; its size does not matter here."""
    monkeypatch.setattr("fastrnn.bench.gemm.LARGE", 16)


def test_run_measures_every_case_and_survives_json():
    rows = []
    started = []
    report = bench.run(
        ["gru", "rnn"],
        [SMALL, Shape(2, 1, 3, 4)],
        step_shapes=[Shape(3, 1, 2, 2)],
        peers=["numpy"],
        plan=TINY_PLAN,
        on_start=lambda report: started.append(list(report.results)),
        on_results=lambda report, results: rows.append(results),
    )
    assert started == [[]]
    assert [(r.cell, str(r.shape), r.mode) for r in report.results] == [
        (cell, shape, mode) for cell in ("gru", "rnn") for shape in ("4,3,5,6", "2,1,3,4") for mode in SEQUENCE_MODES
    ] + [(cell, "3,1,2,2", STEP) for cell in ("gru", "rnn")]
    assert [result for results in rows for result in results] == report.results
    assert report.peers == ["fastrnn", "numpy"] and report.left_out == {}
    assert report.versions["numpy"] == np.__version__
    assert report.num_threads == fastrnn.get_num_threads()
    assert list(report.gemm) == ["float32"] and report.gemm["float32"]["numpy"] > 0
    for result in report.results:
        assert set(result.seconds) == {"fastrnn", "numpy"} | ({"gemm"} if result.mode != STEP else set())
        assert all(seconds > 0 for rounds in result.seconds.values() for seconds in rounds)
        assert result.difference["numpy"] < 2e-5
    again = Report.from_json(report.to_json())
    assert again.results == report.results
    assert format_table(again) == format_table(report)


def test_peers_get_as_many_threads_as_fastrnn(monkeypatch):
    seen = []
    monkeypatch.setattr(PEERS["numpy"], "set_num_threads", staticmethod(lambda n: seen.append(n) or "not today"))
    report = bench.run(["rnn"], [SMALL], peers=["numpy"], plan=TINY_PLAN)
    most = fastrnn.get_num_threads()
    assert seen[0] == most == report.num_threads == seen[-1]
    assert set(seen) == {1, most}
    assert report.notes == ["numpy: not today"]
    assert "note: numpy: not today" in format_table(report)


def test_the_better_number_of_threads_counts(monkeypatch):
    if fastrnn.get_num_threads() == 1:
        fastrnn.set_num_threads(2)
    for slow, better in ((1, fastrnn.get_num_threads()), (fastrnn.get_num_threads(), 1)):
        count = [0]
        monkeypatch.setattr(PEERS["numpy"], "set_num_threads", staticmethod(lambda n: count.__setitem__(0, n)))
        forward = PEERS["numpy"].forward

        def slower(self, *args, **options):
            if count[0] == slow:
                time.sleep(0.02)
            return forward(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(PEERS["numpy"], "forward", slower)
            [result] = bench.run(["rnn"], [SMALL], modes=[FORWARD], peers=["numpy"], plan=TINY_PLAN).results
        assert result.threads == {"numpy": better}
        assert result.median_seconds("numpy") < 0.02
        assert set(result.seconds) == {"fastrnn", "numpy", "gemm"}


def test_the_slow_reference_is_left_out_of_large_cases_unless_asked_for(monkeypatch):
    monkeypatch.setattr(PEERS["numpy"], "most_flops", flops("rnn", SMALL, FORWARD))
    for name in PEERS:
        if name != "numpy":
            monkeypatch.setattr(PEERS[name], "requires", ("no_such_package",))
    forward, backward = bench.run(["rnn"], [SMALL], plan=TINY_PLAN).results
    assert "numpy" in forward.seconds and "numpy" not in backward.seconds
    _, backward = bench.run(["rnn"], [SMALL], peers=["numpy"], plan=TINY_PLAN).results
    assert "numpy" in backward.seconds


def test_a_bidirectional_layer_cannot_stream():
    with pytest.raises(ValueError, match="shape 4,3,5,6,bi: expected one direction in mode step"):
        bench.run(["rnn"], [SMALL._replace(bidirectional=True)], modes=[FORWARD, STEP], plan=TINY_PLAN)


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(PEERS["torch"], "requires", ("no_such_package",))
    report = bench.run(["rnn"], [SMALL], peers=["torch", "numpy"], plan=TINY_PLAN)
    assert report.peers == ["fastrnn", "numpy"]
    assert report.left_out == {"torch": "no_such_package not installed"}
    assert "left out: torch (no_such_package not installed)" in format_table(report)


def made_up_report() -> Report:
    """fastrnn takes 2 ms, then 6 ms; numpy 4 times and 3 times that; torch half, and it dropped out of round 1."""
    fast, slow = Shape(10, 2, 30, 20), Shape(10, 2, 30, 70)
    seconds = {"fastrnn": [0.002, 0.002], "numpy": [0.008] * 2, "torch": [0.001], "gemm": [0.0005, 0.0005]}
    results = [
        Result("lstm", fast, FORWARD, {"fastrnn": [0.002] * 3, "numpy": [0.008] * 3, "gemm": [0.001] * 3}),
        Result("lstm", fast, FORWARD_BACKWARD, seconds),
        Result("lstm", slow, FORWARD, {"fastrnn": [0.006], "numpy": [0.018]}),
        Result("lstm", slow, FORWARD_BACKWARD, {"fastrnn": [0.006], "numpy": [0.018], "torch": [0.003]}),
        Result("gru", fast, STEP, {"fastrnn": [25e-6], "torch": [1e-3], "torch-cell": [0.5e-3]}),
    ]
    return Report(
        config={"cpu": "Some CPU", "isa": "avx2"},
        versions={"fastrnn": "0.1.0"},
        num_threads=2,
        peers=["fastrnn", "numpy", "torch", "torch-cell"],
        left_out={"onnxruntime": "onnx not installed"},
        when="2026-01-02T03:04:05+00:00",
        command="fastrnn bench --cell lstm",
        gemm={"float32": {"numpy": 0.1, "torch": 0.16}},
        results=results,
        memory=[Memory("lstm", fast, {"fastrnn": 2_000_000, "torch": 5_000_000})],
        total_seconds=12.0,
    )


def test_table_shows_times_gflops_shares_and_ratios():
    report = made_up_report()
    lines = format_table(report).splitlines()
    assert lines[0] == "Some CPU; instruction set avx2; 2 threads; 2026-01-02T03:04:05+00:00"
    assert "left out: onnxruntime (onnx not installed)" in lines
    # 2*4*20*(30+20)*10*2 = 160,000 operations in 2 ms are 0.08 GFLOP/s, half of the best large product's 0.16. The
    # product of the same sizes takes half as long forward, a quarter with backward, which has three times its work.
    assert report.results[0].gflops() == pytest.approx(0.08, rel=1e-12)
    assert report.results[1].gflops("torch") == pytest.approx(0.48, rel=1e-12)
    assert report.results[1].gflops("gemm") == pytest.approx(0.32, rel=1e-12)
    rows = [line.split() for line in lines if line.startswith(("cell", "lstm", "gru"))]
    assert rows[0] == "cell T,N,D,H mode | time GF/s peak% same% | numpy torch".split()
    assert rows[1] == "lstm 10,2,30,20 fwd | 2.000 ms 0 50 50 | 4.00 -".split()
    assert rows[2] == "lstm 10,2,30,20 f+b | 2.000 ms 0 150 75 | 4.00 0.50".split()
    assert rows[5] == "cell T,N,D,H mode | per step GF/s peak% same% | numpy torch torch-cell".split()
    assert rows[6][:10] == "gru 10,2,30,20 step | 2.50 us 5 3000 - |".split()
    assert rows[6][10:] == ["-", "40.00", "20.00"]
    assert rows[7] == "cell T,N,D,H mode | peak MB | numpy torch".split()
    assert rows[8] == "lstm 10,2,30,20 mem | 2.00 | - 2.50".split()


def test_columns_stand_below_each_other():
    lines = format_table(made_up_report()).splitlines()
    places = [[i for i, c in enumerate(line) if c == "|"] for line in lines if line.startswith(("cell", "lstm", "gru"))]
    assert all(place == places[0] for place in places) and len(places[0]) == 2


def test_summary_counts_who_is_ahead():
    lines = format_summary(made_up_report()).splitlines()
    assert lines == [
        "large float32 matrix product, GFLOP/s: numpy 0, torch 0",
        "forward: ahead of numpy on 2 of 2; geometric mean 3.46, least 3.00 (lstm 10,2,30,70)",
        "forward+backward: ahead of numpy on 2 of 2; geometric mean 3.46, least 3.00 (lstm 10,2,30,70)",
        "forward+backward: ahead of torch on 0 of 2; geometric mean 0.50, least 0.50 (lstm 10,2,30,20)",
        "step: ahead of torch on 1 of 1; geometric mean 40.00, least 40.00 (gru 10,2,30,20)",
        "step: ahead of torch-cell on 1 of 1; geometric mean 20.00, least 20.00 (gru 10,2,30,20)",
        "peak memory of a training step: no more than torch's on 1 of 1",
        "12 s in all",
    ]


def test_summary_holds_large_shapes_against_products_of_their_sizes():
    report = made_up_report()
    large = Shape(2, 64, 4, 256)
    report.results = [
        Result("lstm", large, FORWARD, {"fastrnn": [1.0], "gemm": [0.9]}),
        Result("gru", large, FORWARD, {"fastrnn": [1.0], "gemm": [0.8]}),
        Result("gru", large._replace(N=63), FORWARD, {"fastrnn": [1.0], "gemm": [0.1]}),  # not large
    ]
    assert (
        "forward: H >= 256, N >= 64: 80% to 90% of the speed of matrix products of the same sizes, least gru 2,64,4,256"
        in format_summary(report).splitlines()
    )


def test_json_carries_raw_rounds_and_derived_numbers():
    report = made_up_report()
    data = json.loads(report.to_json())
    entry = data["results"][1]
    size = {"T": 10, "N": 2, "D": 30, "H": 20, "num_layers": 1, "bidirectional": False}
    size |= {"dtype": "float32", "lengths": False}
    assert entry["shape"] == size == data["memory"][0]["shape"]
    assert entry["seconds"]["torch"] == [0.001]
    assert entry["median_seconds"] == {"fastrnn": 0.002, "numpy": 0.008, "torch": 0.001, "gemm": 0.0005}
    assert entry["ratio"] == {"numpy": 4.0, "torch": 0.5}
    assert entry["share_of_same_flops_gemm"] == pytest.approx(0.75)
    assert entry["share_of_large_gemm"] == pytest.approx(1.5)
    assert data["results"][4]["seconds_per_step"]["fastrnn"] == pytest.approx(2.5e-6)
    assert data["memory"][0]["peak"] == {"fastrnn": 2_000_000, "torch": 5_000_000}
    assert Report.from_json(report.to_json()) == report
