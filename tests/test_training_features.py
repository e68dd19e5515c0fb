"""Weights, frozen layers, validation_split, metrics, schedules by plateau, accumulation: through the trainer.

Letters: N samples, T time steps, M classes.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from trainer_cases import assert_same_params, classifier, echo, numbers, sign_of_sum, tagger

import fastrnn
from fastrnn import GRU, SGD, Adam, Embedding, LastStep, Linear, ReduceLROnPlateau, Sequential, Trainer, losses, metrics
from fastrnn.trainer.callbacks import Callback
from fastrnn.trainer.data import Batch, Data


def fit(trainer, x, y, *, epochs=1, batch_size=64, **options):
    trainer.fit(x, y, epochs=epochs, batch_size=batch_size, progress=False, shuffle=False, **options)
    return trainer


# weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "mae", "huber", "quantile"])
def test_a_whole_weight_is_so_many_samples(loss):
    x, y = sign_of_sum(12, dtype=np.float64)
    y = y if loss == "cross_entropy" else y.astype(float)
    weights = np.array([1, 2, 0, 3] * 3)
    rows = np.repeat(np.arange(12), weights)
    trained = []
    for data, options in (((x, y), {"sample_weight": weights}), ((x[rows], y[rows]), {})):
        M = 2 if loss == "cross_entropy" else 1
        model = Sequential(GRU(1, 4, dtype="f8", rng=0), LastStep(), Linear(4, M, dtype="f8", rng=1))
        trainer = Trainer(model, loss, SGD(lr=0.1, momentum=0.9))
        trainer.fit(*data, epochs=3, progress=False, shuffle=False, **options)
        trained.append(trainer)
    for name, param in trained[1].model.params.items():
        np.testing.assert_allclose(trained[0].model.params[name], param, rtol=1e-9, atol=1e-12, err_msg=name)
    assert trained[0].history["loss"] == pytest.approx(trained[1].history["loss"], rel=1e-9)
    scores = trained[0].evaluate(x, y, batch_size=5, sample_weight=weights)
    assert scores == pytest.approx(trained[1].evaluate(x[rows], y[rows]), rel=1e-9)


def test_weights_count_in_batches_of_one():
    """Each sample moves the parameters by its weight over the mean weight of all data, whatever batch it is in."""
    x, y = sign_of_sum(3, dtype=np.float64)
    weights, moved = np.array([1.0, 4.0, 7.0]), []
    for n in range(3):
        model = Sequential(GRU(1, 4, dtype="f8", rng=0), LastStep(), Linear(4, 2, dtype="f8", rng=1))
        before = model.state_dict()["2.bias"]
        trainer = Trainer(model, optimizer=SGD(lr=0.1))
        data = trainer._feeding.data(x, y, weights=(weights, None))
        list(trainer._train_batch(Batch(data, slice(n, n + 1))))
        alone = Sequential(GRU(1, 4, dtype="f8", rng=0), LastStep(), Linear(4, 2, dtype="f8", rng=1))
        fit(Trainer(alone, optimizer=SGD(lr=0.1)), x[n : n + 1], y[n : n + 1])
        moved.append((model.params["2.bias"] - before) / (alone.params["2.bias"] - before))
    np.testing.assert_allclose(np.array(moved), (weights / 4)[:, None] * np.ones(2), rtol=1e-9)


def test_weights_of_steps_are_like_lengths_and_ignored_targets():
    x, y = echo(6)
    within = np.arange(10) < np.array([10, 7, 3, 9, 1, 5])[:, None]
    by_weight = fit(Trainer(tagger(dtype=np.float64)), x, y, epochs=2, sample_weight=within.astype(float))
    by_target = fit(Trainer(tagger(dtype=np.float64)), x, np.where(within, y, -100), epochs=2)
    for name, param in by_target.model.params.items():
        np.testing.assert_allclose(by_weight.model.params[name], param, rtol=1e-8, atol=1e-11)
    assert numbers(by_weight.history)["accuracy"] == pytest.approx(by_target.history["accuracy"])


@pytest.mark.parametrize("option", [{}, {"tbptt": 4}, {"checkpoint_every": 4}, {"tbptt": (3, 6)}])
def test_ragged_sequences_and_pieces_of_time_take_weights(option):
    rng = np.random.default_rng(0)
    lengths = [10, 4, 7]
    x = [rng.integers(0, 4, n) for n in lengths]
    y = [rng.integers(0, 4, n) for n in lengths]
    weights = [rng.random(n) + 0.1 for n in lengths]
    padded = np.zeros((3, 10), int), np.zeros((3, 10), int), np.zeros((3, 10))
    for n in range(3):
        for array, rows in zip(padded, (x, y, weights)):
            array[n, : lengths[n]] = rows[n]
    one = fit(Trainer(tagger(dtype=np.float64), optimizer=SGD(0.1), **option), x, y, sample_weight=weights)
    other = fit(
        Trainer(tagger(dtype=np.float64), optimizer=SGD(0.1), **option),
        padded[0],
        padded[1],
        lengths=lengths,
        sample_weight=padded[2],
    )
    assert_same_params(one.model, other.model)
    whole = fit(Trainer(tagger(dtype=np.float64), optimizer=SGD(0.1)), x, y, sample_weight=weights)
    if "tbptt" not in option:
        for name, param in whole.model.params.items():
            np.testing.assert_allclose(one.model.params[name], param, rtol=1e-9, atol=1e-12, err_msg=name)
    assert one.history["loss"] == pytest.approx(whole.history["loss"], rel=0.1 if "tbptt" in option else 1e-9)


def test_class_weights_are_weights_of_their_targets():
    x, y = sign_of_sum(20, dtype=np.float64)
    table = {0: 3.0, 1: 0.5}
    model = functools.partial(
        lambda: Sequential(GRU(1, 4, dtype="f8", rng=0), LastStep(), Linear(4, 2, dtype="f8", rng=1))
    )
    weights = np.where(y == 0, 3.0, 0.5)
    for other in (table, [3.0, 0.5], np.array([3.0, 0.5])):
        one = fit(Trainer(model()), x, y, epochs=2, batch_size=7, class_weight=other)
        two = fit(Trainer(model(), metrics=[]), x, y, epochs=2, batch_size=7, sample_weight=weights)
        assert_same_params(one.model, two.model)
    # PyTorch's weight, in one batch
    three = fit(Trainer(model(), functools.partial(losses.cross_entropy, class_weight=[3.0, 0.5])), x, y, epochs=2)
    whole = fit(Trainer(model()), x, y, epochs=2, class_weight=table)
    for name, param in whole.model.params.items():
        np.testing.assert_allclose(three.model.params[name], param, rtol=1e-9)
    # metrics do not see them
    assert whole.history["accuracy"] == three.history["accuracy"]
    balanced = fit(Trainer(model()), x, y, class_weight="balanced")
    numbers_of = np.bincount(y)
    by_hand = fit(Trainer(model()), x, y, class_weight=len(y) / (2 * numbers_of))
    for name, param in by_hand.model.params.items():
        np.testing.assert_allclose(balanced.model.params[name], param, rtol=1e-9)


def test_partial_fit_takes_weights():
    moved = {}
    for weight, table in ((1.0, None), (2.5, None), (1.0, {1: 2.5})):
        model = Sequential(GRU(2, 4, dtype="f8", rng=0), Linear(4, 3, dtype="f8", rng=1))
        before = model.state_dict()["1.bias"]
        Trainer(model, optimizer=SGD(0.1)).partial_fit(np.ones(2), 1, sample_weight=weight, class_weight=table)
        moved[weight, table is None] = model.params["1.bias"] - before
    np.testing.assert_allclose(moved[2.5, True], 2.5 * moved[1.0, True], rtol=1e-9)
    np.testing.assert_allclose(moved[1.0, False], 2.5 * moved[1.0, True], rtol=1e-9)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_weight": np.ones(5)}, r"sample_weight: expected shape \(6,\), got \(5,\)"),
        ({"sample_weight": -np.ones(6)}, "sample_weight: expected finite numbers of at least 0, got -1.0"),
        ({"class_weight": "even"}, "class_weight: expected a dict, an array or 'balanced', got 'even'"),
        ({"class_weight": {0: -1.0}}, "class_weight: expected finite numbers of at least 0"),
        ({"validation_split": 1.0}, r"validation_split: expected a number in \[0, 1\), got 1.0"),
        ({"validation_split": 0.05}, "validation_split: expected samples in both parts of 6, got 0.05"),
    ],
)
def test_bad_weights(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(classifier()).fit(*sign_of_sum(6), **options)


def test_a_loss_of_ones_own_takes_no_weights():
    trainer = Trainer(classifier(), lambda a, b: (0.0, np.zeros_like(a)))
    with pytest.raises(ValueError, match="expected None with a loss of your own"):
        trainer.fit(*sign_of_sum(6), sample_weight=np.ones(6))


# frozen layers and groups ------------------------------------------------------------------------------------


def test_groups_name_layers_of_the_model():
    model = classifier()
    optimizer = Adam(lr=0.01, groups=[{"params": model[0], "frozen": True}])
    before = model.state_dict()
    trainer = fit(Trainer(model, optimizer=optimizer), *sign_of_sum(8))
    for name, param in model.params.items():
        assert np.array_equal(param, before[name]) == name.startswith("0."), name
    assert trainer.optimizer.config()["groups"][0]["params"] == [n for n in model.params if n.startswith("0.")]
    with pytest.raises(ValueError, match="groups: expected patterns of"):
        Trainer(classifier(), optimizer=Adam(groups=[{"params": "9.*", "lr": 1.0}]))


# validation_split and history --------------------------------------------------------------------------------


def test_validation_split_is_the_last_part():
    x, y = sign_of_sum(20)
    weights = np.linspace(1, 2, 20)
    split = fit(Trainer(classifier()), x, y, epochs=2, validation_split=0.25, sample_weight=weights)
    given = fit(
        Trainer(classifier()),
        x[:15],
        y[:15],
        epochs=2,
        validation_data=(x[15:], y[15:], None, weights[15:]),
        sample_weight=weights[:15],
    )
    assert_same_params(split.model, given.model)
    assert numbers(split.history) == numbers(given.history)
    ragged = list(x)
    assert "val_loss" in Trainer(classifier()).fit(ragged, y, validation_split=0.5, progress=False)
    with pytest.raises(ValueError, match="validation_split: expected 0 beside validation_data, got both"):
        Trainer(classifier()).fit(x, y, validation_split=0.5, validation_data=(x, y))


def test_fit_returns_its_own_epochs_and_the_trainer_has_all(tmp_path):
    x, y = sign_of_sum(8)
    trainer = Trainer(classifier())
    first = trainer.fit(x, y, epochs=2, validation_data=(x, y), progress=False)
    second = trainer.fit(x, y, epochs=3, progress=False)
    assert (first.epochs, second.epochs, trainer.history.epochs) == (2, 3, 5)
    assert "val_loss" not in second and trainer.history["loss"] == first["loss"] + second["loss"]
    trainer.history.to_csv(tmp_path / "history.csv")
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss,accuracy") and len(lines) == 6
    assert float(lines[1].split(",")[1]) == first["loss"][0] and lines[5].split(",")[-1] == ""
    pd = pytest.importorskip("pandas")
    frame = trainer.history.to_frame()
    assert list(frame.index) == [1, 2, 3, 4, 5] and frame["val_loss"].isna().sum() == 3
    pd.testing.assert_series_equal(frame["loss"], pd.Series(trainer.history["loss"], frame.index, name="loss"))


# metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("M", [2, 5])
def test_metrics_of_classes_like_scikit_learn(M, weighted):
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(M)
    outputs, targets = rng.standard_normal((50, M)), rng.integers(0, M, 50)
    weights = rng.random(50) if weighted else None
    said = outputs.argmax(1)
    average = "binary" if M == 2 else "macro"
    for ours, theirs in (
        (metrics.accuracy, sk.accuracy_score),
        (metrics.f1, functools.partial(sk.f1_score, average=average)),
        (metrics.precision, functools.partial(sk.precision_score, average=average)),
        (metrics.recall, functools.partial(sk.recall_score, average=average)),
        (metrics.F1("micro"), functools.partial(sk.f1_score, average="micro")),
        (metrics.F1("weighted"), functools.partial(sk.f1_score, average="weighted")),
    ):
        assert ours(outputs, targets, weights) == pytest.approx(theirs(targets, said, sample_weight=weights), rel=1e-12)
    for k in range(1, M if M > 2 else 1):
        expected = sk.top_k_accuracy_score(targets, outputs, k=k, sample_weight=weights, labels=range(M))
        assert metrics.TopKAccuracy(k)(outputs, targets, weights) == pytest.approx(expected, rel=1e-12)
    nll, _ = losses.cross_entropy(outputs, targets, sample_weight=weights)
    assert metrics.perplexity(outputs, targets, weights) == pytest.approx(np.exp(nll), rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_numbers_like_scikit_learn(weighted):
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((50, 3)), rng.standard_normal((50, 3)) + 5
    weights = rng.random(50) if weighted else None
    for ours, theirs in (
        (metrics.mae, sk.mean_absolute_error),
        (metrics.mse, sk.mean_squared_error),
        (metrics.r2, sk.r2_score),
    ):
        expected = theirs(targets, outputs, sample_weight=weights)
        assert ours(outputs, targets, weights) == pytest.approx(expected, rel=1e-9)
        single = theirs(targets[:, 0], outputs[:, 0], sample_weight=weights)
        for y in (outputs[:, 0], outputs[:, :1]):
            assert ours(y, targets[:, 0], weights) == pytest.approx(single, rel=1e-9)
    assert metrics.rmse(outputs, targets) == pytest.approx(np.sqrt(metrics.mse(outputs, targets)))


def test_yes_and_no_has_an_f1_too():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((40, 1)), rng.integers(0, 2, (40, 1))
    assert metrics.f1(outputs, targets) == pytest.approx(sk.f1_score(targets, outputs > 0))


def test_an_epoch_reports_the_metric_of_all_its_samples():
    x, y = sign_of_sum(30)
    names = ["accuracy", "f1", "top_1_accuracy", "perplexity", metrics.F1("weighted")]
    with pytest.raises(ValueError, match="metrics: expected a function or one of accuracy"):
        Trainer(classifier(), metrics=["top_0_accuracy"])
    trainer = Trainer(classifier(), metrics=names[:4])
    whole, parts = trainer.evaluate(x, y), trainer.evaluate(x, y, batch_size=7)
    assert whole == pytest.approx(parts, rel=1e-6)
    assert list(whole) == ["loss", "accuracy", "f1", "top_1_accuracy", "perplexity"]
    outputs = trainer.predict(x)
    assert whole["f1"] == pytest.approx(metrics.f1(outputs, y))
    assert whole["perplexity"] == pytest.approx(np.exp(whole["loss"]), rel=1e-6)


def test_metrics_of_sequences_pass_over_what_does_not_count():
    x, y = echo(6)
    lengths = np.array([10, 7, 3, 9, 1, 5])
    trainer = Trainer(tagger(), metrics=["f1", "perplexity"])
    scores = trainer.evaluate(x, y, lengths=lengths)
    outputs = trainer.predict(x, lengths=lengths)
    kept = (np.arange(10) < lengths[:, None]) & (y != -100)
    assert scores["f1"] == pytest.approx(metrics.f1(outputs[kept], y[kept]))
    assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]), rel=1e-6)


def test_metrics_and_options_are_in_the_file(tmp_path):
    loss = functools.partial(losses.cross_entropy, class_weight=np.array([1.0, 2.0]), label_smoothing=0.1)
    trainer = Trainer(classifier(), loss, metrics=["accuracy", metrics.TopKAccuracy(1), metrics.F1("micro")])
    fit(trainer, *sign_of_sum(8))
    trainer.save(tmp_path / "run.safetensors")
    again = Trainer.load(tmp_path / "run.safetensors")
    assert again.objective.config() == trainer.objective.config()
    assert again.evaluate(*sign_of_sum(8)) == trainer.evaluate(*sign_of_sum(8))


def test_what_cannot_be_saved_is_refused_first():
    with pytest.raises(TypeError, match="loss: expected options that a checkpoint can hold"):
        Trainer(classifier(), functools.partial(losses.cross_entropy, ignore_index=object()))

    class Odd(fastrnn.Module):
        def arguments(self):
            return {"table": np.zeros(3)}

        def forward(self, x, state=None, *, context=None, training=False):
            return x, None

    with pytest.raises(TypeError, match="model: expected arguments of Odd that JSON can hold"):
        Trainer(Sequential(Odd(), Linear(2, 2)))


# CTC ---------------------------------------------------------------------------------------------------------


def spoken(N=24, seed=0):
    """Frames that spell labels: each label is held for a few frames, with blanks between."""
    rng = np.random.default_rng(seed)
    frames, labels = [], []
    for _ in range(N):
        said = rng.integers(1, 4, rng.integers(1, 5))
        rows = [np.eye(4)[m] for m in said for m in [m] * rng.integers(1, 4) + [0]]
        frames.append(np.array(rows) + 0.1 * rng.standard_normal((len(rows), 4)))
        labels.append(said)
    return frames, labels


@pytest.mark.parametrize("batch_first", [False, True])
def test_learns_to_spell(batch_first):
    frames, labels = spoken()
    model = Sequential(GRU(4, 16, batch_first=batch_first, rng=0), Linear(16, 4, rng=1))
    trainer = Trainer(model, "ctc", Adam(lr=0.02))
    history = trainer.fit(frames, labels, epochs=25, batch_size=8, progress=False, validation_split=0.2)
    assert history["loss"][-1] < 0.2 < 1 < history["loss"][0]
    assert history["val_loss"][-1] < 0.5
    said = []
    for frame in trainer.predict(frames[:5]):
        path = frame.argmax(-1)
        said.append([m for t, m in enumerate(path) if m and (not t or path[t - 1] != m)])
    assert said == [list(row) for row in labels[:5]]


def test_ctc_in_segments_and_with_weights():
    frames, labels = spoken(8)
    trained = []
    for option in ({}, {"checkpoint_every": 3}):
        model = Sequential(GRU(4, 6, rng=0, dtype="f8"), Linear(6, 4, rng=1, dtype="f8"))
        trainer = Trainer(model, "ctc", SGD(lr=0.1), **option)
        trained.append(fit(trainer, frames, labels, sample_weight=np.arange(8)))
    for name, param in trained[0].model.params.items():
        np.testing.assert_allclose(trained[1].model.params[name], param, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="tbptt: expected None with ctc"):
        Trainer(model, "ctc", tbptt=3)
    with pytest.raises(ValueError, match="partial_fit: expected a loss of single steps, got ctc"):
        trainer.partial_fit(np.zeros(4), [1])
    with pytest.raises(ValueError, match="loss: expected a model with an output at every step for ctc"):
        Trainer(classifier(), "ctc")


# the learning rate -------------------------------------------------------------------------------------------


class Script(Callback):
    """Puts numbers into the logs."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, trainer, epoch, logs):
        logs["score"] = self.values[epoch]


