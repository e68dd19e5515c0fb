"""The trainer on sequences of differing length: lists, padded arrays, buckets.

Letters: N samples, T time steps, T_i those of sample i, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from batch_cases import (
    LENGTHS,
    D,
    H,
    M,
    N,
    T,
    assert_logs_close,
    assert_params_close,
    both,
    every_layout,
    every_pool,
    model,
    padded,
    sequences,
    trained,
)
from conftest import assert_gradient_close

from fastrnn import losses, optim
from fastrnn.layers import GRU, LSTM, Embedding, LastStep, Linear, MaxPool, MeanPool, Module, Sequential
from fastrnn.trainer import Trainer
from fastrnn.trainer.data import Batch, Data
from fastrnn.trainer.objective import Objective, accuracy


@both
@every_pool
@every_layout
def test_a_batch_is_its_sequences_one_by_one(batch_first, pool, bidirectional):
    """Loss, gradients and outputs of lists and of padded arrays, against each sequence by itself."""
    x, steps, classes = sequences()
    y = steps if pool is None else classes
    single = Trainer(model(pool, batch_first=batch_first, bidirectional=bidirectional))
    single.model.zero_grad()
    outputs, total, right = [], 0.0, 0
    count = sum(LENGTHS) if pool is None else N
    for sequence, targets in zip(x, y):
        given = sequence[None] if batch_first else sequence[:, None]
        logits = single.model(given, training=True)
        loss, dlogits = losses.cross_entropy(logits, np.asarray(targets).reshape(logits.shape[:-1]), reduction="sum")
        single.model.backward(dlogits / count)
        outputs.append(logits.reshape(-1, M))
        total += loss
        right += int((logits.reshape(-1, M).argmax(1) == targets).sum())

    for ragged in (True, False):
        trainer = Trainer(
            model(pool, batch_first=batch_first, bidirectional=bidirectional), optimizer=optim.SGD(lr=0.0)
        )
        data = (x, y) if ragged else (padded(x, np.nan), padded(y, 99) if pool is None else y)
        lengths = None if ragged else np.array(LENGTHS)
        logs = trained(trainer, *data, batch_size=N, shuffle=False, lengths=lengths)
        np.testing.assert_allclose(logs["loss"], [total / count], rtol=1e-10)
        np.testing.assert_allclose(logs["accuracy"], [right / count], rtol=1e-12)
        for name, grad in single.model.grads.items():
            assert_gradient_close(trainer.model.grads[name], grad, "float64", name)
        for batch_size in (2, N):
            scores = trainer.evaluate(*data, batch_size, lengths=lengths)
            assert_logs_close(scores, {"loss": total / count, "accuracy": right / count})
            predicted = trainer.predict(data[0], batch_size, lengths=lengths)
            if pool is not None:
                np.testing.assert_allclose(predicted, np.concatenate(outputs), rtol=0, atol=1e-12)
                continue
            assert ragged == isinstance(predicted, list)
            if not ragged:
                assert predicted.shape == (N, T + 2, M)
                assert not any(row[n:].any() for row, n in zip(predicted, LENGTHS))
                predicted = [row[:n] for row, n in zip(predicted, LENGTHS)]
            for got, expected in zip(predicted, outputs, strict=True):
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@every_pool
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", functools.partial(losses.mse, reduction="sequence")])
def test_lists_arrays_and_layouts_train_alike(pool, loss):
    x, steps, classes = sequences()
    if loss != "cross_entropy":
        steps, classes = [np.eye(M)[y] for y in steps], np.eye(M)[classes]
    y = steps if pool is None else classes
    results = []
    for batch_first in (False, True):
        for ragged in (False, True):
            trainer = Trainer(model(pool, batch_first=batch_first), loss)
            data = (x, y) if ragged else (padded(x, np.nan), padded(y) if pool is None else y)
            lengths = None if ragged else LENGTHS
            validation = data if ragged else (*data, lengths)
            logs = trained(trainer, *data, epochs=2, batch_size=3, lengths=lengths, validation_data=validation)
            results.append((trainer.model, logs))
    for other, logs in results[1:]:
        assert_params_close(results[0][0], other)
        assert_logs_close(results[0][1], logs)


def test_agrees_with_packed_sequences_of_torch(torch):
    """Three updates of a bidirectional LSTM with lengths and a loss at each step that counts."""
    pack, unpack = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    x, y, _ = sequences()
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(D, H, 2, batch_first=True, bidirectional=True).double()
    linear = torch.nn.Linear(2 * H, M).double()
    ours = model(bidirectional=True, cell=LSTM)
    for layer, twin in zip(ours, (lstm, linear)):
        layer.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    trainer = Trainer(ours, optimizer=optim.SGD(lr=0.5))
    logs = trained(trainer, x, y, epochs=3, batch_size=N, shuffle=False)
    sgd, expected = torch.optim.SGD([*lstm.parameters(), *linear.parameters()], lr=0.5), []
    for _ in range(3):
        packed = pack(torch.tensor(padded(x)), LENGTHS, batch_first=True, enforce_sorted=False)
        output, _ = unpack(lstm(packed)[0], batch_first=True)
        targets = torch.tensor(padded(y, -100)[:, :T])
        loss = torch.nn.functional.cross_entropy(linear(output).flatten(0, 1), targets.flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        expected.append(loss.item())
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-10)
    for layer, twin in zip(ours, (lstm, linear)):
        for name, value in twin.state_dict().items():
            np.testing.assert_allclose(layer.params[name], value.numpy(), rtol=0, atol=1e-10, err_msg=name)


def test_learns_tokens_of_any_length():
    """The first token, from sequences of 1 to 12."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 4, n) for n in rng.integers(1, 13, 300)]
    y = np.array([tokens[0] for tokens in x])
    net = Sequential(
        Embedding(4, 8, rng=0), GRU(8, 24, batch_first=True, rng=1), MaxPool(batch_first=True), Linear(24, 4, rng=2)
    )
    trainer = Trainer(net, optimizer=optim.Adam(lr=1e-2))
    history = trainer.fit(x, y, epochs=15, batch_size=16, bucket=True, progress=False)
    assert history["accuracy"][-1] > 0.95


