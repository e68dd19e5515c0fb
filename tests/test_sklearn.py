"""fastrnn.sklearn: scikit-learn's own checks, and what its users do with estimators.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import pickle
import re
import warnings

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


def test_grid_search_on_a_dask_cluster():
    """joblib's other backends send the estimators to processes of their own, as pickles."""
    distributed = pytest.importorskip("distributed")
    joblib = pytest.importorskip("joblib")
    x, y = signs(40, ragged=True)
    search = GridSearchCV(RNNClassifier(**SMALL | {"epochs": 3}), {"hidden_size": [4, 8]}, cv=2)
    expected = search.fit(x, y).cv_results_["mean_test_score"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster), joblib.parallel_backend("dask"):
            found = search.set_params(n_jobs=2).fit(x, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, expected)


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


# --- Weights ----------------------------------------------------------------------------------------------------------


def test_a_weight_of_two_is_two_samples_where_the_batch_is_all():
    """What scikit-learn's own check asks of estimators whose batches are not drawn at random."""
    x, y = signs(N=40)
    options = SMALL | {"epochs": 15, "batch_size": 1000, "standardize": False}
    weights = np.random.default_rng(0).integers(0, 3, 40)
    weighted = RNNClassifier(**options, class_weight={"up": 2.0, "down": 0.5}).fit(x, y, sample_weight=weights)
    rows = np.repeat(np.arange(40), weights)
    repeated = RNNClassifier(**options, class_weight={"up": 2.0, "down": 0.5}).fit(x[rows], y[rows])
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-3)
    target = x.sum(axis=(1, 2))
    weighted = RNNRegressor(**options).fit(x, target, sample_weight=1e-3 * np.ones(40))
    np.testing.assert_allclose(weighted.predict(x), RNNRegressor(**options).fit(x, target).predict(x), rtol=1e-4)


def tags():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((T, 1)) for T in rng.integers(2, 9, 60)]
    return x, [[("sign", bool(v > 0)) if v > -1 else None for v in part[:, 0]] for part in x]


@pytest.mark.parametrize("steps", [False, True])
def test_tagger_takes_weights_and_any_labels(steps):
    x, y = tags()
    wrong = [[None] * len(row) if n % 2 else row for n, row in enumerate(y)]
    weights = [np.full(len(row), 1.0 - n % 2) for n, row in enumerate(y)] if steps else 1.0 - np.arange(60) % 2
    options = SMALL | {"epochs": 60}
    model = RNNTagger(**options).fit(x, wrong, sample_weight=weights)
    assert model.score(x, y) > 0.9 > RNNTagger(**options).fit(x, wrong).score(x, y)
    assert set(model.classes_) == {("sign", True), ("sign", False), None}
    assert all(isinstance(label, tuple) or label is None for label in model.predict(x)[0])
    right = model.score(x, wrong, sample_weight=weights)
    assert right == pytest.approx(model.score(x[::2], y[::2])) and right > model.score(x, wrong)
    heavy = RNNTagger(**SMALL | {"epochs": 20}, class_weight={None: 1e4}).fit(
        [np.zeros((3, 1))] * 8, [["a", "b", None]] * 8
    )
    assert list(heavy.predict([np.zeros((3, 1))] * 2)[1]) == [None] * 3
    with pytest.raises(ValueError, match="class_weight: expected labels among"):
        RNNTagger(**SMALL, class_weight={"c": 1}).fit([np.zeros((2, 1))] * 2, [["a", "b"]] * 2)
    with pytest.raises(ValueError, match="sample_weight: expected a weight for each sequence"):
        RNNTagger(**SMALL).fit(x, y, sample_weight=[np.ones(1)] * 60)


def test_labels_that_numpy_has_keep_their_dtype():
    x = np.zeros((4, 2, 1))
    for labels, dtype in (
        ([["x", "yy"]] * 4, "<U2"),
        (np.array([[3, 1]] * 4), np.int64),
        ([[0.5, 1.5]] * 4, np.float64),
    ):
        model = RNNTagger(**SMALL | {"epochs": 1}).fit(x, labels)
        assert model.classes_.dtype == dtype and model.predict(x)[0].dtype == dtype


