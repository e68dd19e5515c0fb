"""fastrnn.sklearn: scikit-learn's own checks, and what its users do with estimators.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastrnn.sklearn import RNNClassifier, RNNRegressor, RNNTagger, WindowRegressor

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "minibatches are drawn at random, so a sample of weight 2 does "
    "not stand where two samples would"
}
SMALL = {"cell": "gru", "hidden_size": 16, "epochs": 40, "batch_size": 16, "random_state": 0}


@parametrize_with_checks(
    [RNNClassifier(**SMALL), RNNRegressor(**SMALL)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def signs(N=200, seed=0, ragged=False):
    """Sequences whose sum is above or below zero; y says which, in words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, N) if ragged else np.full(N, 8)
    x = [rng.standard_normal((T, 2)) + rng.choice([-0.7, 0.7]) for T in lengths]
    y = np.array(["up" if part.sum() > 0 else "down" for part in x])
    return (x if ragged else np.stack(x)), y


@pytest.mark.parametrize("ragged", [False, True])
def test_classifier_learns_words_as_labels(ragged):
    x, y = signs(ragged=ragged)
    model = RNNClassifier(**SMALL).fit(x[:150], y[:150])
    assert model.score(x[150:], y[150:]) > 0.9
    p = model.predict_proba(x[150:])
    assert p.shape == (50, 2)
    assert np.allclose(p.sum(axis=1), 1)
    assert set(model.predict(x[150:])) == {"up", "down"}
    assert list(model.classes_) == ["down", "up"]


def test_a_seed_gives_the_same_model_and_pickles_predict_alike():
    x, y = signs()
    one, two = (RNNClassifier(**SMALL).fit(x, y) for _ in range(2))
    assert np.array_equal(one.predict_proba(x), two.predict_proba(x))
    again = pickle.loads(pickle.dumps(one))
    assert np.array_equal(again.predict_proba(x), one.predict_proba(x))


def test_partial_fit_warm_start_and_early_stopping():
    x, y = signs()
    model = RNNClassifier(**SMALL)
    for _ in range(30):
        model.partial_fit(x, y, classes=["down", "up", "level"])
    assert model.score(x, y) > 0.9
    with pytest.raises(ValueError, match="y: expected labels among .* got"):
        model.partial_fit(x, np.where(y == "up", "sideways", y))
    warm = RNNClassifier(**SMALL | {"epochs": 2}, warm_start=True).fit(x, y)
    before = warm.model_
    assert warm.fit(x, y).model_ is before
    assert warm.n_iter_ == 4
    noisy = np.where(np.random.default_rng(1).random(len(y)) < 0.3, "up", y)
    stopped = RNNClassifier(**SMALL | {"epochs": 300}, early_stopping=True, n_iter_no_change=3).fit(x, noisy)
    assert stopped.n_iter_ < 300
    assert "val_loss" in stopped.history_


def test_weights_of_samples_and_classes_count():
    """Samples of weight 0 with wrong labels do not matter; a heavy class is predicted where nothing is known."""
    x, y = signs()
    wrong = y.copy()
    wrong[::2] = np.where(y[::2] == "up", "down", "up")
    weights = np.ones(len(y))
    weights[::2] = 0
    assert RNNClassifier(**SMALL).fit(x, wrong, sample_weight=weights).score(x, y) > 0.9
    noise = np.zeros((60, 4, 1))
    labels = np.array(["a", "b"] * 30)
    model = RNNClassifier(**SMALL, class_weight={"a": 1, "b": 20}).fit(noise, labels)
    assert (model.predict(noise) == "b").all()
    x = np.zeros((40, 4))
    target, weights = np.repeat([0.0, 1.0], 20), np.repeat([1.0, 3.0], 20)
    assert RNNRegressor(**SMALL).fit(x, target, sample_weight=weights).predict(x[:1]) == pytest.approx(0.75, abs=0.05)


def test_grid_search_clone_pipeline_and_cross_validation():
    x, y = signs()
    search = GridSearchCV(
        RNNClassifier(**SMALL | {"epochs": 5}, n_jobs=1),
        {"hidden_size": [4, 8], "cell": ["rnn", "gru"]},
        cv=2,
        n_jobs=2,
    )
    search.fit(x, y)
    assert set(search.best_params_) == {"hidden_size", "cell"}
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()
    pipe = make_pipeline(FunctionTransformer(lambda a: a * 2), RNNClassifier(**SMALL | {"epochs": 15}))
    assert cross_val_score(pipe, x, y, cv=2).mean() > 0.8


def test_regressor_of_one_and_of_several_numbers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6, 2))
    y = np.stack([100 + 50 * x[:, -1, 0], x[:, :, 1].mean(axis=1)], axis=1)
    model = RNNRegressor(**SMALL | {"epochs": 80}).fit(x, y)
    assert model.score(x, y) > 0.9
    assert model.predict(x[:3]).shape == (3, 2)
    assert RNNRegressor(**SMALL | {"epochs": 2}).fit(x, y[:, 0]).predict(x[:3]).shape == (3,)


def test_tagger_of_ragged_sequences():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((T, 1)) for T in rng.integers(2, 9, 120)]
    y = [np.where(np.concatenate([[0], part[:-1, 0]]) > 0, "after+", "after-") for part in x]  # asks for memory
    model = RNNTagger(**SMALL | {"epochs": 60}).fit(x, y)
    assert model.score(x, y) > 0.95
    assert [len(row) for row in model.predict(x)] == [len(row) for row in x]
    assert model.predict_proba(x)[0].shape == (len(x[0]), 2)
    with pytest.raises(ValueError, match="y: expected 2 labels for sequence 0"):
        RNNTagger().fit([np.zeros((2, 1)), np.zeros((3, 1))], [["a"], ["a", "b", "a"]])


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_forecasts_of_a_wave(strategy):
    series = 10 + np.sin(np.arange(400) / 5)
    model = WindowRegressor(30, 10, strategy=strategy, **SMALL | {"epochs": 40, "hidden_size": 32}).fit(series[:380])
    assert np.abs(model.predict() - series[380:390]).max() < 0.2
    assert np.abs(model.predict(series[:390]) - series[390:400]).max() < 0.2


def test_exogenous_columns_and_dataframes():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(500)
    frame = pandas.DataFrame({"signal": signal, "noise": rng.standard_normal(500)})
    y = pandas.Series(np.concatenate([[0], signal[:-1]]))  # tomorrow is today's signal
    model = WindowRegressor(4, 1, **SMALL | {"epochs": 60}).fit(frame, y)
    assert model.predict() == pytest.approx(signal[-1], abs=0.3)
    recursive = WindowRegressor(4, 2, strategy="recursive", **SMALL | {"epochs": 2}).fit(frame, y)
    with pytest.raises(ValueError, match=r"future: expected exogenous values \(2, 2\), got None"):
        recursive.predict()
    assert recursive.predict(future=np.zeros((2, 2))).shape == (2,)


def test_clear_errors():
    with pytest.raises(ValueError, match="cell: expected one of rnn, gru, lstm, got 'transformer'"):
        RNNClassifier(cell="transformer").fit(np.zeros((4, 3, 1)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="X: expected at least window"):
        WindowRegressor(24).fit(np.zeros(10))
    model = RNNRegressor(**SMALL | {"epochs": 1}).fit(np.zeros((4, 3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="X: expected D=2 features as in fit, got 5"):
        model.predict([np.zeros((3, 5)), np.zeros((2, 5))])
