"""Language models and models of series, as a library and on the command line.

Letters: V vocabulary, N batch, T time steps.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import signal
from itertools import islice

import numpy as np
import pytest
from process_cases import run_python

import fastrnn
from fastrnn import LanguageModel, Trainer, losses, serialization
from fastrnn.cli.main import main
from fastrnn.models import SeriesModel, Table, help_topics, read_texts
from fastrnn.models.sampling import Sampler, nucleus
from fastrnn.words import Vocabulary

TEXT = "the cat sat on the mat.\nthe dog sat on the log.\n" * 60
SMALL = {"hidden_size": 16, "rng": 0}


def make(level="characters", text=TEXT, **options):
    return LanguageModel.of(text, level, **(SMALL | options))


def fit(model, text=TEXT, epochs=3, **options):
    x, y = model.samples(text, 4, 16)
    trainer = Trainer(model, "cross_entropy", fastrnn.Adam(1e-2), stateful=True, metrics=(), **options)
    trainer.fit(x, y, epochs=epochs, batch_size=4, progress=False)
    return trainer


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_nucleus_is_the_smallest_set_of_that_probability():
    logits = np.log([0.1, 0.4, 0.05, 0.25, 0.2])
    for top_p, kept in [
        (0.3, [1]),
        (0.41, [1, 3]),
        (0.65, [1, 3]),
        (0.66, [1, 3, 4]),
        (0.95, [0, 1, 3, 4]),
        (1.0, range(5)),
    ]:
        cut = nucleus(logits, top_p - 1e-9)
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(cut)), sorted(kept), err_msg=str(top_p))
        np.testing.assert_array_equal(cut[kept], logits[kept])


def test_sampler_draws_with_the_probabilities_it_says():
    p = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
    cases = [
        ({}, p),
        ({"temperature": 0.5}, p**2),
        ({"top_k": 2}, p * [0, 1, 0, 1, 0]),
        ({"top_p": 0.7}, p * [0, 1, 0, 1, 1]),
        ({"top_p": 0.7, "temperature": 0.5}, p**2 * [0, 1, 0, 1, 0]),  # 0.16 and 0.0625 of 0.2725 are 0.81
        ({"forbidden": (1,)}, p * [1, 0, 1, 1, 1]),
        ({"temperature": 0}, np.array([0, 1, 0, 0, 0])),
    ]
    for options, expected in cases:
        draw = Sampler(rng=np.random.default_rng(0), **options)
        counts = np.bincount([draw(np.log(p)) for _ in range(4000)], minlength=5)
        expected = expected / expected.sum()
        np.testing.assert_allclose(counts / 4000, expected, atol=0.03, err_msg=str(options))
        assert not counts[expected == 0].any(), options


# --- language models --------------------------------------------------------------------------------------------------


def test_samples_go_on_where_the_batch_before_ended():
    model, N, T = make(), 3, 7
    x, y = model.samples(TEXT, N, T)
    tokens = model.vocabulary.encode(TEXT)
    length = (len(tokens) - 1) // N
    assert len(x) % N == 0 and len(x) // N == length // T
    for n in range(N):
        row = np.concatenate(x[n::N])
        np.testing.assert_array_equal(row, tokens[n * length : n * length + len(row)])
        np.testing.assert_array_equal(np.concatenate(y[n::N]), tokens[n * length + 1 : n * length + 1 + len(row)])
    with pytest.raises(ValueError, match=r"^text: expected at least batch_size \* steps \+ 1 = 22 tokens, got 8$"):
        model.samples("the cat ", N, T)


def test_score_is_the_mean_over_the_whole_text():
    model = make()
    tokens = model.vocabulary.encode(TEXT)
    loss, _ = losses.cross_entropy(model(tokens[None, :-1]), tokens[None, 1:])
    for options in ({}, {"steps": 5}, {"batch_size": 1, "steps": 10_000}):
        score = model.score(TEXT, **options)
        assert score["loss"] == pytest.approx(loss, rel=1e-6)
        assert score["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
        assert score["bits_per_character"] == pytest.approx(loss / math.log(2), rel=1e-6)
        assert score["tokens"] == len(tokens) - 1
    assert model.score(TEXT, 4)["loss"] == pytest.approx(loss, rel=0.02)
    words = make("words")
    score = words.score(TEXT)
    assert score["bits_per_character"] == pytest.approx(score["loss"] / math.log(2) * (score["tokens"] + 1) / len(TEXT))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("level", ["characters", "words"])
def test_a_model_learns_a_text_and_writes_it(level, cell):
    model = make(level, cell=cell, num_layers=2, embedding_size=8)
    before = model.score(TEXT)["loss"]
    fit(model, epochs=8)
    assert model.score(TEXT)["loss"] < 0.35 * before
    written = "".join(model.write("the cat", 20, temperature=0))
    assert "the cat" + written == ("the cat" + written)[:200] and TEXT.startswith(("the cat" + written)[:12])


def test_greedy_text_is_that_of_generate():
    model = make(num_layers=2)
    fit(model)
    start = model.vocabulary.encode("the ")
    tokens = model.generate(start[None], 30, mode="greedy")[0]
    assert "".join(model.write("the ", 30, temperature=0)) == "".join(model.vocabulary.tokens[t] for t in tokens)


def test_text_is_made_as_it_is_read_and_the_same_for_a_seed():
    model = make()
    endless = model.write("the ", rng=3)
    assert len("".join(islice(endless, 40))) == 40
    first, again, other = ("".join(model.write("the ", 40, rng=seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert "<unk>" not in "".join(model.write(length=500, temperature=5.0, rng=0))  # special tokens are not written
    assert "".join(make("words").write("the", 3, rng=0)).startswith((" ", "\n", "."))


def test_words_stand_apart_and_marks_close(monkeypatch):
    model = make("words")
    following = iter([".", "\n", "the", "cat", ".", "the"])
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits: model.vocabulary[next(following)])
    assert "".join(model.write("the log", 6)) == ".\nthe cat. the"


@pytest.mark.parametrize("level", ["characters", "words"])
def test_a_file_has_the_vocabulary(tmp_path, level):
    model = make(level, dropout=0.1, num_layers=2)
    trainer = fit(model, epochs=1)
    trainer.save(tmp_path / "a")
    serialization.save_model(model, tmp_path / "b")
    for again in (Trainer.load(tmp_path / "a").model, serialization.load_model(tmp_path / "b")):
        assert again.vocabulary.tokens == model.vocabulary.tokens and again.vocabulary.level == level
        assert again.config() == model.config() and repr(again) == repr(model)
        assert "".join(again.write("the", 20, rng=0)) == "".join(model.write("the", 20, rng=0))


def test_a_file_of_a_model_is_read_where_nothing_of_it_was_imported(tmp_path):
    serialization.save_model(make(), tmp_path / "a")
    program = (
        "import sys, fastrnn; assert 'fastrnn.models' not in sys.modules and 'fastrnn.words' not in sys.modules; "
        f"model = fastrnn.serialization.load_model({str(tmp_path / 'a')!r}); print(type(model).__name__)"
    )
    done = run_python("-c", program, cwd=tmp_path)
    assert done.stdout == "LanguageModel\n", done.stderr


def test_training_in_pieces_equals_training_at_once(tmp_path):
    model, other = make(), make()
    trainer = fit(model, epochs=2)
    first = fit(other, epochs=1)
    first.save(tmp_path / "a")
    again = Trainer.load(tmp_path / "a")
    x, y = other.samples(TEXT, 4, 16)
    again.fit(x, y, epochs=2, batch_size=4, progress=False, resume=True)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(again.model.params[name], param)


def test_a_sparse_embedding_learns_too(tmp_path):
    model = make("words", sparse=True, cutoffs=[4, 7])
    before = model.score(TEXT)["loss"]
    x, y = model.samples(TEXT, 4, 16)
    trainer = Trainer(model, model.loss, fastrnn.Adam(1e-2), clip_norm=1.0, stateful=True)
    trainer.fit(x, y, epochs=6, batch_size=4, progress=False)
    assert isinstance(model.grads["0.weight"], fastrnn.RowGradient)
    assert model.score(TEXT)["loss"] < 0.5 * before
    trainer.save(tmp_path / "a")
    assert Trainer.load(tmp_path / "a").model.config() == model.config()


def test_tied_weights_are_one_array(tmp_path):
    model = make(tie_weights=True, num_layers=2)
    assert model[0].params["weight"] is model[-1].params["weight"]
    trainer = fit(model, epochs=4)
    assert model[0].params["weight"] is model[-1].params["weight"]
    assert model.score(TEXT)["loss"] < 0.6 * make(tie_weights=True, num_layers=2).score(TEXT)["loss"]
    trainer.save(tmp_path / "a")
    again = Trainer.load(tmp_path / "a").model
    assert again[0].params["weight"] is again[-1].params["weight"]
    assert again.score(TEXT) == model.score(TEXT)
    with pytest.raises(ValueError, match=r"^tie_weights: expected False with embedding_size=8 and hidden_size=16: "):
        make(tie_weights=True, embedding_size=8)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: m.write("thé"), ValueError, "prompt: expected tokens that the model knows, got 'é'"),
        (lambda m: m.write(3), TypeError, "prompt: expected a string, got int"),
        (lambda m: m.write(temperature=-1), ValueError, "temperature: expected a finite number of at least 0, got -1"),
        (lambda m: m.write(top_p=0), ValueError, "top_p: expected a probability above 0, at most 1, got 0"),
        (lambda m: m.write(top_k=0), ValueError, "top_k: expected a whole number of at least 1, got 0"),
        (
            lambda m: LanguageModel(Vocabulary()),
            TypeError,
            "vocabulary: expected a fastrnn.words.Vocabulary that knows tokens, got one without",
        ),
        (lambda m: LanguageModel(["a"]), TypeError, "vocabulary: expected a fastrnn.words.Vocabulary that knows"),
        (lambda m: make(cell="mlp"), ValueError, "cell: expected "),
        (lambda m: make("letters"), ValueError, "level: expected "),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(make())
    assert str(caught.value).startswith(message)


def test_weights_that_are_not_finite_end_the_text():
    model = make()
    model.params["0.weight"][...] = np.nan
    with pytest.raises(FloatingPointError, match=r"^logits: expected finite numbers, got nan$"):
        next(model.write("the "))


def test_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with gzip.open(tmp_path / "b.gz", "wt", encoding="utf-8") as file:
        file.write("drei, für")
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.gz"]) == "one\ntwo\ndrei, für"
    (tmp_path / "bad").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bad: expected UTF-8 text, got "):
        read_texts([tmp_path / "bad"])
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match=r"empty: expected some text, got none$"):
        read_texts([tmp_path / "empty"])
    assert len(help_topics()) > 300_000


# --- series -----------------------------------------------------------------------------------------------------------


def waves(rows=300):
    t = np.arange(rows)
    return Table(("wave", "other"), np.stack([5 + np.sin(t / 5), 100 * np.cos(t / 9)], axis=1))


def test_series_samples_and_forecasts_stand_at_their_rows():
    table = waves()
    model = SeriesModel.of(table, "wave", window=10, horizon=3, hidden_size=8, rng=0)
    x, y = model.samples(table)
    assert x.shape == (288, 10, 2) and y.shape == (288, 1) and x.dtype == y.dtype == np.float32
    values = x * model.deviation[:-1] + model.mean[:-1]
    np.testing.assert_allclose(values[7], table.values[7:17], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(y[7] * model.deviation[-1] + model.mean[-1], table.values[19, :1], rtol=1e-5)
    told = model.forecast(table)
    assert told.shape == (291,)
    np.testing.assert_allclose(told[:288], model(x)[:, 0] * model.deviation[-1] + model.mean[-1], rtol=1e-5)


def test_series_are_learned_saved_and_told(tmp_path):
    table = waves()
    model = SeriesModel.of(table, "wave", ["wave"], window=12, hidden_size=16, rng=0)
    trainer = Trainer(model, "mse", fastrnn.Adam(5e-3))
    trainer.fit(*model.samples(table), epochs=25, progress=False)
    told = model.forecast(table)
    assert np.sqrt(np.mean((told[:-1] - table.values[12:, 0]) ** 2)) < 0.05
    assert told[-1] == pytest.approx(5 + math.sin(300 / 5), abs=0.1)
    trainer.save(tmp_path / "a")
    np.testing.assert_array_equal(serialization.load_model(tmp_path / "a").forecast(table), told)


def test_tables(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("day;x; y\nmon;1;2.5\ntue;-3;4e2\n\n", encoding="utf-8-sig")
    table = Table.read_csv(file)
    assert table.names == ("x", "y") and table.values.tolist() == [[1, 2.5], [-3, 400]]
    assert Table.read_csv(file, ["y"]).values.tolist() == [[2.5], [400]]
    assert table.select(["y", "x"]).tolist() == [[2.5, 1], [400, -3]]


@pytest.mark.parametrize(
    "text, columns, message",
    [
        ("", None, "expected a line of names and at least one row, got 0 rows"),
        ("a,b\n", None, "expected a line of names and at least one row, got 0 rows"),
        ("a,b\nx,y\n", None, "expected columns of numbers, got none in its first row"),
        ("a,b\n1,2\n3\n", None, "expected 2 fields in row 2, got 1"),
        ("a,b\n1,2\n3,\n", None, "expected a number for 'b' in row 2, got ''"),
        ("a,b\n1,2\nnan,1\n", None, "expected a number for 'a' in row 2, got 'nan'"),
        ("a,b\n1,2\n", ["c"], "expected a column 'c', got a, b"),
        ("a,b\n1,x\n", ["b"], "expected a number for 'b' in row 1, got 'x'"),
        ("a,b\n1,\xff\n".encode("latin-1"), None, "expected a CSV file in UTF-8, got "),
    ],
)
def test_table_errors(tmp_path, text, columns, message):
    file = tmp_path / "a.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        Table.read_csv(file, columns)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_series_errors():
    table = waves(20)
    model = SeriesModel.of(table, "wave", window=24, hidden_size=4)
    with pytest.raises(ValueError, match=r"^table: expected at least window = 24 rows, got 20$"):
        model.forecast(table)
    with pytest.raises(ValueError, match=r"^table: expected a column 'x', got wave, other$"):
        SeriesModel.of(table, "x")


# --- the command line -------------------------------------------------------------------------------------------------

QUICK = ["--hidden-size", "16", "--no-progress"]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """command(*arguments): what it says on stdout, run in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return run


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    said = capsys.readouterr().err
    assert exit_.value.code == 2 and said.count("\n") == 1
    return said


