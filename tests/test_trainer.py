"""Trainer, History and objective.

Letters: N samples, T time steps, D input size, H hidden size, M classes, V vocabulary.
"""

from __future__ import annotations

import functools
import json
import math
from typing import get_args

import numpy as np
import pytest
from trainer_cases import TIMES, Recorder, assert_same_params, classifier, echo, numbers, sign_of_sum, tagger

from fastrnn import losses, optim
from fastrnn.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Dropout,
    Embedding,
    LastStep,
    Linear,
    Module,
    Sequential,
    TreeLSTM,
)
from fastrnn.trainer import History, Trainer
from fastrnn.trainer.callbacks import EarlyStopping
from fastrnn.trainer.objective import _METRICS, LossName, MetricName, Objective, accuracy
from fastrnn.trainer.trainer import OptimizerName

# --- Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
@pytest.mark.parametrize("cell", [RNN, GRU, LSTM])
def test_learns_to_classify_sequences(cell, batch_first):
    trainer = Trainer(classifier(cell, batch_first=batch_first), optimizer=optim.Adam(lr=1e-2), clip_norm=5.0)
    history = trainer.fit(*sign_of_sum(1000), epochs=10, batch_size=16, progress=False)
    assert history["loss"][0] > 2 * history["loss"][-1]
    assert trainer.evaluate(*sign_of_sum(400, seed=1))["accuracy"] > 0.92


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
def test_learns_to_tag_every_step(batch_first):
    trainer = Trainer(tagger(batch_first=batch_first), optimizer=optim.Adam(lr=2e-2))
    trainer.fit(*echo(200), epochs=12, batch_size=16, progress=False)
    assert trainer.evaluate(*echo(100, seed=1))["accuracy"] > 0.99


def test_learns_to_regress_and_to_say_yes_or_no():
    x, y = sign_of_sum(500)
    totals = x.sum(axis=1) / 3
    model = Sequential(LSTM(1, 16, rng=0), LastStep(), Linear(16, 1, rng=1))
    trainer = Trainer(model, loss="mse", optimizer=optim.Adam(lr=1e-2))
    history = trainer.fit(x, totals, epochs=20, batch_size=25, validation_data=(x, totals), progress=False)
    assert set(history) == {"loss", "val_loss", *TIMES}
    assert history["val_loss"][-1] < 0.05 * totals.var()

    model = Sequential(GRU(1, 8, rng=0), LastStep(), Linear(8, 1, rng=1))
    trainer = Trainer(model, loss="bce", optimizer=optim.RMSprop(lr=1e-2))
    history = trainer.fit(x, y[:, None], epochs=10, batch_size=25, progress=False)
    assert history["accuracy"][-1] > 0.95


def test_one_update_per_sample_learns_online():
    trainer = Trainer(classifier(), optimizer=optim.SGD(lr=0.05))
    history = trainer.fit(*sign_of_sum(500), epochs=2, batch_size=1, progress=False)
    assert trainer.optimizer.steps == 1000
    assert history["accuracy"][1] > 0.85


def test_agrees_with_training_in_torch():
    """Ten updates of embedding, two-layer bidirectional LSTM and linear layer with Adam and clipping."""
    torch = pytest.importorskip("torch")
    x, y = echo(40)
    model = Sequential(
        Embedding(4, 5, dtype="f8"),
        LSTM(5, 6, 2, bidirectional=True, batch_first=True, dtype="f8"),
        Linear(12, 4, dtype="f8"),
    )
    torch.manual_seed(0)
    twin = torch.nn.ModuleList(
        [torch.nn.Embedding(4, 5), torch.nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True), torch.nn.Linear(12, 4)]
    ).double()
    model.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    recorder = Recorder()
    trainer = Trainer(model, optimizer=optim.Adam(lr=1e-2), clip_norm=0.03, callbacks=[recorder])
    trainer.fit(x, y, epochs=2, batch_size=8, shuffle=False, progress=False)
    adam, expected = torch.optim.Adam(twin.parameters(), lr=1e-2), []
    for _ in range(2):
        for start in range(0, 40, 8):
            embedding, lstm, linear = twin
            logits = linear(lstm(embedding(torch.tensor(x[start : start + 8])))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(y[start : start + 8]).flatten())
            adam.zero_grad()
            loss.backward()
            assert torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.03) > 0.03
            adam.step()
            expected.append(loss.item())
    np.testing.assert_allclose([logs["loss"] for logs in recorder.batches], expected, rtol=1e-9)
    for name, value in twin.state_dict().items():
        np.testing.assert_allclose(model.params[name], value.numpy(), rtol=0, atol=1e-9, err_msg=name)