def rates(callback, values):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append(trainer.optimizer.lr)

    trainer = Trainer(classifier(), optimizer=SGD(lr=1.0), callbacks=[Script(values), callback, Watch()])
    fit(trainer, *sign_of_sum(4), epochs=len(values))
    return seen


def test_the_rate_is_reduced_on_a_plateau():
    values = [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, mode="min"), values)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=2, min_lr=0.3, mode="min"), values)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


def test_the_plateau_is_like_keras():
    keras = pytest.importorskip("keras")
    values = np.random.default_rng(0).integers(0, 8, 40).astype(float).tolist()
    theirs = keras.callbacks.ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=3, min_delta=1e-4, mode="min")

    class Model:
        class optimizer:
            learning_rate = np.float64(1.0)

    theirs.set_model(Model)
    theirs.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"score": value})
        expected.append(float(Model.optimizer.learning_rate))
    seen = rates(ReduceLROnPlateau("score", factor=0.5, patience=2, cooldown=3, mode="min"), values)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


# NumPy's state -----------------------------------------------------------------------------------------------


def test_the_callers_numpy_state_does_not_stop_training():
    x, y = sign_of_sum(8)
    x *= 1e4  # gates saturate, and exp underflows
    calm = fit(Trainer(classifier(), metrics=["accuracy", "perplexity"]), x, y, epochs=2)
    with np.errstate(all="raise"):
        strict = fit(Trainer(classifier(), metrics=["accuracy", "perplexity"]), x, y, epochs=2)
        strict.evaluate(x, y)
        strict.predict(x)
    assert_same_params(calm.model, strict.model)
    stream = Sequential(Embedding(3, 2, rng=0), GRU(2, 4, rng=0), Linear(4, 2, rng=1))
    with np.errstate(all="raise"):
        Trainer(stream).partial_fit(1, 1)


