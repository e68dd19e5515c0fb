"""The bench's other views: peak memory, the dispatcher's choice, scaling, charts; and their command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_bench import SMALL, TINY_PLAN, FakeTime, made_up_report

import fastrnn
from fastrnn import _native
from fastrnn.bench import CELLS, chart, dispatch, scaling
from fastrnn.bench.memory import growth, peak_memory
from fastrnn.bench.peers import PEERS, FastRNN
from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, SEQUENCE_MODES, Shape
from fastrnn.cli import bench as command
from fastrnn.cli.main import main


@pytest.fixture
def two_threads():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    yield
    fastrnn.set_num_threads(before)


# memory ---------------------------------------------------------------------------------------------------------------


def test_growth_sees_what_a_call_holds_at_its_peak_and_not_what_was_there():
    megabyte = 1 << 20
    held = np.ones(64 * megabyte, np.uint8)

    def call():
        first = np.ones(48 * megabyte, np.uint8)
        del first
        return np.ones(32 * megabyte, np.uint8)  # less than before: the peak is the first array

    assert 47 * megabyte < growth(call) < 56 * megabyte
    assert growth(lambda: held.sum()) < 4 * megabyte


def test_memory_of_a_training_step_covers_what_it_must_keep():
    shape = Shape(50, 32, 64, 128)
    T, N, D, H = shape[:4]
    found = peak_memory("gru", shape, [FastRNN, PEERS["numpy"]], num_threads=1)
    assert (found.cell, found.shape) == ("gru", shape)
    assert list(found.peak) == ["fastrnn", "numpy"]
    least = 4 * T * N * (H + D)  # the output, and dx after it
    for name, peak in found.peak.items():
        assert least < peak < 40 * least, name


def test_a_child_that_dies_is_reported():
    class Lost(FastRNN):
        name = "lost"  # the child does not find it

    with pytest.raises(RuntimeError, match="memory of lost, rnn 4,3,5,6: its process ended with exit code 1"):
        peak_memory("rnn", SMALL, [Lost], num_threads=1)


# dispatch -------------------------------------------------------------------------------------------------------------


def test_every_plan_that_differs_is_forced():
    plans = dispatch.forced_plans(2)
    assert list(plans) == ["1 fused", "1 ahead", "2 rows fused", "2 rows ahead", "2 units fused", "2 units ahead"]
    assert plans["2 units ahead"] == {"threads": 2, "by_units": True, "fused": False}
    assert list(dispatch.forced_plans(1)) == ["1 fused", "1 ahead"]


@pytest.fixture
def by_plan(monkeypatch, two_threads):
    """measure(durations) -> (choice, plans that ran): 1.5 s for the own choice, 3.0 or what durations(plan) says."""

    def measure(durations):
        time, forced, ran = FakeTime(), [], []

        def forward(self):
            ran.append(forced[-1])
            plans = dispatch.forced_plans(2).items()
            name = next((name for name, plan in plans if plan == forced[-1]), dispatch.OWN)
            time.now += 1.5 if name == dispatch.OWN else durations(name) or 3.0

        monkeypatch.setattr(_native, "force_plan", lambda **plan: forced.append(plan))
        monkeypatch.setattr(FastRNN, "forward", forward)
        choice = dispatch.measure_choice("gru", SMALL, FORWARD, TINY_PLAN, clock=lambda: time.now, sleep=time.sleep)
        assert forced[-1] == {}
        return choice, ran

    return measure


def test_the_plan_is_forced_in_its_turns_and_the_own_choice_restored(by_plan):
    choice, ran = by_plan({"2 rows fused": 1.0}.get)
    assert {json.dumps(plan) for plan in ran} == {json.dumps(plan) for plan in [{}, *dispatch.forced_plans(2).values()]}
    assert choice.seconds[dispatch.OWN] == [1.5] and choice.seconds["1 fused"] == [3.0]
    assert choice.best() == "2 rows fused" and choice.loss() == 1.5
    row = dispatch.format_row(choice)
    assert row.split()[:6] == ["gru", "4,3,5,6", "fwd", "|", "1500.000", "1.50"] and row.endswith("| 2 rows fused <--")
    assert dispatch.format_summary([choice]) == (
        "own choice within 5% of the best forced plan on 0 of 1; worst 1.50 (gru 4,3,5,6 forward)"
    )


def test_a_plan_that_was_lucky_once_is_measured_again(by_plan):
    lucky = iter([1.0])
    choice, _ = by_plan(lambda name: next(lucky, 1.5) if name == "2 rows fused" else None)
    assert choice.ratio("2 rows fused") == 1.0 / 1.5 and set(choice.again) == {dispatch.OWN, "2 rows fused"}
    assert choice.loss() == 1.0 and not dispatch.format_row(choice).endswith("<--")
    assert by_plan({}.get)[0].again is None


def test_the_own_choice_is_restored_after_an_error(monkeypatch):
    forced = []
    monkeypatch.setattr(_native, "force_plan", lambda **plan: forced.append(plan))
    monkeypatch.setattr(FastRNN, "forward", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dispatch.measure_choice("gru", SMALL, FORWARD, TINY_PLAN)
    assert forced[-1] == {}


def test_dispatch_command_prints_a_row_per_case(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "PLAN", TINY_PLAN)
    file = tmp_path / "dispatch.json"
    arguments = ["--dispatch", "--cell", "rnn", "--shapes", "4,3,5,6", "4,1,5,6,L2", "--modes", "forward"]
    assert main(["bench", *arguments, "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("rnn ") and " fwd " in line for line in lines) == 2
    assert any(line.startswith("own choice within 5%") for line in lines)
    entries = json.loads(file.read_text())["dispatch"]
    assert [entry["shape"]["num_layers"] for entry in entries] == [1, 2]
    assert set(entries[0]["seconds"]) == {dispatch.OWN, *dispatch.forced_plans(fastrnn.get_num_threads())}


# scaling --------------------------------------------------------------------------------------------------------------


def made_up_points():
    seconds = {10: 1e-4, 100: 1e-3, 1000: 2e-2}  # over T: 10 us a step, 10, 20
    over_time = [scaling.Point("T", "gru", Shape(T, 1, 2, 2), FORWARD, [s]) for T, s in seconds.items()]
    over_batch = [
        scaling.Point("N", "gru", Shape(10, N, 2, 2), FORWARD, [s]) for N, s in {1: 1e-4, 2: 1e-4, 8: 4e-4}.items()
    ]
    return over_time + over_batch


def test_growth_is_relative_to_what_it_should_be():
    assert scaling.growth(made_up_points()) == [
        None,
        pytest.approx(1.0),
        pytest.approx(2.0),
        None,
        pytest.approx(0.5),
        pytest.approx(1.0),
    ]


def test_curves_cover_what_they_claim():
    time, batch, weights = (scaling.CURVES[curve] for curve in ("T", "N", "H*(D+H)"))
    assert (time[0].T, time[-1].T) == (10, 100_000) and len({shape._replace(T=1) for shape in time}) == 1
    assert len({shape._replace(N=1) for shape in batch}) == 1
    assert [scaling.Point("H*(D+H)", "rnn", shape, FORWARD, []).size for shape in weights[:2]] == [16 * 32, 32 * 64]


def test_scaling_command_prints_every_point_and_draws(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    curves = {"T": (Shape(2, 1, 2, 2), Shape(4, 1, 2, 2)), "H*(D+H)": (Shape(2, 1, 2, 2), Shape(2, 1, 4, 4))}
    monkeypatch.setattr(scaling, "CURVES", curves)
    monkeypatch.setattr(scaling, "PLAN", TINY_PLAN)
    file, picture = tmp_path / "scaling.json", tmp_path / "scaling.png"
    assert main(["bench", "--scaling", "--cell", "lstm", "--json", str(file), "--chart", str(picture)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("lstm ")]
    assert [line[:4] for line in lines] == [
        ["lstm", mode, curve, size]
        for curve, sizes in (("T", ("2", "4")), ("H*(D+H)", ("8", "32")))
        for mode in ("fwd", "f+b")
        for size in sizes
    ]
    assert len(json.loads(file.read_text())["scaling"]) == 8
    assert picture.read_bytes().startswith(b"\x89PNG")


# charts ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def figure(monkeypatch):
    """The figure that was drawn last, as a one-element list."""
    pytest.importorskip("matplotlib")
    drawn, real = [], chart.make_figure
    monkeypatch.setattr(chart, "make_figure", lambda **options: drawn.append(real(**options)) or drawn[-1])
    return drawn


def test_chart_shows_every_ratio_at_its_place(figure, tmp_path):
    chart.draw_report(made_up_report(), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    panels = {ax.get_title(): ax for ax in figure[0].axes}
    ax = panels["LSTM, forward + backward"]
    points: dict[tuple[str, int], float] = {}
    for line in ax.get_lines():
        if not line.get_label().startswith("_"):
            points.update({(line.get_label(), y): x for x, y in zip(line.get_xdata(), line.get_ydata())})
    mean = 2  # the line below those of the two shapes
    assert points == pytest.approx(
        {
            ("numpy", 0): 4.0,
            ("numpy", 1): 3.0,
            ("numpy", mean): 12**0.5,
            ("torch", 0): 0.5,
            ("torch", 1): 0.5,
            ("torch", mean): 0.5,
        }
    )
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["10,2,30,20", "10,2,30,70", "geometric mean"]
    assert [text.get_text() for text in figure[0].legends[0].get_texts()] == ["numpy", "torch", "torch-cell"]
    about = figure[0].get_supxlabel()
    assert "Some CPU" in about and "fastrnn 0.1.0" in about and "fastrnn bench --cell lstm" in about


def test_scaling_chart_has_a_panel_per_curve(figure, tmp_path):
    chart.draw_scaling(made_up_points(), tmp_path / "scaling.png")
    assert [ax.get_title() for ax in figure[0].axes] == ["over T (N=1, D=H=2)", "over N (T=10, D=H=2)"]
    line = figure[0].axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [10, 10, 20])


# command line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--modes", "backward"], "--modes: expected forward, forward+backward, step, memory"),
        (["--dispatch", "--scaling"], "not allowed with"),
        (["--dispatch", "--chart", "a.png"], "--chart: not with --dispatch"),
        (["--scaling", "--shapes", "1,2,3,4"], "--shapes: not with --scaling"),
        (["--scaling", "--memory"], "--memory: not with --scaling"),
        (["--chart", "chart.bmp"], "--chart: expected a name that ends in .png, .svg or .pdf, got 'chart.bmp'"),
        (["--modes", "step", "--shapes", "1,2,3,4,bi"], "--modes: shape 1,2,3,4,bi: expected one direction"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_chart_without_matplotlib_is_refused_before_anything_is_measured(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["bench", "--chart", str(tmp_path / "chart.png")])
    said = capsys.readouterr().err
    assert said == 'fastrnn bench: error: --chart: matplotlib is not installed: pip install "fastrnn[plot]"\n'


def test_modes_choose_what_runs(monkeypatch):
    asked = {}

    def run(cells, shapes, **options):
        asked.update(options, cells=cells, shapes=shapes)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", run)

    def what(**arguments):
        with pytest.raises(KeyboardInterrupt):
            command.compare(**arguments)
        return asked["modes"], len(asked["shapes"]), len(asked["step_shapes"]), asked["memory"]

    assert what() == (list(SEQUENCE_MODES), 21, 4, False)
    assert asked["cells"] == CELLS and asked["peers"] is None
    assert what(quick=True, memory=True) == (list(SEQUENCE_MODES), 5, 1, True)
    assert what(modes=["step"]) == ([], 21, 4, False)
    assert what(modes=["memory", "forward"]) == ([FORWARD], 21, 0, True)
    assert what(shapes=[SMALL]) == ([FORWARD, FORWARD_BACKWARD], 1, 0, False)
    assert what(shapes=[SMALL], modes=["step", "forward"]) == ([FORWARD, "step"], 1, 0, False)