def test_metadata_is_routed():
    """Weights reach fit and score through a pipeline and a search; without a request they are refused."""
    import sklearn
    from sklearn.exceptions import UnsetMetadataPassedError

    x, y = signs(N=60)
    weights = np.where(np.arange(60) % 2, 1.0, 0.0)
    wrong = np.where(weights > 0, y, np.where(y == "up", "down", "up"))
    with sklearn.config_context(enable_metadata_routing=True):
        clf = RNNClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipe = make_pipeline(FunctionTransformer(lambda a: a * 2), clf)
        search = GridSearchCV(pipe, {"rnnclassifier__hidden_size": [8, 16]}, cv=2).fit(x, wrong, sample_weight=weights)
        assert search.best_score_ > 0.8
        assert (
            search.score(x, wrong, sample_weight=weights) > 0.9 > search.best_estimator_.predict(x).__eq__(wrong).mean()
        )
        with pytest.raises(UnsetMetadataPassedError):
            GridSearchCV(RNNClassifier(**SMALL), {"cell": ["gru"]}, cv=2).fit(x, y, sample_weight=weights)
        for made in (RNNTagger(), RNNRegressor(), WindowRegressor()):
            made.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)


def test_early_stopping_weighs_what_it_validates():
    """Samples of weight 0 have no part in the loss that is watched."""
    x, y = signs()
    wrong = np.where(np.arange(len(y)) % 2, y, np.where(y == "up", "down", "up"))
    options = SMALL | {"epochs": 40}
    model = RNNClassifier(**options, early_stopping=True).fit(x, wrong, sample_weight=np.arange(len(y)) % 2)
    assert min(model.history_["val_loss"]) < 0.4


# --- Forecasts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_score_is_r2_of_forecasts(strategy):
    """It used to compare one forecast with the whole of y, and fail."""
    rng = np.random.default_rng(0)
    exogenous = rng.standard_normal((120, 1))
    series = np.stack([np.sin(np.arange(120) / 4), np.cos(np.arange(120) / 4)], axis=1) + np.roll(exogenous, 1, axis=0)
    options = SMALL | {"epochs": 30, "random_state": 0}
    model = WindowRegressor(6, 3, strategy=strategy, **options).fit(exogenous[:90], series[:90])
    truth, said, weights = [], [], rng.random(30)
    for start in range(90, 120 - 9 + 1):
        known = slice(start, start + 6)
        future = {"future": exogenous[start + 6 : start + 9]} if strategy == "recursive" else {}
        said.append(model.predict(exogenous[known], series[known], **future).ravel())
        truth.append(series[start + 6 : start + 9].ravel())
    from sklearn.metrics import r2_score

    assert model.score(exogenous[90:], series[90:]) == pytest.approx(r2_score(truth, said), abs=1e-4)
    each = [weights[k + 6 : k + 9].mean() for k in range(len(truth))]
    expected = r2_score(truth, said, sample_weight=each)
    assert model.score(exogenous[90:], series[90:], sample_weight=weights) == pytest.approx(expected, abs=1e-4)


def test_rows_of_a_series_have_weights():
    series = np.concatenate([np.zeros(60), np.ones(60)])  # the second half of the rows does not count
    weights = np.repeat([1.0, 0.0], 60)
    model = WindowRegressor(3, 1, **SMALL | {"epochs": 30}).fit(series, sample_weight=weights)
    assert abs(model.predict([0, 0, 0])[0]) < 0.1
    with pytest.raises(ValueError, match=r"sample_weight: expected a number for each row, shape \(120,\), got \(3,\)"):
        model.fit(series, sample_weight=np.ones(3))


