"""Weights of samples, steps and classes, through the trainer.

Letters: N samples, T time steps, M classes.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from trainer_cases import assert_same_params, classifier, echo, fit, numbers, sign_of_sum, tagger

from fastrnn import GRU, SGD, LastStep, Linear, Sequential, Trainer, losses
from fastrnn.trainer.data import Batch, Data


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


def test_data_for_weights_is_checked():
    with pytest.raises(ValueError, match="class_weight: expected targets that are classes"):
        Trainer(classifier(), "bce").fit(
            *[sign_of_sum(6)[0], np.full((6, 2), 0.5)], class_weight={0: 1.0}, progress=False
        )
    assert len(Data(np.zeros((3, 2)), np.zeros(3)).rows(slice(1, 3))) == 2
