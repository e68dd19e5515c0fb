"""Checkpointed backpropagation: segments of a sequence, run again one by one, give the gradients of the whole.

Letters: N samples, T time steps, D input size, H hidden size, M outputs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from test_bptt import D, H, M, N, T, assert_params_close, assert_same_gradients, series, stack

from fastrnn import losses
from fastrnn.layers import GRU, LSTM, RNN, Dropout, LastStep, Linear, MaxPool, MeanPool, Sequential
from fastrnn.trainer import Trainer
from fastrnn.trainer.bptt import BPTT
from fastrnn.trainer.checkpointing import CheckpointedBPTT, cut
from fastrnn.trainer.data import Batch, Data
from fastrnn.trainer.objective import Objective


def take(items: Any) -> tuple[dict[str, Any], bool]:
    (item,) = items
    return item


def whole_and_segments(make: Any, loss: Any, x: Any, y: Any, every: int | str, **options: Any) -> list[Any]:
    """(values, gradients, state after) of full backpropagation and of checkpointed."""
    results = []
    for k in (None, every):
        model = make()
        propagation = BPTT(model, Objective(loss))
        batch = Batch(Data(x, y, steps=model.time.in_y, **options), slice(0, len(x)))
        items = propagation.whole(batch) if k is None else CheckpointedBPTT(propagation, k).gradients(batch)
        values, learns = take(items)
        results.append((values, learns, model.grads, propagation.state))
    return results


def assert_equal_results(whole: Any, segments: Any) -> None:
    assert list(whole[0]) == list(segments[0]) and whole[1] == segments[1]
    for name, tally in whole[0].items():
        np.testing.assert_allclose(segments[0][name].result(), tally.result(), rtol=1e-12, err_msg=name)
        assert segments[0][name].weight == tally.weight, name
        assert segments[0][name].count == tally.count, name
    assert_same_gradients(segments[2], whole[2])
    assert_states_close(segments[3], whole[3])


def assert_states_close(a: Any, b: Any) -> None:
    if isinstance(b, tuple):
        assert isinstance(a, tuple) and len(a) == len(b)
        for one, other in zip(a, b):
            assert_states_close(one, other)
    elif b is None:
        assert a is None
    else:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


every_k = pytest.mark.parametrize("every", [1, 5, 7, T - 1, T, 50])


@every_k
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
@pytest.mark.parametrize("cell", [RNN, GRU, LSTM])
def test_segments_give_the_gradients_of_full_backpropagation(cell, batch_first, every):
    x, y = series()
    y[0, :9] = -100  # weights then differ from segment to segment
    make = functools.partial(stack, cell, batch_first=batch_first)
    assert_equal_results(*whole_and_segments(make, "cross_entropy", x, y, every))


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_a_learned_initial_state_gets_its_gradient_from_the_first_segment(cell):
    x, y = series()

    def make():
        model = Sequential(cell(D, H, 2, learn_initial_state=True, dtype="f8", rng=1), Linear(H, M, dtype="f8", rng=2))
        model.params["0.initial_h"][...] = np.random.default_rng(0).standard_normal((2, H))
        return model

    results = whole_and_segments(make, "cross_entropy", x, y, 5)
    assert np.abs(results[0][2]["0.initial_h"]).max() > 1e-3
    assert_equal_results(*results)


def log_cosh(outputs, targets):
    """A loss of the user's own, a mean over all steps."""
    difference = outputs - targets
    return float(np.log(np.cosh(difference)).mean()), np.tanh(difference) / difference.size


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "bce",
        functools.partial(losses.mse, reduction="sum"),
        functools.partial(losses.mse, reduction="sequence"),
        log_cosh,
    ],
    ids=["mse", "bce", "sum", "sequence", "own"],
)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
def test_segments_with_every_loss(loss, batch_first):
    x, y = series(classes=False)
    y = (y > 0).astype(float) if loss == "bce" else y
    assert_equal_results(*whole_and_segments(lambda: stack(batch_first=batch_first), loss, x, y, 6))


@every_k
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
@pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])
def test_segments_with_one_output_for_the_sequence(pool, batch_first, every):
    x, y = series()
    make = functools.partial(stack, pool=pool, batch_first=batch_first)
    assert_equal_results(*whole_and_segments(make, "cross_entropy", x, y[:, 0], every))


@pytest.mark.parametrize("pool", [MaxPool, MeanPool, LastStep])
def test_a_pool_at_the_end_and_equal_maxima(pool):
    """Without recurrent weights the mirrored sequence has each value twice, in different company."""
    x, _ = series()
    x = np.concatenate([x, x[:, ::-1]], axis=1)

    def make():
        model = Sequential(RNN(D, H, batch_first=True, dtype="f8", rng=1), pool(batch_first=True))
        model.params["0.weight_hh_l0"][...] = 0
        return model

    y = np.random.default_rng(0).standard_normal((N, H))
    assert_equal_results(*whole_and_segments(make, "mse", x, y, 4))