# --- What one fit does ------------------------------------------------------------------------------------------------


class Spy(Module):
    """Passes x on and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def __call__(self, x, *, training=False):
        if training:
            self.seen.append(x.copy())
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("limit", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_fit_is_the_loop_one_would_write(limit):
    x, y = sign_of_sum(20)
    trainer = Trainer(classifier(), optimizer=optim.SGD(lr=0.5), **limit)
    history = trainer.fit(x, y, epochs=2, batch_size=8, shuffle=False, progress=False)
    model, sgd = classifier(), optim.SGD(lr=0.5)
    for epoch in range(2):
        total = right = 0.0
        for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
            logits = model(x[rows].swapaxes(0, 1), training=True)
            loss, dlogits = losses.cross_entropy(logits, y[rows])
            model.zero_grad()
            model.backward(dlogits)
            if "clip_norm" in limit:
                assert optim.clip_grad_norm(model.grads, 0.05) > 0.05
            if "clip_value" in limit:
                optim.clip_grad_value(model.grads, 0.01)
            sgd.step(model.params, model.grads)
            total += loss * len(logits)
            right += (logits.argmax(1) == y[rows]).sum()
        np.testing.assert_allclose(history["loss"][epoch], total / 20, rtol=1e-12)
        np.testing.assert_allclose(history["accuracy"][epoch], right / 20, rtol=1e-12)
    assert_same_params(trainer.model, model)


def test_each_epoch_sees_each_sample_once_in_a_new_order():
    x, y = sign_of_sum(30)
    spy = Spy()
    trainer = Trainer(Sequential(spy, *classifier()))
    trainer.fit(x, y, epochs=2, batch_size=7, progress=False)
    assert [batch.shape[1] for batch in spy.seen] == [7, 7, 7, 7, 2] * 2
    first, second = (np.concatenate(spy.seen[k : k + 5], axis=1)[0, :, 0] for k in (0, 5))
    given = x[:, 0, 0]
    assert not np.array_equal(first, given) and not np.array_equal(first, second)
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), np.sort(given))


def test_same_seed_same_result():
    x, y = sign_of_sum(40)

    def train(rng):
        model = Sequential(LSTM(1, 6, 2, dropout=0.3, rng=1), LastStep(), Dropout(0.2, rng=2), Linear(6, 2, rng=3))
        trainer = Trainer(model, rng=rng)
        return trainer.model, numbers(trainer.fit(x, y, epochs=2, batch_size=8, progress=False))

    (model, history), (same, same_history), (generator, _), (_other, other_history) = (
        train(rng) for rng in (7, 7, np.random.default_rng(7), 8)
    )
    assert history == same_history
    assert_same_params(model, same)
    assert_same_params(model, generator)
    assert history != other_history


def test_layouts_give_the_same_numbers():
    x, y = echo(30)
    histories = []
    for batch_first in (False, True):
        loss = functools.partial(losses.cross_entropy, reduction="sequence")
        trainer = Trainer(tagger(batch_first=batch_first, dtype=np.float64), loss)
        histories.append(numbers(trainer.fit(x, y, epochs=2, batch_size=8, validation_data=(x, y), progress=False)))
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-9, err_msg=name)


def test_sequence_loss_sums_over_time():
    x, y = echo(12, T=9)
    y[:, 0] = 1
    model = tagger()
    mean = Trainer(model).evaluate(x, y)
    total = Trainer(model, functools.partial(losses.cross_entropy, reduction="sequence")).evaluate(x, y)
    np.testing.assert_allclose(total["loss"], 9 * mean["loss"], rtol=1e-6)
    assert total["accuracy"] == mean["accuracy"]


def test_model_without_a_layout():
    """Embedding and Linear alone read tokens (N, T) as they are; an MLP reads (N, D)."""
    x = np.random.default_rng(0).integers(0, 3, (60, 5))
    trainer = Trainer(Sequential(Embedding(3, 4, rng=0), Linear(4, 3, rng=1)), optimizer=optim.Adam(lr=5e-2))
    trainer.fit(x, (x + 1) % 3, epochs=10, batch_size=10, progress=False)
    assert trainer.evaluate(x, (x + 1) % 3)["accuracy"] == 1
    assert trainer.predict(x).shape == (60, 5, 3)
    points = np.random.default_rng(1).standard_normal((200, 2)).astype(np.float32)
    labels = (points.prod(axis=1) > 0).astype(int)
    mlp = Sequential(Linear(2, 16, rng=0), Activation("tanh"), Linear(16, 2, rng=1))
    trainer = Trainer(mlp, optimizer=optim.Adam(lr=5e-2))
    trainer.fit(points, labels, epochs=20, batch_size=20, progress=False)
    assert trainer.evaluate(points, labels)["accuracy"] > 0.95


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_evaluate_and_predict_do_not_depend_on_the_batch_size(batch_size):
    x, y = sign_of_sum(50)
    model = classifier()
    trainer = Trainer(model)
    logits = model(x.swapaxes(0, 1))
    np.testing.assert_allclose(trainer.predict(x, batch_size), logits, rtol=1e-5, atol=1e-6)
    scores = trainer.evaluate(x, y, batch_size)
    assert list(scores) == ["loss", "accuracy"]
    np.testing.assert_allclose(scores["loss"], losses.cross_entropy(logits, y)[0], rtol=1e-5)
    np.testing.assert_allclose(scores["accuracy"], (logits.argmax(1) == y).mean(), rtol=1e-12)

    x, y = echo(50)
    y[::2, 3:] = -100  # batches then differ in how many targets count
    model = tagger()
    logits = model(x.T)
    np.testing.assert_allclose(Trainer(model).predict(x, batch_size), logits.swapaxes(0, 1), rtol=1e-5, atol=1e-6)
    scores = Trainer(model).evaluate(x, y, batch_size)
    np.testing.assert_allclose(scores["loss"], losses.cross_entropy(logits, y.T)[0], rtol=1e-5)
    np.testing.assert_allclose(scores["accuracy"], (logits.argmax(2) == y.T)[y.T != -100].mean(), rtol=1e-12)


def test_evaluate_trains_nothing():
    x, y = sign_of_sum(20)
    model = Sequential(LSTM(1, 6, 2, dropout=0.5, rng=1), LastStep(), Dropout(0.5, rng=2), Linear(6, 2, rng=3))
    before = model.state_dict()
    trainer = Trainer(model)
    assert trainer.evaluate(x, y) == trainer.evaluate(x, y)
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, before[name])


def test_batches_without_a_target_are_passed_over():
    x, y = echo(6)
    y[3] = -100
    trainer = Trainer(tagger())
    history = trainer.fit(x, y, epochs=1, batch_size=1, shuffle=False, progress=False)
    assert trainer.optimizer.steps == 5 and math.isfinite(history["loss"][0])
    assert math.isnan(trainer.evaluate(x[3:4], y[3:4])["loss"])


# --- When numbers go wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_training(value):
    x, _y = sign_of_sum(24)
    totals = x.sum(axis=1)
    trainer = Trainer(Sequential(GRU(1, 4, rng=0), LastStep(), Linear(4, 1, rng=0)), loss="mse")
    trainer.fit(x, totals, epochs=1, batch_size=8, shuffle=False, progress=False)
    trainer.fit(x[:8], totals[:8], epochs=1, batch_size=8, shuffle=False, progress=False)
    totals[10] = value
    # The same up to the bad batch, which has one update of the first eight samples ahead of it.
    expected = Trainer(Sequential(GRU(1, 4, rng=0), LastStep(), Linear(4, 1, rng=0)), loss="mse")
    good = x.sum(axis=1)
    expected.fit(x, good, epochs=1, batch_size=8, shuffle=False, progress=False)
    for _ in range(2):
        expected.fit(x[:8], good[:8], epochs=1, batch_size=8, shuffle=False, progress=False)
    message = f"^loss: expected a finite number, got {value} in epoch 3/4, batch 2/3$"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(x, totals, epochs=2, batch_size=8, shuffle=False, progress=False)
    assert_same_params(trainer.model, expected.model)
    assert trainer.history.epochs == 2


def test_a_gradient_that_is_not_finite_stops_training():
    def loss(outputs, targets):
        return 1.0, np.full_like(outputs, np.nan)

    trainer = Trainer(classifier(), loss=loss, clip_norm=1.0)
    before = trainer.model.state_dict()
    message = "^gradient: expected a finite norm, got nan in epoch 1/1, batch 1/2$"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(*sign_of_sum(10), batch_size=5, progress=False)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(param, before[name])


# --- History, progress ------------------------------------------------------------------------------------------------


def test_history():
    x, y = sign_of_sum(20)
    trainer = Trainer(classifier())
    history = trainer.fit(x, y, epochs=2, batch_size=8, progress=False)
    assert history == trainer.history and history.epochs == 2
    last = trainer.fit(x, y, epochs=1, batch_size=8, validation_data=(x, y), progress=False)
    history = trainer.history
    assert last.epochs == 1 and {name: values[2:] for name, values in history.items()} == last
    assert history.epochs == 3
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", *TIMES}
    assert all(len(values) == 3 for values in history.values())
    assert history["val_loss"][:2] == [None, None]
    assert history["val_loss"][2] == trainer.evaluate(x, y)["loss"]
    assert "val_loss" not in history.epoch(0) and history.epoch(-1)["val_loss"] == history["val_loss"][2]
    assert json.loads(history.to_json()) == json.loads(json.dumps(history)) == history
    for seconds, rate in zip(history["seconds"], history["samples_per_second"]):
        assert 0 < seconds < 10
        np.testing.assert_allclose(seconds * rate, 20)
    assert History().epochs == 0


def test_progress_bar_is_on_stderr_or_off(capfd):
    x, y = sign_of_sum(20)
    trainer = Trainer(classifier())
    trainer.fit(x, y, epochs=2, batch_size=8, progress=False)
    assert capfd.readouterr() == ("", "")
    trainer.fit(x, y, epochs=2, batch_size=8, validation_data=(x, y))
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 3/4" in err and "epoch 4/4" in err and "3/3" in err and "val_accuracy" in err


# --- Objective --------------------------------------------------------------------------------------------------------


def test_accuracy():
    logits = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert accuracy(logits, np.array([1, 0, 0, 0])) == 0.75
    assert accuracy(logits[:, :1] - 2, np.array([[0], [1], [1], [1]])) == 0.75
    with pytest.raises(ValueError, match=r"^targets: expected shape \(4,\) or \(4, 2\), got \(3,\)$"):
        accuracy(logits, np.array([1, 0, 0]))


def test_objective_errors():
    for make, error, message in [
        (lambda: Objective("hinge"), ValueError, "loss: expected one of cross_entropy, .*, got 'hinge'"),
        (lambda: Objective(3), TypeError, "loss: expected a name or a callable, got int"),
        (
            lambda: Objective("mse", ["hits"]),
            ValueError,
            "metrics: expected a function or one of accuracy, .*, got 'hits'",
        ),
        (lambda: Objective("mse", [3]), TypeError, "metrics: expected names and functions, got 3"),
    ]:
        with pytest.raises(error, match=f"^{message}$"):
            make()
    objective = Objective(functools.partial(losses.mse, reduction="none"))
    with pytest.raises(ValueError, match=r"^loss: expected one number, got an array of shape \(3,\)$"):
        objective(np.zeros(3), np.zeros(3), 3)


# --- Bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda t, x, y: t.fit(x, y[:-1]),
            ValueError,
            "y: expected one target per sample of x, 6 of them, got shape (5,)",
        ),
        (lambda t, x, y: t.fit(x, None), ValueError, "y: expected one target per sample of x, got None"),
        (lambda t, x, y: t.evaluate(x, None), ValueError, "y: expected one target per sample of x, got None"),
        (
            lambda t, x, y: t.fit(x[:0], y[:0]),
            ValueError,
            "x: expected samples first, at least one, got shape (0, 8, 1)",
        ),
        (lambda t, x, y: t.fit(x, y, epochs=0), ValueError, "epochs: expected a whole number of at least 1, got 0"),
        (
            lambda t, x, y: t.fit(x, y, batch_size=0),
            ValueError,
            "batch_size: expected a whole number of at least 1, got 0",
        ),
        (lambda t, x, y: t.fit(x, y, validation_data=x), TypeError, "validation_data: expected a tuple (x, y)"),
        (
            lambda t, x, y: t.fit(x, y, validation_data=(x, y[:2])),
            ValueError,
            "validation_data: y: expected one target per sample of x, 6 of them, got shape (2,)",
        ),
        (
            lambda t, x, y: t.evaluate(x, y, batch_size=-1),
            ValueError,
            "batch_size: expected a whole number of at least 1, got -1",
        ),
        (
            lambda t, x, y: t.evaluate(x[:0], y[:0]),
            ValueError,
            "x: expected samples first, at least one, got shape (0, 8, 1)",
        ),
        (lambda t, x, y: t.fit(x, y + 5), ValueError, "targets: expected classes 0..1 (or ignore_index -100), got "),
        (
            lambda t, x, y: t.fit(x, y[:, None]),
            ValueError,
            "targets: expected shape (6,) for logits of shape (6, 2), got (6, 1)",
        ),
        (lambda t, x, y: t.fit(x[..., [0, 0]], y), ValueError, "x: expected shape (T, N, 1) or (T, 1), got (8, 6, 2)"),
        (lambda t, x, y: t.predict(x.astype(complex)), TypeError, "x: expected real numbers, got complex128"),
    ],
)
def test_bad_data(call, error, message):
    with pytest.raises(error) as caught:
        call(Trainer(classifier()), *sign_of_sum(6))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"model": np.tanh}, TypeError, "model: expected a layer such as Sequential, got ufunc"),
        (
            {"model": LSTM(1, 2)},
            TypeError,
            "model: expected a layer that returns one array, got LSTM; put it in a Sequential",
        ),
        ({"model": TreeLSTM(1, 2)}, TypeError, "model: expected layers that read arrays, got TreeLSTM"),
        ({"loss": "hinge"}, ValueError, "loss: expected one of "),
        ({"optimizer": "lion"}, ValueError, "optimizer: expected one of "),
        ({"optimizer": 1e-3}, TypeError, "optimizer: expected a name or an Optimizer, got float"),
        ({"clip_norm": 0}, ValueError, "clip_norm: expected None or a number above 0, got 0"),
        ({"clip_value": math.nan}, ValueError, "clip_value: expected None or a number above 0, got nan"),
        ({"clip_norm": "5"}, ValueError, "clip_norm: expected None or a number above 0, got '5'"),
        ({"callbacks": EarlyStopping()}, TypeError, "callbacks: expected a list of Callback objects, got "),
        ({"callbacks": [print]}, TypeError, "callbacks: expected Callback objects, got builtin"),
        ({"metrics": "accuracy"}, TypeError, "metrics: expected None or a list of names and functions, got "),
        ({"rng": "a"}, TypeError, "rng: expected None, a whole number or a numpy Generator, got 'a'"),
    ],
)
def test_bad_constructor_arguments(options, error, message):
    with pytest.raises(error) as caught:
        Trainer(**{"model": classifier()} | options)
    assert str(caught.value).startswith(message)


def test_the_optimizer_is_not_shared():
    assert Trainer(classifier()).optimizer is not Trainer(classifier()).optimizer
    assert Trainer(classifier()).optimizer.lr == 1e-3
    assert isinstance(Trainer(classifier(), optimizer="rmsprop").optimizer, optim.RMSprop)


def test_names_that_type_checkers_know_are_those_that_there_are():
    assert set(get_args(LossName)) == set(losses.registry.LOSSES)
    assert set(get_args(OptimizerName)) == set(optim.rules._OPTIMIZERS)
    assert set(get_args(MetricName)) == set(_METRICS)


def test_the_model_cannot_be_exchanged_unnoticed():
    trainer = Trainer(classifier())
    with pytest.raises(AttributeError):
        trainer.model = classifier()