def worst(outputs, targets):
    return float(np.abs(outputs - targets).max())


def test_losses_and_metrics_of_ones_own_see_the_steps_that_count():
    x, _, _ = sequences()
    y = [sequence[:, :1] for sequence in x]
    seen = []

    def absolute(outputs, targets):
        seen.append(outputs.shape)
        difference = outputs - targets
        return float(np.abs(difference).mean()), np.sign(difference) / difference.size

    net = Sequential(GRU(D, H, dtype="f8", rng=0), Linear(H, 1, dtype="f8", rng=1))
    trainer = Trainer(net, absolute, metrics=[worst])
    scores = trainer.evaluate(x, y)
    errors = [net(sequence[:, None])[:, 0] - targets for sequence, targets in zip(x, y)]
    np.testing.assert_allclose(scores["loss"], np.abs(np.concatenate(errors)).mean(), rtol=1e-12)
    np.testing.assert_allclose(scores["worst"], np.abs(np.concatenate(errors)).max(), rtol=1e-12)
    assert seen == [(sum(LENGTHS), 1)]
    trainer.fit(x, y, progress=False)
    assert trainer.optimizer.steps == 1


def test_weights_of_batches_are_the_steps_that_count():
    outputs, targets = np.zeros((T, 2, M)), np.zeros((T, 2), int)
    targets[0] = -100
    values, doutputs = Objective("cross_entropy", [accuracy])(outputs, targets, 2, np.array([3, 5]))
    assert values["loss"].weight == values["accuracy"].weight == 6
    assert not doutputs[0].any() and not doutputs[3:, 0].any() and doutputs[1:3].any()
    assert Objective("mse")(outputs, outputs, 2, np.array([3, 5]))[0]["loss"].weight == 8
    values, doutputs = Objective(lambda a, b: (1.0, a))(outputs, outputs, 2, np.array([0, 0]))
    assert values["loss"].weight == 0 and not doutputs.any()


# --- Batches ----------------------------------------------------------------------------------------------------------