@pytest.mark.parametrize("words", [(), ("--words",)])
def test_train_resume_generate_and_score_a_text(command, tmp_path, words):
    (tmp_path / "t.txt").write_text(TEXT)
    train = ["train", "text", "t.txt", "--steps", "16", "--batch-size", "4", "--layers", "1", *QUICK, *words]
    said = command(*train, "--epochs", "2")
    number = r"\d+\.\d+"
    scores = rf"loss {number}  perplexity {number}  bits per character {number}"
    assert len(re.findall(rf"^epoch \d/2  {scores}  [\d,]+ tokens/s  held out: {scores}$", said, re.M)) == 2
    assert said.endswith("model: text.safetensors\n")
    said = command(*train, "--epochs", "12", "--resume")
    assert len(re.findall(r"^epoch ", said, re.M)) == 10
    uninterrupted = command(*train, "--epochs", "12", "--output", "whole")
    without_speed = [re.sub(r"  [\d,]+ tokens/s", "", text).split("\n")[-4:-2] for text in (said, uninterrupted)]
    assert without_speed[0] == without_speed[1]
    text = command("generate", "text.safetensors", "--prompt", "the ", "--length", "12", "--temperature", "0")
    assert text.startswith("the ") and text.endswith("\n") and len(text.split()) > 2
    same = [command("generate", "text.safetensors", "--seed", "1", "--top-k", "5", "--top-p", "0.9") for _ in range(2)]
    assert same[0] == same[1]
    said = command("predict", "text.safetensors", "t.txt")
    assert float(re.search(r"bits per character: (\S+)", said)[1]) < 1.5