def test_a_window_does_not_keep_the_users_array():
    """A view would keep all of a large array alive, and follow what is written into a buffer that is used again."""
    model = Sequential(GRU(2, 4, rng=0), Linear(4, 2, rng=1))
    trainer = Trainer(model, window=3)
    large = np.zeros((1000, 2), np.float32)
    trainer.partial_fit(large[3], 1)
    assert all(sample.base is None or sample.base.size == 2 for sample in trainer._window.samples)


# several batches in one update -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", functools.partial(losses.cross_entropy, reduction="sequence")])
@pytest.mark.parametrize("option", [{}, {"checkpoint_every": 4}])
def test_accumulated_batches_are_one_large_batch(loss, option):
    x, y = echo(12)
    y[3] = -100  # batches count by their targets
    y[7, 2:] = -100
    large = fit(Trainer(tagger(dtype=np.float64), loss), x, y, epochs=2, batch_size=6)
    small = fit(Trainer(tagger(dtype=np.float64), loss, accumulate=3, **option), x, y, epochs=2, batch_size=2)
    assert large.optimizer.steps == small.optimizer.steps == 4
    for name, param in large.model.params.items():
        np.testing.assert_allclose(small.model.params[name], param, rtol=1e-8, atol=1e-11, err_msg=name)


def test_what_is_left_of_an_epoch_is_an_update_of_its_own():
    x, y = sign_of_sum(10)
    trainer = fit(Trainer(classifier(), accumulate=2), x, y, batch_size=4)
    assert trainer.optimizer.steps == 2
    windows = Trainer(tagger(), tbptt=4, accumulate=3)
    fit(windows, *echo(4), batch_size=4)
    assert windows.optimizer.steps == 1