class Spy(Module):
    """Passes x on and notes its shape in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, x, *, training=False):
        if training:
            self.seen.append(x.shape)
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("ragged", [True, False])
def test_a_batch_is_as_long_as_its_longest(ragged):
    x, _, y = sequences()
    spy = Spy()
    trainer = Trainer(Sequential(spy, *model(LastStep)))
    lengths = None if ragged else LENGTHS
    trained(trainer, x if ragged else padded(x), y, batch_size=3, shuffle=False, lengths=lengths)
    assert [shape[:2] for shape in spy.seen] == [(3, 9), (3, 8), (1, 6)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_buckets_hold_sequences_of_similar_length(shuffle):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 500)
    data = Data([np.full((n, 1), i) for i, n in enumerate(lengths)])
    orders = [data.order(8, np.random.default_rng(seed) if shuffle else None, bucket=True) for seed in (0, 0, 1)]
    for order in orders:
        assert [len(rows) for rows in order].count(8) == 62
        np.testing.assert_array_equal(np.sort(np.concatenate(order)), np.arange(500))
        padding = sum(len(rows) * lengths[rows].max() for rows in order)
        assert padding < 1.1 * lengths.sum()
    first, same, other = (np.concatenate(order) for order in orders)
    np.testing.assert_array_equal(first, same)
    assert np.array_equal(first, other) != shuffle
    longest = [lengths[rows].max() for rows in orders[0]]
    assert (longest == sorted(longest)) != shuffle


def test_pieces_of_time():
    x, y, _ = sequences()
    whole = Batch(Data(padded(x), padded(y), LENGTHS, steps=True), np.array([5, 0, 3]))
    ragged = Batch(Data(x, y, steps=True), np.array([5, 0, 3]))
    assert whole.T == ragged.T == 8
    for batch in (whole, ragged):
        np.testing.assert_array_equal(batch.lengths_in(3, 7), [4, 1, 3])
        np.testing.assert_array_equal(batch.x(3, 7), padded(x)[[5, 0, 3], 3:7])
        np.testing.assert_array_equal(batch.y(3, 7, steps=True), padded(y)[[5, 0, 3], 3:7])
        np.testing.assert_array_equal(batch.x(), padded(x)[[5, 0, 3], :8])


def test_nothing_is_copied_that_need_not_be():
    """What makes memory grow with the sequence in checkpointed training would be a copy of x."""
    x, y, _ = sequences()
    array, targets = padded(x), padded(y)
    data = Data(array, targets, steps=True)
    for rows in (slice(2, 5), np.array([2, 3, 4]), np.array([6])):
        batch = Batch(data, rows)
        for piece in (batch.x(), batch.x(2, 5), Batch(Data(array, lengths=LENGTHS), rows).x(1, 3)):
            assert np.shares_memory(piece, array)
        assert np.shares_memory(batch.y(2, 5, steps=True), targets)
    assert np.shares_memory(Batch(Data(x), np.array([1])).x(2, 5), x[1])


def test_sequences_of_length_zero():
    x, steps, classes = sequences([0, 3, 0, 0])
    for pool, y in ((MeanPool, classes), (LastStep, classes), (None, steps)):
        trainer = Trainer(model(pool))
        history = trainer.fit(x, y, batch_size=2, shuffle=False, progress=False)
        assert np.isfinite(history["loss"]).all()
        assert trainer.optimizer.steps == (1 if pool is None else 2)  # no target in the second batch
        outputs = trainer.predict(x, 2)
        assert [row.shape for row in outputs] == [(n, M) if pool is None else (M,) for n in (0, 3, 0, 0)]


def test_nested_lists_are_arrays_or_sequences():
    trainer = Trainer(Sequential(Embedding(4, 3, rng=0), GRU(3, H, rng=1), Linear(H, 2, rng=2)))
    assert trainer.predict([[1, 2, 3], [0, 1, 2]]).shape == (2, 3, 2)
    assert [part.shape for part in trainer.predict([[1, 2, 3], [0]])] == [(3, 2), (1, 2)]
    trainer.fit([[1, 2, 3], [0]], [[1, 0, 1], [1]], progress=False)
    assert trainer.optimizer.steps == 1
