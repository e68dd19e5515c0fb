"""The trainer on long sequences: truncated backpropagation, carried states, online learning.

Letters: N samples, T time steps, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close

from fastrnn import losses, optim
from fastrnn.layers import GRU, LSTM, RNN, Activation, Embedding, LastStep, Linear, MeanPool, Module, Sequential
from fastrnn.layers.module import Time
from fastrnn.trainer import Trainer

N, T, D, H, M = 3, 23, 2, 5, 3


def stack(cell: Any = LSTM, *, pool: Any = None, batch_first: bool = True, dtype: Any = np.float64) -> Sequential:
    """Two recurrent layers in different depths of Sequential, and an output at each step or one for the sequence."""
    options = {"batch_first": batch_first, "dtype": dtype}
    return Sequential(
        Sequential(cell(D, H, 2, rng=1, **options), Activation("tanh")),
        cell(H, H, rng=2, **options),
        Sequential(Linear(H, 4, dtype=dtype, rng=3), *([pool(batch_first=batch_first)] if pool else [])),
        Linear(4, M, dtype=dtype, rng=4),
    )


def series(n: int = N, t: int = T, *, classes: bool = True, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (n, t, D) and y (n, t), or (n, t, M) to regress."""
    rng = np.random.default_rng([seed, n, t])
    x = rng.standard_normal((n, t, D))
    return x, rng.integers(0, M, (n, t)) if classes else rng.standard_normal((n, t, M))


