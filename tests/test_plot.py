"""Pictures: what they show is there, and what they are given is checked. How they look was looked at.

Letters: T time steps, H hidden size, V vocabulary.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Dropout, Embedding, EncoderDecoder, LastStep, Linear, Sequential, diagnose, plot
from fastrnn.plot.words import principal_components

HISTORY = {"loss": [1.0, 0.5, 0.4], "val_loss": [1.1, 0.6, 0.7], "accuracy": [0.4, 0.6, 0.7], "seconds": [1, 1, 1]}
both_themes = pytest.mark.parametrize("dark", [False, True])


@pytest.fixture(autouse=True)
def matplotlib(request):
    if "without" not in request.node.name and "diagnose" not in request.node.name:
        pytest.importorskip("matplotlib")


def texts(figure) -> str:
    """All words of a picture."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return " ".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


# --- curves -----------------------------------------------------------------------------------------------------------


@both_themes
def test_learning_curve(tmp_path, dark):
    history = fastrnn.History(HISTORY)
    figure = history.plot(tmp_path / "a.png", dark=dark)
    assert (tmp_path / "a.png").stat().st_size > 5000
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), HISTORY["loss"])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), HISTORY["val_loss"])
    assert loss.get_title(loc="right") == "best 0.6 at epoch 2" and len(accuracy.lines) == 1
    paper = np.array(figure.get_facecolor()[:3])
    ink = np.array([int(loss.xaxis.label.get_color()[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    assert (paper.mean() < 0.2) == dark and abs(paper - ink).min() > 0.6  # letters stand out


def test_gradient_norms_are_drawn_on_a_logarithmic_axis():
    norms = {"LSTM": np.array([0, 1e-3, 1.0]), "LSTM, biased": np.ones(3), "GRU": np.ones(3)}
    (axes,) = plot.gradient_norms(norms).axes
    assert axes.get_yscale() == "log" and np.isnan(axes.lines[0].get_ydata()[0])
    first, second, third = axes.lines
    assert first.get_color() == second.get_color() != third.get_color()
    assert first.get_linestyle() != second.get_linestyle()


# --- maps -------------------------------------------------------------------------------------------------------------


def test_hidden_states_show_each_unit_and_step():
    states = np.tanh(np.random.default_rng(0).standard_normal((6, 1, 5)))
    figure = plot.hidden_states(states, "ab cd\n", units=[3, 1])
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(np.asarray(image.get_array()), states[:, 0, [3, 1]].T)
    assert image.norm.vmin == -image.norm.vmax  # 0 has the colour of the paper
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b", "␣", "c", "d", "\\n"]
    many = np.random.default_rng(0).standard_normal((20, 100)) * np.linspace(0, 1, 100)
    image = plot.hidden_states(many).axes[0].images[0].get_array()
    assert image.shape == (64, 20) and np.abs(image).max() == np.abs(many).max()


def test_gates_are_one_map_each_of_the_same_units():
    values = np.random.default_rng(0).random((7, 30))
    figure = plot.gates({"forget": values, "cell": values * 2 - 1})
    forget, cell = (axes for axes in figure.axes if axes.images)
    assert (forget.images[0].norm.vmin, forget.images[0].norm.vmax) == (0, 1) and cell.images[0].norm.vmin < 0
    np.testing.assert_allclose(forget.images[0].get_array() * 2 - 1, cell.images[0].get_array())


def test_gates_of_a_trace():
    x = np.random.default_rng(0).standard_normal((1, 7, 3)).astype("f")
    trace = LSTM(3, 5, batch_first=True, rng=0).trace(x).backward(np.ones((1, 7, 5), "f"))["l0"]
    said = texts(plot.gates(trace))
    for word in ("input i", "forget f", "candidate g", "output o", "cell c", "state h"):
        assert word in said
    assert "dh" not in said


def test_alignment_is_a_map_from_0_to_the_largest_weight():
    weights = [[1.0, 3.0, 0.0], [0.0, 0.0, 0.5]]
    (axes,) = plot.alignment(weights, "abc", "xy").axes
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert axes.images[0].get_clim() == (0, 3)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_stand_at_their_principal_components():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40, 1)) * [3.0, 0, 0] + rng.standard_normal((40, 1)) * [0, 0, 1.0]
    x, y, shares = principal_components(table)
    centred = table - table.mean(axis=0)
    np.testing.assert_allclose(np.abs(x), np.abs(centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]), atol=1e-12)
    np.testing.assert_allclose(x**2 + y**2, (centred**2).sum(axis=1), atol=1e-12)
    assert shares.sum() == pytest.approx(1)


def test_word_vectors():
    names = [f"word{k}" for k in range(30)]
    vectors = SimpleNamespace(vectors=np.random.default_rng(0).standard_normal((30, 8)), index_to_key=names)
    figure = plot.word_vectors(vectors, ["word3", "word7", "word9"], groups=["odd", "odd", "nine"])
    said = texts(figure)
    assert all(word in said for word in ("word3", "word7", "word9", "odd", "nine")) and "word1" not in said
    assert len(plot.word_vectors(vectors, most=10).axes[0].collections[0].get_offsets()) == 10
    same = plot.word_vectors(np.repeat([[0.0], [0], [0], [0], [1]], 3, axis=1), list("abcde"))
    assert sum(letter in texts(same).split() for letter in "abcd") <= 4  # names do not cover each other


# --- networks ---------------------------------------------------------------------------------------------------------


@both_themes
def test_unfolded(tmp_path, dark):
    model = Sequential(Embedding(9, 4), LSTM(4, 6, 2, dropout=0.1), Dropout(0.5), Linear(6, 9))
    said = texts(plot.unfolded(model, tmp_path / "a.svg", dark=dark))
    assert "<svg" in (tmp_path / "a.svg").read_text()
    for word in ("Embedding, 4", "LSTM, H=6\nlayer 1", "layer 2", "Linear, 9", "$x_{1}$", "$y_{T}$", "$h^{(2)}_{3}$"):
        assert word in said, word
    assert "Dropout" not in said
    reduced = texts(plot.unfolded(Sequential(GRU(3, 4, bidirectional=True), LastStep(), Linear(8, 2)), steps=2))
    assert "after LastStep" in reduced and "$y$" in reduced and "$y_{1}$" not in reduced and "$x_{3}$" not in reduced


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [RNN, GRU, LSTM])
@pytest.mark.parametrize("batch_first", [False, True])
def test_diagnose_gradient_norms_are_those_of_the_states(cell, batch_first):
    layer = cell(3, 5, 2, batch_first=batch_first, dtype=np.float64, rng=0)
    T, N = 6, 2
    x = np.random.default_rng(1).standard_normal((N, T, 3) if batch_first else (T, N, 3))
    dlast = np.random.default_rng(2).standard_normal((N, 5))
    norms = diagnose.gradient_norms(layer, x, dlast)
    for t in range(1, T):  # from the state after step t - 1 on, in one piece
        before, rest = (x[:, :t], x[:, t:]) if batch_first else (x[:t], x[t:])
        _, state = layer(before)
        y, _ = layer(rest, state, training=True)
        dy = np.zeros_like(y)
        dy[(slice(None), -1) if batch_first else -1] = dlast
        _, dstate = layer.backward(dy)
        parts = dstate if isinstance(dstate, tuple) else (dstate,)
        expected = np.sqrt(sum((part**2).sum(axis=(0, 2)) for part in parts)).mean()
        assert norms[t - 1] == pytest.approx(expected, rel=1e-10)
    assert norms[-1] == pytest.approx(np.sqrt((dlast**2).sum(axis=1)).mean())


