"""The trainer on sequences of differing length: lists, padded arrays, buckets, resets.

Letters: N samples, T time steps, T_i those of sample i, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close

from fastrnn import losses, optim
from fastrnn.layers import GRU, LSTM, Embedding, LastStep, Linear, MaxPool, MeanPool, Module, Sequential
from fastrnn.trainer import Trainer
from fastrnn.trainer.bptt import BPTT
from fastrnn.trainer.checkpointing import CheckpointedBPTT
from fastrnn.trainer.data import Batch, Data
from fastrnn.trainer.objective import Objective, accuracy

N, T, D, H, M = 7, 9, 2, 5, 3
LENGTHS = [4, T, 1, 6, 3, 8, 6]


def sequences(lengths: list[int] = LENGTHS, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """x (T_i, D) each, y (T_i,) each, and one class for each."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, D)) for n in lengths]
    return x, [rng.integers(0, M, n) for n in lengths], rng.integers(0, M, len(lengths))


def padded(arrays: list[np.ndarray], fill: float = 0) -> np.ndarray:
    out = np.full((len(arrays), max(map(len, arrays)) + 2, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[: len(array)] = array
    return out


def model(pool: Any = None, *, batch_first: bool = True, bidirectional: bool = False, cell: Any = GRU) -> Sequential:
    width = 2 * H if bidirectional else H
    return Sequential(
        cell(D, H, 2, batch_first=batch_first, bidirectional=bidirectional, dtype="f8", rng=1),
        *([pool(batch_first=batch_first)] if pool else []),
        Linear(width, M, dtype="f8", rng=2),
    )


def trained(trainer: Trainer, *args: Any, **options: Any) -> dict[str, Any]:
    history = trainer.fit(*args, progress=False, **options)
    return {name: values for name, values in history.items() if name not in ("seconds", "samples_per_second")}


def assert_params_close(a: Module, b: Module) -> None:
    for name, param in a.params.items():
        np.testing.assert_allclose(param, b.params[name], rtol=0, atol=1e-11, err_msg=name)


def assert_logs_close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], rtol=1e-10, err_msg=name)


both = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
every_pool = pytest.mark.parametrize("pool", [None, LastStep, MeanPool, MaxPool], ids=["steps", "last", "mean", "max"])
every_layout = pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])


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


# --- Resets -----------------------------------------------------------------------------------------------------------


@both
@every_layout
@pytest.mark.parametrize("ragged", [True, False])
def test_resets_cut_a_sequence_into_several(ragged, batch_first, bidirectional):
    """One long sequence with resets trains and predicts as the sequences it was made of."""
    x, y, _ = sequences()
    groups = [[0, 1, 2], [3, 4], [5, 6]]
    joint_x, joint_y = ([np.concatenate([a[i] for i in group]) for group in groups] for a in (x, y))
    resets = []
    for group in groups:
        mask = np.zeros(sum(LENGTHS[i] for i in group), bool)
        mask[np.cumsum([0, *(LENGTHS[i] for i in group[:-1])])] = True
        resets.append(mask)
    apart, joint = (Trainer(model(batch_first=batch_first, bidirectional=bidirectional)) for _ in range(2))
    lengths = None if ragged else [len(sequence) for sequence in joint_x]
    data = (joint_x, joint_y) if ragged else (padded(joint_x), padded(joint_y))
    resets = resets if ragged else padded(resets)
    logs = [
        trained(apart, x, y, epochs=2, batch_size=N, shuffle=False),
        trained(joint, *data, epochs=2, batch_size=3, shuffle=False, lengths=lengths, reset_mask=resets),
    ]
    assert_params_close(apart.model, joint.model)
    assert_logs_close(*logs)
    assert_logs_close(apart.evaluate(x, y), joint.evaluate(*data, lengths=lengths, reset_mask=resets))
    outputs = joint.predict(data[0], 2, lengths=lengths, reset_mask=resets)
    got = np.concatenate([row[: len(sequence)] for row, sequence in zip(outputs, joint_x)])
    np.testing.assert_allclose(got, np.concatenate(apart.predict(x)), rtol=0, atol=1e-12)