def assert_same_gradients(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(got) == list(expected)
    for name, grad in expected.items():
        assert_gradient_close(got[name], grad, "float64", name)


def assert_params_close(a: Module, b: Module, tolerance: float = 1e-12) -> None:
    for name, param in a.params.items():
        np.testing.assert_allclose(param, b.params[name], rtol=0, atol=tolerance, err_msg=name)


class Gradients:
    """An optimiser's stand-in: notes the gradients of each update and changes nothing."""

    def __init__(self, trainer: Trainer) -> None:
        self.seen: list[dict[str, np.ndarray]] = []
        trainer._update = lambda: self.seen.append({name: grad.copy() for name, grad in trainer.model.grads.items()})


# --- Truncated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tbptt", [T, T + 5, (T, 2 * T)])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
def test_truncation_behind_the_end_is_full_backpropagation(tbptt, batch_first):
    x, y = series()
    full, truncated = (Trainer(stack(batch_first=batch_first), tbptt=k) for k in (None, tbptt))
    histories = [trainer.fit(x, y, epochs=3, batch_size=2, progress=False) for trainer in (full, truncated)]
    assert_params_close(full.model, truncated.model)
    np.testing.assert_allclose(*(history["loss"] for history in histories), rtol=1e-12)


@pytest.mark.parametrize("k", [5, 8])
def test_chunks_like_torch_with_detach(torch, k):
    """An update after each chunk, the state carried on detached."""
    x, y = series()
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(D, H, 2, batch_first=True).double()
    linear = torch.nn.Linear(H, M).double()
    model = Sequential(LSTM(D, H, 2, batch_first=True, dtype="f8"), Linear(H, M, dtype="f8"))
    for layer, twin in zip(model, (lstm, linear)):
        layer.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    trainer = Trainer(model, optimizer=optim.SGD(lr=0.5), tbptt=k)
    history = trainer.fit(x, y, batch_size=N, shuffle=False, progress=False)
    sgd, state, total = torch.optim.SGD([*lstm.parameters(), *linear.parameters()], lr=0.5), None, 0.0
    for start in range(0, T, k):
        output, state = lstm(torch.tensor(x[:, start : start + k]), state)
        targets = torch.tensor(y[:, start : start + k]).flatten()
        loss = torch.nn.functional.cross_entropy(linear(output).flatten(0, 1), targets)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        state = tuple(part.detach() for part in state)
        total += loss.item() * len(targets)
    assert trainer.optimizer.steps == -(-T // k)
    np.testing.assert_allclose(history["loss"], [total / y.size], rtol=1e-10)
    for layer, twin in zip(model, (lstm, linear)):
        for name, value in twin.state_dict().items():
            np.testing.assert_allclose(layer.params[name], value.numpy(), rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("k1, k2", [(1, 1), (1, 4), (2, 3), (3, 3), (3, 7), (4, 8), (5, 30), (T, T), (30, 40)])
@pytest.mark.parametrize("cell", [RNN, LSTM])
def test_windows_by_hand(cell, k1, k2):
    """Without updates in between: each gradient is that of the last k1 steps' loss, back to k2 steps before the end."""
    x, y = series(classes=False)
    trainer = Trainer(stack(cell, batch_first=False), loss="mse", tbptt=(k1, k2))
    gradients = Gradients(trainer)
    trainer.fit(x, y, batch_size=N, shuffle=False, progress=False)
    model, ends = stack(cell, batch_first=False), range(k1, T + k1, k1)
    assert len(gradients.seen) == len(ends)
    x, y = x.swapaxes(0, 1), y.swapaxes(0, 1)
    for end, got in zip(ends, gradients.seen):
        start, new = max(0, end - k2), slice(end - k1, min(end, T))
        _, state = model.run(x[:start]) if start else (None, None)
        outputs, _ = model.run(x[start:end], state, training=True)
        dy = np.zeros_like(outputs)
        count = new.stop - new.start
        dy[-count:] = losses.mse(outputs[-count:], y[new])[1]
        model.zero_grad()
        model.run_backward(dy)
        assert_same_gradients(got, model.grads)


def test_windows_run_again_under_the_weights_that_the_updates_left():
    x, y = series()
    trainer = Trainer(stack(GRU), optimizer=optim.SGD(lr=0.5), tbptt=(2, 5))
    trainer.fit(x, y, batch_size=N, shuffle=False, progress=False)
    model, sgd = stack(GRU), optim.SGD(lr=0.5)
    state, begin = None, 0  # the state before step `begin`
    for done in range(0, T, 2):
        end = min(done + 2, T)
        outputs, _ = model.run(x[:, begin:end], state, training=True)
        new = end - done
        dy = np.zeros_like(outputs)
        dy[:, -new:] = losses.cross_entropy(outputs[:, -new:], y[:, done:end])[1]
        model.zero_grad()
        model.run_backward(dy)
        following = max(0, done + 4 - 5)
        if following > begin:
            _, state = model.run(x[:, begin:following], state)
            begin = following
        sgd.step(model.params, model.grads)
    assert_params_close(trainer.model, model)


def test_chunks_without_a_target_are_passed_over_and_carry_the_state():
    x, y = series()
    y[:, 5:10] = -100
    trainer = Trainer(stack(), tbptt=5)
    gradients = Gradients(trainer)
    trainer.fit(x, y, batch_size=N, progress=False)
    assert len(gradients.seen) == 4


def test_a_truncated_network_still_learns_what_lies_within_the_window():
    tokens = np.random.default_rng(0).integers(0, 3, (20, 200))
    y = np.full_like(tokens, -100)
    y[:, 2:] = tokens[:, :-2]
    model = Sequential(Embedding(3, 6, rng=0), GRU(6, 16, rng=1), Linear(16, 3, rng=2))
    trainer = Trainer(model, optimizer=optim.Adam(lr=1e-2), tbptt=20)
    history = trainer.fit(tokens, y, epochs=10, batch_size=10, progress=False)
    assert trainer.optimizer.steps == 10 * 2 * 10
    assert history["accuracy"][-1] > 0.95


# --- Carried states ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"tbptt": 3}, {"checkpoint_every": 2}], ids=["plain", "tbptt", "segments"])
def test_stateful_batches_are_one_long_sequence(options):
    """x (2 * 4, 6): batches of 2 whose rows go on in the next batch, as one sequence (2, 24) in chunks of 6."""
    x, y = series(2, 24)
    pieces = [np.concatenate(np.split(a, 4, axis=1)) for a in (x, y)]
    stateful = Trainer(stack(), optimizer=optim.SGD(lr=0.5), stateful=True, **options)
    chunks = Trainer(stack(), optimizer=optim.SGD(lr=0.5), tbptt=options.get("tbptt", 6))
    histories = [
        stateful.fit(*pieces, epochs=3, batch_size=2, progress=False),
        chunks.fit(x, y, epochs=3, batch_size=2, shuffle=False, progress=False),
    ]
    assert_params_close(stateful.model, chunks.model)
    np.testing.assert_allclose(*(history["loss"] for history in histories), rtol=1e-12)


def test_a_stateful_fit_goes_on_where_the_last_one_ended():
    x, y = series(4, 6)
    split, joint = (Trainer(stack(), stateful=True) for _ in range(2))
    split.fit(x[:2], y[:2], batch_size=2, progress=False)
    split.fit(x[2:], y[2:], batch_size=2, progress=False)
    joint.fit(x, y, batch_size=2, progress=False)
    assert_params_close(split.model, joint.model)
    split.reset_states()
    split.fit(x, y, batch_size=2, progress=False)
    joint.fit(x, y, batch_size=2, progress=False)
    assert np.abs(split.model.params["3.weight"] - joint.model.params["3.weight"]).max() > 1e-6


def test_stateful_evaluate_and_predict_have_a_state_of_their_own():
    x, y = series(2, 24)
    pieces = [np.concatenate(np.split(a, 4, axis=1)) for a in (x, y)]
    stateful, plain = Trainer(stack(), stateful=True), Trainer(stack())
    expected = plain.predict(x)
    for _ in range(2):
        outputs = stateful.predict(pieces[0], 2)
        np.testing.assert_allclose(np.concatenate(np.split(outputs, 4), axis=1), expected, rtol=0, atol=1e-12)
    scores = stateful.evaluate(*pieces, batch_size=2)
    for name, value in plain.evaluate(x, y).items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-12)
    history = stateful.fit(*pieces, batch_size=2, validation_data=pieces, progress=False)
    assert history["val_loss"][0] == stateful.evaluate(*pieces)["loss"] == stateful.evaluate(*pieces, 2)["loss"]


# --- Online -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
@pytest.mark.parametrize("pool", [None, LastStep], ids=["steps", "last"])
def test_partial_fit_is_the_loop_one_would_write(window, batch_first, pool):
    x, y = series(N, 12)
    trainer = Trainer(stack(pool=pool, batch_first=batch_first), optimizer=optim.SGD(lr=0.5), window=window)
    model, sgd = stack(), optim.SGD(lr=0.5)
    state = None
    for t in range(12):
        logs = trainer.partial_fit(x[:, t], y[:, t])
        begin = max(0, t + 1 - window)
        outputs, _ = model.run(x[:, begin : t + 1], state, training=True)
        loss, dlast = losses.cross_entropy(outputs[:, -1], y[:, t])
        doutputs = np.zeros_like(outputs)
        doutputs[:, -1] = dlast
        model.zero_grad()
        model.run_backward(doutputs)
        if t + 1 >= window:
            _, state = model.run(x[:, begin : begin + 1], state)
        sgd.step(model.params, model.grads)
        np.testing.assert_allclose(logs["loss"], loss, rtol=1e-10)
        assert logs["accuracy"] == (outputs[:, -1].argmax(-1) == y[:, t]).mean()
    for param, expected in zip(trainer.model.params.values(), model.params.values()):
        np.testing.assert_allclose(param, expected, rtol=0, atol=1e-12)


def test_partial_fit_with_a_window_of_all_steps_is_truncation_with_one_new_step():
    x, y = series(1, 10)
    online = Trainer(stack(), window=4)
    for x_t, y_t in zip(x[0], y[0]):
        online.partial_fit(x_t, y_t)
    truncated = Trainer(stack(), tbptt=(1, 4))
    truncated.fit(x, y, progress=False)
    assert_params_close(online.model, truncated.model)
    assert online.optimizer.steps == truncated.optimizer.steps == 10


def test_partial_fit_learns_from_a_stream_of_tokens():
    """Each target is the token before; single tokens and several streams side by side."""
    for streams in (None, 4):
        model = Sequential(Embedding(3, 6, rng=0), GRU(6, 12, rng=1), Linear(12, 3, rng=2))
        trainer = Trainer(model, optimizer=optim.Adam(lr=1e-2), window=3)
        tokens = np.random.default_rng(0).integers(0, 3, 800 if streams is None else (300, streams))
        right = [trainer.partial_fit(tokens[t], tokens[t - 1])["accuracy"] for t in range(1, len(tokens))]
        assert np.mean(right[-100:]) > 0.95


def test_partial_fit_without_a_target_only_carries_on():
    x, y = series(1, 4)
    trainer, other = Trainer(stack(), window=2), Trainer(stack(), window=2)
    for each, first in ((trainer, -100), (other, None)):
        if first is not None:
            assert np.isnan(each.partial_fit(x[0, 0], first)["loss"]) and each.optimizer.steps == 0
        each.partial_fit(x[0, 1], y[0, 1])
    assert np.abs(trainer.model.grads["0.0.weight_hh_l0"] - other.model.grads["0.0.weight_hh_l0"]).max() > 1e-9


def test_fit_and_partial_fit_share_the_state():
    x, y = series(1, 20)
    trainer, whole = (Trainer(stack(), optimizer=optim.SGD(lr=0.0), stateful=True, window=3) for _ in range(2))
    trainer.fit(x[:, :8], y[:, :8], progress=False, batch_size=1)
    for t in range(8, 13):
        trainer.partial_fit(x[0, t], y[0, t])
    history = trainer.fit(x[:, 13:], y[:, 13:], progress=False, batch_size=1)
    whole.fit(x[:, :13], y[:, :13], progress=False, batch_size=1)
    expected = whole.fit(x[:, 13:], y[:, 13:], progress=False, batch_size=1)
    np.testing.assert_allclose(history["loss"][-1], expected["loss"][-1], rtol=1e-12)


# --- Saving -----------------------------------------------------------------------------------------------------------


def test_everything_carried_is_in_the_file(tmp_path):
    x, y = series(2, 9)
    trainer = Trainer(stack(), stateful=True, tbptt=(2, 4), window=3)
    trainer.fit(x, y, batch_size=2, progress=False)
    for t in range(5):
        trainer.partial_fit(x[:, t], y[:, t])
    trainer.save(tmp_path / "trainer")
    again = Trainer.load(tmp_path / "trainer")
    assert (again.stateful, again.tbptt, again.checkpoint_every) == (True, (2, 4), None)
    for each in (trainer, again):
        each.partial_fit(x[:, 5], y[:, 5])
        each.fit(x, y, batch_size=2, progress=False)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(param, again.model.params[name], err_msg=name)

    Trainer(stack(), checkpoint_every="sqrt").save(tmp_path / "fresh")
    fresh = Trainer.load(tmp_path / "fresh")
    assert (fresh.stateful, fresh.tbptt, fresh.checkpoint_every) == (False, None, "sqrt")
    fresh.partial_fit(x[:, 0], y[:, 0])


# --- Errors -----------------------------------------------------------------------------------------------------------


class Blur(Module):
    """Looks at neighbouring steps, and away with time if told so."""

    batch_first = True

    def __init__(self, keeps_time: bool) -> None:
        super().__init__()
        self.time = Time.PER_STEP if keeps_time else Time.REDUCES


@pytest.mark.parametrize(
    "layers, options, message",
    [
        *(
            (
                [LSTM(D, H, bidirectional=True)],
                {name: value},
                f"{name}: expected layers that read forward in time, got a bidirectional LSTM, whose reverse direction "
                "begins at the end of the whole sequence",
            )
            for name, value in [("stateful", True), ("tbptt", 3), ("checkpoint_every", 3)]
        ),
        (
            [LSTM(D, H, batch_first=True), Blur(True)],
            {"tbptt": 3},
            "tbptt: expected layers that carry a state from step to step, got Blur, which has none",
        ),
        (
            [LSTM(D, H, batch_first=True), Blur(False)],
            {"checkpoint_every": 3},
            "checkpoint_every: expected a pooling layer that can merge segments, such as LastStep, got Blur",
        ),
        (
            [LSTM(D, H), LastStep()],
            {"tbptt": 3},
            "tbptt: expected a model with an output at every step, got one that does away with time; checkpoint_every "
            "trains it in bounded memory",
        ),
        (
            [Linear(D, H)],
            {"stateful": True},
            "stateful: expected a model with a layer that has a state, got one without",
        ),
        (
            [Linear(D, H)],
            {"checkpoint_every": 2},
            "checkpoint_every: expected a model with a layer that has a state, got one without",
        ),
        (
            [LSTM(D, H)],
            {"tbptt": 3, "checkpoint_every": 3},
            "checkpoint_every: expected None beside tbptt, which bounds the memory already",
        ),
        (
            [LSTM(D, H)],
            {"tbptt": (3, 2)},
            "tbptt: expected (k1, k2) with k2 of at least k1, so that each step counts, got (3, 2)",
        ),
        ([LSTM(D, H)], {"tbptt": (1, 2, 3)}, "tbptt: expected k or (k1, k2), got (1, 2, 3)"),
        ([LSTM(D, H)], {"tbptt": 0}, "tbptt: expected a whole number of at least 1, got 0"),
        ([LSTM(D, H)], {"checkpoint_every": 0}, "checkpoint_every: expected a whole number of at least 1, got 0"),
        (
            [LSTM(D, H)],
            {"checkpoint_every": "log"},
            "checkpoint_every: expected a number of steps or 'sqrt', got 'log'",
        ),
        ([LSTM(D, H)], {"window": 0}, "window: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_constructor_arguments(layers, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Trainer(Sequential(*layers), **options)


@pytest.mark.parametrize(
    "options, call, message",
    [
        (
            {"stateful": True},
            lambda t, x, y: t.fit(x, y, batch_size=2, progress=False),
            "x: expected whole batches of 2, as sample i of one goes on in the next, got 3 samples",
        ),
        (
            {"stateful": True},
            lambda t, x, y: t.predict(x, 2),
            "x: expected whole batches of 2, as sample i of one goes on in the next, got 3 samples",
        ),
        (
            {"stateful": True},
            lambda t, x, y: t.fit(x, y, batch_size=3, shuffle=True),
            "shuffle, bucket: expected False, as a stateful trainer needs the order of the data",
        ),
        (
            {"stateful": True},
            lambda t, x, y: [t.fit(x, y, batch_size=size, progress=False) for size in (3, 1)],
            "batch_size: expected 3 like the state that is carried on, got 1; reset_states() begins anew",
        ),
        (
            {"tbptt": 3},
            lambda t, x, y: t.fit(x, y[:, 0]),
            "y: expected a target at each step, (3, 23, ...), got shape (3,)",
        ),
        (
            {"tbptt": 3},
            lambda t, x, y: t.fit(x[:, 0, 0], y),
            "x: expected sequences (N, T, D), got shape (3,); write x[None] for one series, x[:, None] for samples of "
            "one step, x[..., None] for series of one feature",
        ),
        (
            {},
            lambda t, x, y: t.partial_fit(x, y),
            "x_t: expected one step, (D,) or (N, D), or tokens, a number or (N,), got shape (3, 23, 2)",
        ),
        (
            {},
            lambda t, x, y: t.partial_fit(x[:, 0], y[:2, 0]),
            "y_t: expected one target per sample of x_t, 3 of them, got shape (2,)",
        ),
        (
            {"window": 2},
            lambda t, x, y: [t.partial_fit(x[:n, 0], y[:n, 0]) for n in (3, 2)],
            "x_t: expected shape (3, 2) as before, got (2, 2); reset_states() begins anew",
        ),
        (
            {},
            lambda t, x, y: [t.partial_fit(x[:n, 0], y[:n, 0]) for n in (3, 2)],
            "x_t: expected shape (3, ...) as before, got (2, 2); reset_states() begins anew",
        ),
    ],
)
def test_bad_data(options, call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(Trainer(stack(), **options), *series())


def test_a_model_that_is_fed_with_targets_is_not_run_in_segments():
    class Fed(LSTM):
        takes_targets = True

    with pytest.raises(
        ValueError, match="^checkpoint_every: expected a model that is not fed with targets in training"
    ):
        Trainer(Sequential(Fed(D, H)), checkpoint_every=3)


def test_models_that_cannot_learn_online():
    for layers, message in [
        (
            [LSTM(D, H, bidirectional=True)],
            "partial_fit: expected layers that read forward in time, got a bidirectional",
        ),
        ([LSTM(D, H), MeanPool()], "partial_fit: expected a model with an output at each step, got one with MeanPool"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            Trainer(Sequential(*layers)).partial_fit(np.zeros(D, np.float32), 0)


def test_a_bad_sample_leaves_the_stream_as_it_was():
    x, y = series(1, 4)
    clean, disturbed = (Trainer(stack(), window=2) for _ in range(2))
    for t in range(4):
        clean.partial_fit(x[0, t], y[0, t])
        disturbed.partial_fit(x[0, t], y[0, t])
        with pytest.raises(ValueError, match="^targets: expected classes 0..2 "):
            disturbed.partial_fit(x[0, t], M)
    assert_params_close(clean.model, disturbed.model, 0)


@pytest.mark.parametrize("options", [{"tbptt": 5}, {"checkpoint_every": 5}])
def test_a_loss_that_is_not_finite_stops_training(options):
    x, y = series(classes=False)
    y[1, 12] = np.nan
    trainer = Trainer(stack(), loss="mse", optimizer=optim.SGD(lr=0.1), **options)
    with pytest.raises(FloatingPointError, match="^loss: expected a finite number, got nan in epoch 1/1, batch 1/1$"):
        trainer.fit(x, y, progress=False)
    assert trainer.optimizer.steps == (2 if "tbptt" in options else 0)