def test_train_and_predict_a_series(command, tmp_path):
    rows = [f"{k},{wave},{other}" for k, (wave, other) in enumerate(waves().values)]
    (tmp_path / "s.csv").write_text("\n".join(["k,wave,other", *rows]))
    said = command("train", "csv", "s.csv", "--target", "wave", "--columns", "wave", "--epochs", "20", *QUICK)
    ours, last = map(float, re.findall(r"held out: error (\S+), of the last value (\S+)", said)[-1])
    assert ours < last == pytest.approx(0.14, abs=0.01)
    lines = command("predict", "series.safetensors", "s.csv").splitlines()
    assert lines[0] == "row,wave,predicted" and lines[1].startswith("25,") and len(lines) == 1 + 300 - 24 + 1
    row, known, told = lines[-1].split(",")
    assert (row, known) == ("301", "") and float(told) == pytest.approx(5 + math.sin(60), abs=0.3)
    command("predict", "series.safetensors", "s.csv", "--output", "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == lines


def test_predict_arrays(command, tmp_path):
    model = fastrnn.Sequential(fastrnn.GRU(3, 4, batch_first=True, rng=0), fastrnn.LastStep(batch_first=True))
    serialization.save_model(model, tmp_path / "m")
    x = np.random.default_rng(0).standard_normal((5, 6, 3)).astype("f")
    np.save(tmp_path / "x.npy", x)
    assert command("predict", "m", "x.npy", "--output", "y.npy") == "(5, 4) float32: y.npy\n"
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(x))
    np.testing.assert_allclose(
        np.loadtxt(command("predict", "m", "x.npy").splitlines(), delimiter=","), model(x), rtol=1e-4
    )