@every_pool
@pytest.mark.parametrize("options", [{"checkpoint_every": 2}, {"checkpoint_every": 5}, {"tbptt": 30}], ids=repr)
def test_pieces_of_time_with_resets(pool, options):
    x, steps, classes = sequences()
    if pool is not None and "tbptt" in options:
        pytest.skip("tbptt needs an output at each step")
    resets = [np.random.default_rng(n).random(n) < 0.3 for n in LENGTHS]
    y = steps if pool is None else classes
    plain, other = Trainer(model(pool)), Trainer(model(pool), **options)
    logs = [trained(trainer, x, y, epochs=2, batch_size=3, reset_mask=resets) for trainer in (plain, other)]
    assert_params_close(plain.model, other.model)
    assert_logs_close(*logs)
    without = Trainer(model(pool))
    trained(without, x, y, epochs=2, batch_size=3)
    assert np.abs(without.model.params["0.weight_hh_l0"] - plain.model.params["0.weight_hh_l0"]).max() > 1e-6


def test_resets_in_a_stateful_fit_begin_a_sequence_anew():
    """Row 0 goes on through three batches; row 1 begins a new sequence in the third."""
    x, y, _ = sequences([4] * 6)
    x, y = np.stack(x), np.stack(y)
    resets = np.zeros((6, 4), bool)
    resets[5, 0] = True
    options = {"optimizer": optim.SGD(lr=0.0), "stateful": True}
    stateful = Trainer(model(), **options)
    loss = trained(stateful, x, y, batch_size=2, reset_mask=resets)["loss"]
    row, first, second = (np.concatenate(a)[None] for a in (x[::2], x[1:4:2], x[5:]))
    targets = [np.concatenate(a)[None] for a in (y[::2], y[1:4:2], y[5:])]
    parts = [Trainer(model()).evaluate(*part)["loss"] * part[1].size for part in zip((row, first, second), targets)]
    np.testing.assert_allclose(loss, [sum(parts) / y.size], rtol=1e-10)


# --- Pieces of time with lengths --------------------------------------------------------------------------------------


@every_pool
@every_layout
@pytest.mark.parametrize("every", [1, 2, 4])
def test_segments_with_lengths(pool, batch_first, every):
    x, steps, classes = sequences([*LENGTHS, 0])
    results = []
    for k in (None, every):
        propagation = BPTT(model(pool, batch_first=batch_first), Objective("cross_entropy"))
        batch = Batch(Data(x, steps if pool is None else classes, steps=pool is None), slice(0, N + 1))
        ((values, _learns),) = (
            propagation.whole(batch) if k is None else CheckpointedBPTT(propagation, k).gradients(batch)
        )
        results.append((propagation.model.grads, values, propagation.state))
    (grads, values, state), (got, got_values, got_state) = results
    for name, grad in grads.items():
        assert_gradient_close(got[name], grad, "float64", name)
    assert values.keys() == got_values.keys()
    for name, tally in values.items():
        np.testing.assert_allclose(got_values[name].result(), tally.result(), rtol=1e-12)
        assert got_values[name].weight == tally.weight
    np.testing.assert_allclose(got_state[0], state[0], rtol=0, atol=1e-12)


def test_truncated_with_lengths_is_each_sequence_by_itself():
    """With a sum over time the sequences of a batch add up, and those that have ended have no part in later updates."""
    x, y, _ = sequences()
    loss = functools.partial(losses.cross_entropy, reduction="sum")
    together, alone = [], []
    for each, batches in ((together, [slice(0, N)]), (alone, [slice(i, i + 1) for i in range(N)])):
        for rows in batches:
            net = model()
            propagation = BPTT(net, Objective(loss))
            batch = Batch(Data(x, y, steps=True), rows)
            for k, _ in enumerate(propagation.truncated(batch, 2, 3)):
                while len(each) <= k:
                    each.append({name: np.zeros_like(grad) for name, grad in net.grads.items()})
                for name, grad in net.grads.items():
                    each[k][name] += grad
    assert len(together) == len(alone) == 5
    for got, expected in zip(together, alone):
        for name, grad in expected.items():
            assert_gradient_close(got[name], grad, "float64", name)


