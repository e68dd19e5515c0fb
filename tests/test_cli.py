"""The command line, called in process: what it prints and writes, and how it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from process_cases import run_command

import fastrnn
from fastrnn.bench.report import Report
from fastrnn.cli.demo import load_digits
from fastrnn.cli.main import main

DIGITS = Path(fastrnn.datasets.__file__).parent / "data"
IMAGES, LABELS = "mnist2000-images-idx3-ubyte.gz", "mnist2000-labels-idx1-ubyte.gz"
SMALL = ["--hidden-size", "16", "--epochs", "2", "--no-progress"]


@pytest.fixture
def run_demo(capsys, tmp_path):
    """run_demo(*arguments): its stdout as lines, having written to tmp_path/out."""

    def run(*arguments: str) -> list[str]:
        assert main(["demo", "--output", str(tmp_path / "out"), *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def refusal(capsys, *arguments: str) -> str:
    """The one line on stderr with which these arguments are refused."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n"), captured.err
    return captured.err


# demo -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell, least", [("lstm", 0.93), ("gru", 0.93), ("rnn", 0.85)])
def test_demo_learns_to_name_the_digits(run_demo, tmp_path, cell, least):
    lines = run_demo("--cell", cell, "--no-progress")
    assert lines[0].startswith("1600 digits to train on, 400 to test") and f"{cell} reads T=28 rows of D=28" in lines[0]
    epochs = [
        line for line in lines if re.match(r"epoch +\d+/20 .* accuracy 0\.\d{4} .* test accuracy 0\.\d{4} ", line)
    ]
    assert len(epochs) == 20
    said = next(
        re.match(r"test accuracy (\d\.\d{4}); trained on (\d+) samples per second", line) for line in lines[21:]
    )
    assert float(said[1]) >= least
    assert int(said[2]) > 0

    # What was written is what was trained: it scores the same again.
    digits = load_digits()
    trainer = fastrnn.Trainer.load(tmp_path / "out" / "model.safetensors")
    assert f"{trainer.evaluate(digits.x_test, digits.y_test)['accuracy']:.4f}" == said[1]
    assert f"model: {tmp_path / 'out' / 'model.safetensors'}" in lines


def test_demo_draws_the_learning_curve(run_demo, tmp_path):
    pytest.importorskip("matplotlib")
    lines = run_demo(*SMALL)
    curve = tmp_path / "out" / "learning_curve.png"
    assert lines[-1] == f"learning curve: {curve}"
    assert curve.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and curve.stat().st_size > 5000