def test_ctrl_c_leaves_a_model(command, tmp_path, capsys, monkeypatch):
    (tmp_path / "t.txt").write_text(TEXT)
    train = ["train", "text", "t.txt", "--steps", "16", "--batch-size", "4", "--layers", "1", *QUICK]
    steps = []

    def interrupted(self, *args, **options):
        steps.append(0)
        if len(steps) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **options)

    step = fastrnn.Adam.step
    monkeypatch.setattr(fastrnn.Adam, "step", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main([*train, "--output", "stopped"])
    assert exit_.value.code == 130 and "--resume goes on" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert Trainer.load("stopped").optimizer.steps == 20
    assert "epoch 5/5" in command(*train, "--output", "stopped", "--resume")
    command(*train, "--output", "whole")
    found, whole = (Trainer.load(name).model.params for name in ("stopped", "whole"))
    for name, param in whole.items():
        np.testing.assert_array_equal(found[name], param)


def test_refusals(command, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("too short")
    (tmp_path / "s.csv").write_text("a,b\n1,2\n")
    assert "batch_size * steps + 1 = 4097 tokens, got 8; a smaller" in refusal(capsys, "train", "text", "t.txt")
    assert "No such file" in refusal(capsys, "train", "text", "none.txt")
    assert "--resume: expected a model in text.safetensors" in refusal(capsys, "train", "text", "t.txt", "--resume")
    assert "--output: expected a folder" in refusal(capsys, "train", "text", "--output", "no/where")
    assert "--output: expected a file to write, got the folder ." in refusal(capsys, "train", "text", "--output", ".")
    tied = "train", "text", "--tie-weights", "--embedding-size", "4"
    assert "error: --tie-weights: expected False with" in refusal(capsys, *tied)
    assert "s.csv: expected a column 'c'" in refusal(capsys, "train", "csv", "s.csv", "--target", "c")
    assert "s.csv: expected at least window" in refusal(capsys, "train", "csv", "s.csv", "--target", "a")
    serialization.save_model(fastrnn.Linear(2, 2), tmp_path / "m")
    assert "m: expected a LanguageModel, got a Linear" in refusal(capsys, "generate", "m")
    assert "t.txt: expected a fastrnn checkpoint" in refusal(capsys, "generate", "t.txt")
    serialization.save_model(make(), tmp_path / "text")
    assert "--top-p: expected a probability" in refusal(capsys, "generate", "text", "--top-p", "1.5")
    assert "--prompt: expected tokens that the model knows, got 'é'" in refusal(
        capsys, "generate", "text", "--prompt", "é"
    )
    assert "--held-out: expected a number" in refusal(capsys, "train", "text", "--held-out", "1")