def test_diagnose_shows_vanishing_and_long_memory():
    x = np.random.default_rng(0).standard_normal((60, 4, 8)).astype("f")
    plain, biased = (diagnose.gradient_norms(LSTM(8, 32, forget_bias=b, rng=0), x) for b in (None, 4.0))
    assert plain[0] < 1e-6 * plain[-1] and biased[0] > 0.05 * biased[-1]
    model = Sequential(Embedding(9, 8, rng=0), GRU(8, 16, rng=1))
    assert diagnose.gradient_norms(model, np.zeros((5, 2), int)).shape == (5,)


def test_diagnose_alignment_finds_the_step_that_was_copied():
    rng = np.random.default_rng(0)
    V, T, H = 12, 4, 48
    source = rng.integers(3, V, (4000, T))
    targets = source[:, ::-1].copy()
    model = EncoderDecoder(
        Sequential(Embedding(V, 16, rng=1), GRU(16, H, batch_first=True, rng=2)),
        Sequential(Embedding(V, 16, rng=3), GRU(16, H, batch_first=True, rng=4), Linear(H, V, rng=5)),
        start=1,
    )
    trainer = fastrnn.Trainer(model, "cross_entropy", fastrnn.Adam(5e-3), clip_norm=1.0)
    trainer.fit(source, targets, epochs=8, batch_size=64, progress=False)
    weights = diagnose.alignment(model, source[0], targets[0], alternatives=range(3, V))
    assert weights.shape == (T, T) and (weights >= 0).all()
    np.testing.assert_array_equal(weights.argmax(axis=1), [3, 2, 1, 0])


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'^matplotlib is not installed: pip install "fastrnn\[plot\]"$'):
        fastrnn.History(HISTORY).plot()


SEQUENCE = np.zeros((3, 4))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: plot.learning_curve({}), ValueError, "history: expected at least one epoch, got none"),
        (lambda: plot.hidden_states(np.zeros((3, 2, 4))), ValueError, "states: expected one sequence (T, H) or"),
        (lambda: plot.hidden_states(SEQUENCE, "ab"), ValueError, "labels: expected one for each of 3 steps, got 2"),
        (lambda: plot.gates({}), ValueError, "trace: expected at least one gate or state, got none"),
        (
            lambda: plot.gates({"a": SEQUENCE, "b": SEQUENCE.T}),
            ValueError,
            "trace['b']: expected shape (3, 4) like the others, got (4, 3)",
        ),
        (lambda: plot.alignment(SEQUENCE, "ab", "cd"), ValueError, "weights: expected shape (2, 2), got (3, 4)"),
        (lambda: plot.gradient_norms({"a": SEQUENCE}), ValueError, "norms['a']: expected shape (T,), got (3, 4)"),
        (lambda: plot.word_vectors(SEQUENCE), ValueError, "words: expected a name for each of 3 rows, got none"),
        (lambda: plot.word_vectors(SEQUENCE, list("abc"), groups=[1]), ValueError, "groups: expected one for each"),
        (lambda: plot.unfolded(Linear(2, 2)), ValueError, "model: expected a recurrent layer to unfold, got Linear"),
        (lambda: diagnose.gradient_norms(Linear(2, 2), SEQUENCE), ValueError, "layer: expected one with a state, got"),
        (lambda: diagnose.gradient_norms(GRU(4, 2), SEQUENCE), ValueError, "x: expected axes of time and batch"),
        (lambda: diagnose.alignment(GRU(4, 2), [1], [1]), TypeError, "model: expected an EncoderDecoder, got GRU"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