def test_demo_without_matplotlib_says_how_to_get_it(run_demo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert importlib.util.find_spec("matplotlib") is None
    lines = run_demo(*SMALL)
    assert lines[-1] == 'no learning curve, as matplotlib is missing: pip install "fastrnn[plot]"'
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_demo_repeats_itself_with_one_seed_only(run_demo):
    def story(seed: str) -> list[str]:
        lines = run_demo(*SMALL, "--seed", seed, "--cell", "gru")
        return [re.sub(r"\d+\.\d\d s$", "", line) for line in lines if line.startswith("epoch")]

    assert len(story("3")) == 2
    assert story("3") == story("3")
    assert story("3") != story("4")


def test_demo_shows_one_progress_bar_on_stderr(capsys, tmp_path):
    arguments = ["demo", "--output", str(tmp_path), "--hidden-size", "8", "--epochs", "2", "--batch-size", "100"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "/32 [" in captured.err and "batch/s" in captured.err  # 2 epochs of 1,600 digits by the hundred
    assert captured.out.count("epoch") == 2 and "batch/s" not in captured.out


def test_demo_reads_other_digits(run_demo, tmp_path):
    rng = np.random.default_rng(5)
    for part, count in (("train", 40), ("t10k", 12)):
        images = rng.integers(0, 256, (count, 9, 7), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 4
        header = np.array([0x0803, count, 9, 7], ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x0801, count], ">u4").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    lines = run_demo(*SMALL, "--data", str(tmp_path), "--cell", "rnn")
    assert lines[0] == "40 digits to train on, 12 to test; rnn reads T=9 rows of D=7, H=16, M=4 classes"


def test_digits_are_standardised_by_the_training_part():
    digits = load_digits()
    assert digits.x_train.shape == (1600, 28, 28) and digits.x_test.shape == (400, 28, 28)
    assert digits.x_train.dtype == np.float32
    assert abs(digits.x_train.mean(dtype=np.float64)) < 1e-5
    assert abs(digits.x_train.std(dtype=np.float64) - 1) < 1e-5
    (raw_train, _), (raw_test, _) = fastrnn.datasets.mnist()
    expected = (raw_test.astype(np.float64) - raw_train.mean(dtype=np.float64)) / raw_train.std(dtype=np.float64)
    np.testing.assert_allclose(digits.x_test, expected, rtol=0, atol=1e-5)


# info and bench -------------------------------------------------------------------------------------------------------


def test_info_tells_what_runs_here(capsys):
    assert main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    config = fastrnn.show_config()
    assert lines["fastrnn"].strip() == fastrnn.__version__
    assert lines["CPU"].strip() == config["cpu"]
    assert lines["instruction set"].split()[0] == config["isa"]
    assert all(isa in lines["instruction set"].split("available:")[1] for isa in config["isa_available"])
    assert lines["threads"].strip() == str(fastrnn.get_num_threads())
    assert lines["precision"].strip() == config["matmul_precision"]
    assert lines["NumPy"].strip() == np.__version__


def test_bench_prints_a_table_and_writes_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fastrnn.bench.gemm.LARGE", 64)
    file = tmp_path / "bench.json"
    threads = fastrnn.get_num_threads()
    try:
        arguments = ["--cell", "gru", "--shapes", "4,3,5,6", "--peers", "numpy", "--threads", "1", "--json", str(file)]
        assert main(["bench", "--quick", *arguments]) == 0
    finally:
        fastrnn.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("gru ") and "4,3,5,6" in line]
    assert [row.split()[2] for row in rows] == ["fwd", "f+b"]
    assert any(line.startswith("forward: ahead of numpy on ") for line in lines)
    assert any(line.startswith("forward+backward: ahead of numpy on ") for line in lines)
    assert lines[-1] == f"numbers: {file}"
    report = Report.from_json(file.read_text())
    assert report.num_threads == 1
    assert [(result.cell, result.mode) for result in report.results] == [
        ("gru", "forward"),
        ("gru", "forward+backward"),
    ]
    forward = report.results[0]
    assert rows[0].split()[4] in (f"{forward.median_seconds() * 1e6:.2f}", f"{forward.median_seconds() * 1e3:.3f}")
    assert rows[0].split()[-1] == f"{forward.ratio('numpy'):.2f}"
    assert json.loads(file.read_text())["results"][0]["ratio"]["numpy"] == forward.ratio("numpy")


def test_python_dash_m_is_the_same_command(tmp_path):
    done = run_command("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastrnn {fastrnn.__version__}\n", "")


# refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "COMMAND"),
        (["tame"], "invalid choice: 'tame'"),
        (["demo", "--cell", "transformer"], "invalid choice: 'transformer'"),
        (["demo", "--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
        (["demo", "--hidden-size", "1.5"], "--hidden-size: expected a whole number of at least 1, got '1.5'"),
        (["demo", "--batch-size", "-3"], "--batch-size: expected"),
        (["demo", "--lr", "nan"], "--lr: expected a number above 0, got 'nan'"),
        (["demo", "--lr", "inf"], "--lr: expected a number above 0, got 'inf'"),
        (["demo", "--seed", "-1"], "--seed: expected a whole number of at least 0, got '-1'"),
        (["demo", "--sed", "1"], "unrecognized arguments: --sed"),
        (["bench", "--cell", "lstm,gro"], "--cell: expected lstm, gru, rnn (separated by commas), got 'gro'"),
        (["bench", "--shapes", "1,2,3"], "--shapes: shape: expected T,N,D,H"),
        (["bench", "--peers", "tensorflow"], "--peers: expected numpy, torch, torch-cell, onnxruntime, onnx-steps, "),
        (["bench", "--threads", "0"], "--threads: expected a whole number of at least 1, got '0'"),
        (["bench", "--threads", "100000"], "--threads: n: expected 1 to"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(capsys, arguments, said):
    assert said in refusal(capsys, *arguments)


def test_missing_and_truncated_data_are_refused_by_name(capsys, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert str(nowhere) in refusal(capsys, "demo", "--data", str(nowhere))
    (tmp_path / IMAGES).write_bytes((DIGITS / IMAGES).read_bytes()[:1000])
    (tmp_path / LABELS).write_bytes((DIGITS / LABELS).read_bytes())
    said = refusal(capsys, "demo", "--data", str(tmp_path))
    assert "truncated" in said and IMAGES in said


def test_an_output_that_cannot_be_written_is_refused(capsys, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert str(taken) in refusal(capsys, "demo", "--output", str(taken), *SMALL)
    assert taken.read_text() == "a file"


def test_json_that_cannot_be_written_is_refused_before_measuring(capsys, tmp_path):
    said = refusal(capsys, "bench", "--json", str(tmp_path / "nowhere" / "bench.json"))
    assert "--json" in said and "nowhere" in said


def test_a_learning_rate_that_explodes_is_the_users_to_mend(capsys, tmp_path):
    with np.errstate(all="ignore"):
        said = refusal(capsys, "demo", "--output", str(tmp_path), *SMALL, "--lr", "1e38")
    assert "a smaller --lr may help" in said


# What a user got wrong outside of the arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, environment, words",
    [
        (["info"], {"FASTRNN_ISA": "foo"}, "environment variable FASTRNN_ISA: "),
        (["info"], {"FASTRNN_NUM_THREADS": "0"}, "environment variable FASTRNN_NUM_THREADS: expected 1 to 256"),
        (["demo", "--hidden-size", "1000000000"], {}, "not enough memory for these sizes"),
        (["bench", "--shapes", "99999999999,1,1,1"], {}, "shape: expected arrays of at most"),
    ],
)
def test_one_line_and_exit_code_2(arguments, environment, words):
    done = run_command(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_closed_pipe_is_quiet():
    import os
    import subprocess

    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", "info"], cwd="/", stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.stderr == ""