def test_messages_of_forecasts():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    model = WindowRegressor(4, 2, **SMALL | {"epochs": 1}).fit(x, y)
    for call, message in (
        (
            lambda: model.predict(y),
            "X: expected 2 exogenous columns as X and a series of 1 columns as y, as in fit, got 1 columns",
        ),
        (lambda: model.predict(x[:3], y[:3]), "X: expected at least window = 4 rows, got 3"),
        (lambda: model.predict(y=y), "X: expected exogenous columns beside y, got None; a series alone is X"),
        (
            lambda: model.predict(future=x[:2]),
            "future: expected None without exogenous columns and strategy='recursive'",
        ),
        (lambda: model.score(x[:5], y[:5]), "X: expected at least window + horizon = 6 rows to score, got 5"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    assert model.predict().shape == (2,)  # a refused call used to turn this into (2, 1)


def test_sequences_in_any_container():
    """A Series or an object array of sequences is a list of them; empty ones stand among them."""
    pandas = pytest.importorskip("pandas")
    x, y = signs(N=30, ragged=True)
    expected = RNNClassifier(**SMALL | {"epochs": 2}).fit(x, y).predict_proba(x)
    held = np.empty(len(x), object)
    held[:] = x
    frames, lists = [pandas.DataFrame(part) for part in x], [part.tolist() for part in x]
    for form in (held, pandas.Series(x), tuple(x), frames, lists):
        got = RNNClassifier(**SMALL | {"epochs": 2}).fit(form, y).predict_proba(form)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    empty = [[], np.zeros((0, 2)), *x[2:]]
    assert RNNClassifier(**SMALL | {"epochs": 2}).fit(empty, y).predict(empty).shape == (30,)
    for wrong, message in (
        (np.ma.masked_greater(np.zeros((4, 3, 2)), 1), "X: expected a plain array, got a masked one"),
        ([np.ma.masked_greater(part, 1) for part in x], "X: expected a plain array, got a masked one"),
        (np.zeros((30, 0, 2)), "X: expected at least one time step, got shape"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            RNNClassifier(**SMALL).fit(wrong, y)


def test_columns_and_words_that_are_no_numbers():
    pandas = pytest.importorskip("pandas")
    dates = pandas.date_range("2024-01-01", periods=60, freq="h")
    frame = pandas.DataFrame({"load": np.arange(60), "name": ["x"] * 60}, index=dates)
    model = WindowRegressor(4, 2, **SMALL | {"epochs": 1})
    with pytest.raises(
        ValueError, match="X: expected columns of numbers, got 'index' of datetime64.*; make dates the index"
    ):
        model.fit(frame[["load"]].reset_index())
    assert model.fit(frame["load"]).predict().shape == (2,)
    frame.iloc[5, 0] = np.iinfo(np.int64).max
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.fit(frame["load"].where(frame["load"] < 100))
    with pytest.raises(ValueError, match="X: expected sequences of numbers, got words"):
        RNNTagger(**SMALL).fit([["the", "cat"], ["a"]], [["D", "N"], ["D"]])


def spelled(N=120, seed=0):
    """Tokens 0..5 of any lengths. A tag: whether a token repeats that before it; a label: whether the first is odd."""
    rng = np.random.default_rng(seed)
    x = [rng.integers(0, 6, T) for T in rng.integers(3, 9, N)]
    tags = [["same" if t and row[t] == row[t - 1] else "new" for t in range(len(row))] for row in x]
    return x, tags, np.array(["odd" if row[0] % 2 else "even" for row in x])


def test_tokens_have_vectors_that_are_learned():
    x, tags, labels = spelled()
    options = SMALL | {"epochs": 60, "learning_rate": 0.02, "embedding": (6, 4)}
    tagger = RNNTagger(**options).fit(x[:100], tags[:100])
    assert tagger.score(x[100:], tags[100:]) > 0.9
    assert tagger.model_.layers[0].params["weight"].shape == (6, 4)
    classifier = RNNClassifier(**options).fit(x[:100], labels[:100])
    assert classifier.score(x[100:], labels[100:]) > 0.9
    same = np.stack([row[:3] for row in x])
    wide = RNNClassifier(**options).fit(same[:100], labels[:100])
    assert np.array_equal(wide.predict(same.astype(float)), wide.predict(same))
    assert np.array_equal(pickle.loads(pickle.dumps(wide)).predict(same), wide.predict(same))
    regressor = RNNRegressor(**options).fit(same, same[:, 0].astype(float))
    assert regressor.score(same, same[:, 0]) > 0.8


def test_tokens_that_an_embedding_does_not_have():
    x, _, labels = spelled(20)
    model = RNNClassifier(**SMALL | {"epochs": 1, "embedding": (6, 4)})
    cases = [
        ([*x[:-1], np.array([1, 6])], ValueError, r"^X: expected tokens 0\.\.5 by embedding, got values from 1 to 6$"),
        ([*x[:-1], np.array([-1])], ValueError, r"^X: expected tokens 0\.\.5 by embedding"),
        ([*x[:-1], np.array([0.5])], TypeError, "^X: expected whole numbers, as embedding is given, got float64$"),
        (
            np.zeros((20, 3, 2), int),
            ValueError,
            r"^X: expected tokens of shape \(N, T\), as embedding is given, got \(20, 3, 2\)",
        ),
        ([*(row[:, None] for row in x[:-1]), np.zeros((5, 1))], ValueError, r"^X: expected tokens of shape \(T_i,\)"),
    ]
    for given, error, words in cases:
        with pytest.raises(error, match=words):
            model.fit(given, labels)
    for embedding in (6, (6,), (0, 4), (6, 0.5)):
        with pytest.raises((ValueError, TypeError), match="^embedding"):
            clone(model).set_params(embedding=embedding).fit(x, labels)
    model.fit(x, labels)
    with pytest.raises(ValueError, match=r"^X: expected tokens 0\.\.5"):
        model.predict([np.array([7, 1])])


def test_a_fit_to_sequences_forgets_how_long_those_of_an_array_were():
    x, y = signs(40)
    model = RNNClassifier(**SMALL | {"epochs": 1}).fit(x, y)
    with pytest.raises(ValueError, match="features"):
        model.predict(x[:, :5])
    model.fit([row[: 3 + k % 4] for k, row in enumerate(x)], y)
    assert model.predict(x[:, :5]).shape == (40,)