def test_data_for_weights_is_checked():
    with pytest.raises(ValueError, match="class_weight: expected targets that are classes"):
        Trainer(classifier(), "bce").fit(
            *[sign_of_sum(6)[0], np.full((6, 2), 0.5)], class_weight={0: 1.0}, progress=False
        )
    assert len(Data(np.zeros((3, 2)), np.zeros(3)).rows(slice(1, 3))) == 2


def test_labels_that_are_words_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="y: expected numbers, got <U3; number the classes from 0, or take"):
        Trainer(classifier()).fit(sign_of_sum(2)[0], ["yes", "no"])


# tied parameters ---------------------------------------------------------------------------------------------


def test_an_array_under_two_names_is_written_and_averaged_as_one(tmp_path):
    def tied():
        model = Sequential(Embedding(5, 5, rng=0), GRU(5, 5, rng=1), Linear(5, 5, bias=False, rng=2))
        model[2]._params["weight"] = model[0].params["weight"]
        return model

    x, y = np.arange(20).reshape(4, 5) % 5, np.ones((4, 5), int)
    trainer = Trainer(tied(), optimizer=Adam(0.1), callbacks=[fastrnn.EMA(0.5, at_end=False)])
    before = trainer.model.state_dict()["0.weight"]
    fit(trainer, x, y, epochs=2, validation_data=(x, y))
    assert trainer.model.params["0.weight"] is trainer.model.params["2.weight"]
    assert not np.array_equal(before, trainer.model.params["0.weight"])
    trainer.save(tmp_path / "tied.safetensors")
    arrays, config = fastrnn.serialization.read(tmp_path / "tied.safetensors")
    assert "model.0.weight" in arrays and "model.2.weight" not in arrays
    assert config["tied"] == {"2.weight": "0.weight"}
    assert [name for name in arrays if name.startswith("optimizer.exp_avg.") and name.endswith(".weight")] == [
        "optimizer.exp_avg.0.weight"
    ]
    again = Trainer.load(tmp_path / "tied.safetensors")
    np.testing.assert_array_equal(again.model.params["2.weight"], trainer.model.params["0.weight"])


