"""Metrics, against scikit-learn and through the trainer; what a file holds of them.

Letters: N samples, T time steps, M classes.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from trainer_cases import classifier, echo, fit, sign_of_sum, tagger

import fastrnn
from fastrnn import Linear, Sequential, Trainer, losses, metrics


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