def test_nothing_to_learn_in_segments():
    x, y = series()
    for every in (None, 4):
        trainer = Trainer(stack(), checkpoint_every=every)
        history = trainer.fit(x, np.full_like(y, -100), batch_size=N, progress=False)
        assert trainer.optimizer.steps == 0 and np.isnan(history["loss"][0])


def test_segments_grow_as_the_root_of_the_sequence():
    assert cut(7, 3) == [(0, 3), (3, 6), (6, 7)] and cut(6, 3) == [(0, 3), (3, 6)] and cut(2, 3) == [(0, 2)]
    for steps in (1, 100, 10_000, 1_000_000):
        segments = cut(steps, "sqrt")
        assert [start for start, _ in segments] == [0, *(stop for _, stop in segments[:-1])] and segments[-1][
            1
        ] == steps
        assert len(segments) <= steps**0.5 and segments[0][1] <= max(256, 4 * steps**0.5)


@pytest.mark.parametrize("pool", [None, LastStep])
def test_training_in_segments_is_training(pool):
    x, y = series(t=600)
    y = y if pool is None else y[:, -1]
    trainers = [Trainer(stack(GRU, pool=pool), checkpoint_every=k, clip_norm=0.1) for k in (None, "sqrt")]
    histories = [trainer.fit(x, y, epochs=3, batch_size=2, progress=False) for trainer in trainers]
    assert_params_close(trainers[0].model, trainers[1].model)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(*(history[name] for history in histories), rtol=1e-12)


@pytest.mark.parametrize("pool", [None, LastStep], ids=["steps", "last"])
def test_dropout_draws_the_same_masks_again(pool):
    """Against finite differences: a mask that differed between the two passes would give another gradient."""
    x, y = series(t=9)
    y = y if pool is None else y[:, -1]

    def make():
        return Sequential(
            GRU(D, H, 2, dropout=0.4, batch_first=True, dtype="f8", rng=1),
            Dropout(0.3, rng=5),
            LSTM(H, 4, batch_first=True, dtype="f8", rng=2),
            *([pool(batch_first=True)] if pool else []),
            Dropout(0.2, rng=6),
            Linear(4, M, dtype="f8", rng=3),
        )

    def run(change: Any = None) -> Any:
        model = make()
        if change:
            name, index, step = change
            model.params[name].flat[index] += step
        propagation = BPTT(model, Objective("cross_entropy"))
        batch = Batch(Data(x, y, steps=model.time.in_y), slice(0, N))
        values, _ = take(CheckpointedBPTT(propagation, 4).gradients(batch))
        return values["loss"].result(), model

    _, model = run()
    for name in ("0.weight_hh_l0", "0.weight_ih_l1", "2.weight_hh_l0"):
        for index in (0, 7, 13):
            up, down = (run((name, index, step))[0] for step in (1e-5, -1e-5))
            np.testing.assert_allclose(model.grads[name].flat[index], (up - down) / 2e-5, rtol=0, atol=1e-9)


def test_as_much_is_drawn_as_in_full_backpropagation():
    """So that masks are the same for a single segment, and the next batch's masks for any number of them."""
    x, y = series()
    made: list[Sequential] = []

    def make():
        made.append(
            Sequential(
                GRU(D, H, 2, dropout=0.4, dtype="f8", rng=1), Dropout(0.3, rng=2), Linear(H, M, dtype="f8", rng=3)
            )
        )
        return made[-1]

    assert_equal_results(*whole_and_segments(make, "cross_entropy", x, y, T))
    whole_and_segments(make, "cross_entropy", x, y, 4)
    states = [{name: rng.bit_generator.state for name, rng in model.generators()} for model in made]
    assert len(states) == 4 and all(state == states[0] for state in states)


def largest_step(outputs, targets):
    """A loss of all steps together, no mean of what single steps give."""
    difference = np.abs(outputs - targets)
    where = np.unravel_index(difference.argmax(), difference.shape)
    gradient = np.zeros_like(outputs)
    gradient[where] = np.sign((outputs - targets)[where])
    return float(difference[where]), gradient


def test_a_loaded_trainer_asks_a_loss_of_the_users_own_about_all_steps(tmp_path):
    x, y = series(classes=False)
    trainer = Trainer(stack(), loss=largest_step, checkpoint_every=5)
    trainer.save(tmp_path / "trainer")
    loaded = Trainer.load(tmp_path / "trainer", loss=largest_step)
    assert loaded.checkpoint_every == 5
    histories = [each.fit(x, y, epochs=2, progress=False) for each in (trainer, loaded)]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert_params_close(trainer.model, loaded.model)