def test_gradients_of_rows_go_into_groups_and_gathered_batches():
    x, y = echo(12)
    trained = []
    for sparse, batch_size, accumulate in ((False, 6, 1), (True, 2, 3)):
        model = Sequential(
            Embedding(4, 5, sparse=sparse, rng=1, dtype="f8"),
            GRU(5, 8, batch_first=True, rng=2, dtype="f8"),
            Linear(8, 4, rng=3, dtype="f8"),
        )
        optimizer = SGD(lr=0.1, groups=[{"params": "0.weight", "lr": 0.5}])
        trainer = Trainer(model, optimizer=optimizer, clip_norm=0.1, accumulate=accumulate)
        trained.append(fit(trainer, x, y, epochs=2, batch_size=batch_size))
    for name, param in trained[0].model.params.items():
        np.testing.assert_allclose(trained[1].model.params[name], param, rtol=1e-9, atol=1e-12, err_msg=name)


def test_frozen_layers_stay_and_may_learn_later(tmp_path):
    x, y = sign_of_sum(8)
    model = classifier()
    model[0].freeze()
    before = model.state_dict()
    trainer = fit(Trainer(model), x, y, epochs=2)
    trainer.save(tmp_path / "frozen.safetensors")
    for name, param in model.params.items():
        assert np.array_equal(param, before[name]) == name.startswith("0."), name
    arrays, _ = fastrnn.serialization.read(tmp_path / "frozen.safetensors")
    assert not any(name.startswith("optimizer.exp_avg.0.") for name in arrays)
    again = Trainer.load(tmp_path / "frozen.safetensors")
    for one in (trainer, again):
        one.model[0].unfreeze()
        fit(one, x, y)
    assert_same_params(trainer.model, again.model)
    assert not np.array_equal(trainer.model.params["0.weight_hh_l0"], before["0.weight_hh_l0"])