# --- Errors -----------------------------------------------------------------------------------------------------------


def fit(x: Any, y: Any, pool: Any = None, **options: Any) -> Any:
    return lambda: Trainer(model(pool)).fit(x, y, progress=False, **options)


X, Y, CLASSES = sequences()
ARRAY = padded(X)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            fit(X, Y, lengths=LENGTHS),
            ValueError,
            "lengths: expected None, as x is a list of sequences, which have their own",
        ),
        (fit(X[:-1], Y), ValueError, "y: expected one target per sample of x, 6 of them, got a list of 7"),
        (fit(X, [*Y[:-1], Y[0]]), ValueError, "y: expected 6 targets for sequence 6, got shape (4,)"),
        (
            fit(X, CLASSES[:-1], LastStep),
            ValueError,
            "y: expected one target per sample of x, 7 of them, got shape (6,)",
        ),
        (
            fit([*X, X[0][:, :1]], Y),
            ValueError,
            "x: expected sequences of one shape per step, (T_7, 2), got (4, 1) at 7",
        ),
        (fit([*X, X[0].astype("c16")], Y), TypeError, "x: expected real numbers, got complex128"),
        (fit([*X, 3.0], Y), ValueError, "x: expected sequences of one shape per step, (T_7, 2), got () at 7"),
        (fit([], Y), ValueError, "x: expected samples first, at least one, got shape (0,)"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[3] * 6), ValueError, "lengths: expected shape (7,), got (6,)"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[12] * 7), ValueError, "lengths: expected values from 0 to 11, got 12"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[2.0] * 7), TypeError, "lengths: expected "),
        (
            fit(CLASSES, CLASSES, lengths=[2] * 7),
            ValueError,
            "lengths: expected None for x without time steps, got x of shape (7,)",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, bucket=True),
            ValueError,
            "bucket: expected False for sequences of one length, got True",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, validation_data=(ARRAY,)),
            TypeError,
            "validation_data: expected a tuple (x, y) or (x, y, lengths)",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(3, bool)] * 7),
            ValueError,
            "reset_mask: expected shape (4,) for sequence 0, got (3,)",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(n) for n in LENGTHS]),
            TypeError,
            "reset_mask: expected bool for sequence 0, got float64",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(4, bool)]),
            ValueError,
            "reset_mask: expected one entry per sample of x, 7 of them, got a list of 1",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, reset_mask=np.zeros((7, 9), bool)),
            ValueError,
            "reset_mask: expected shape (7, 11) = (N, T), got (7, 9)",
        ),
        (
            lambda: Trainer(Sequential(Linear(D, M, dtype="f8"))).predict(ARRAY, reset_mask=np.zeros((7, 11), bool)),
            ValueError,
            "reset_mask: expected None, as no layer of the model takes resets",
        ),
        (fit(X, CLASSES), ValueError, "y: expected a target at each step, (7, 9, ...), got shape (7,)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()


def test_nested_lists_are_arrays_or_sequences():
    trainer = Trainer(Sequential(Embedding(4, 3, rng=0), GRU(3, H, rng=1), Linear(H, 2, rng=2)))
    assert trainer.predict([[1, 2, 3], [0, 1, 2]]).shape == (2, 3, 2)
    assert [part.shape for part in trainer.predict([[1, 2, 3], [0]])] == [(3, 2), (1, 2)]
    trainer.fit([[1, 2, 3], [0]], [[1, 0, 1], [1]], progress=False)
    assert trainer.optimizer.steps == 1
