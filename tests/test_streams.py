"""Data that come in batches: lists, functions, objects of one's own, PyTorch's DataLoader, arrays mapped from disk."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from trainer_cases import assert_same_params, classifier, echo, numbers, sign_of_sum, tagger

from fastrnn import GRU, SGD, Checkpoints, LastStep, Linear, Sequential, Trainer
from fastrnn.trainer.callbacks import Callback

X, Y = sign_of_sum(24)
BATCHES = [(X[k : k + 5], Y[k : k + 5]) for k in range(0, 24, 5)]


class Own:
    """Batches without a length, which are told the epoch."""

    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        yield from BATCHES


def fitted(x, y=None, **options):
    trainer = Trainer(classifier())
    trainer.fit(x, y, **{"epochs": 2, "progress": False} | options)
    return trainer


@pytest.mark.parametrize(
    "make",
    [
        lambda: BATCHES,
        lambda: tuple({"x": x, "y": y} for x, y in BATCHES),
        lambda: lambda: iter(BATCHES),
        Own,
        lambda: [(list(x), y) for x, y in BATCHES],
    ],
    ids=["list", "dicts", "function", "own", "ragged"],
)
def test_batches_of_an_iterable_train_like_arrays(make):
    whole = fitted(X, Y, batch_size=5, shuffle=False, validation_data=(X, Y))
    stream = fitted(make(), validation_data=(X, Y))
    assert_same_params(whole.model, stream.model)
    assert numbers(whole.history) == numbers(stream.history)
    assert stream.evaluate(make()) == pytest.approx(whole.evaluate(X, Y), rel=1e-6)
    assert Trainer(classifier()).evaluate(BATCHES) == pytest.approx(Trainer(classifier()).evaluate(X, Y), rel=1e-6)
    other = fitted(make(), validation_data=make())
    assert other.history["val_loss"] == pytest.approx(whole.history["val_loss"], rel=1e-6)


def test_one_batch_at_a_time_is_made():
    alive = []

    class Lazy:
        def __len__(self):
            return 4

        def __iter__(self):
            for k in range(4):
                alive.append(k)
                yield X[k : k + 2], Y[k : k + 2]

    class Watch(Callback):
        def on_batch_end(self, trainer, batch, logs):
            assert len(alive) == batch + 1

    trainer = Trainer(classifier(), callbacks=[Watch()])
    trainer.fit(Lazy(), progress=False)
    assert trainer.optimizer.steps == 4


def test_lengths_weights_and_states_come_in_the_batches():
    x, y = echo(6)
    lengths, weights = np.array([10, 4, 7, 10, 1, 9]), np.linspace(0.5, 1.5, 6)
    one = Trainer(tagger(dtype="f8"), optimizer=SGD(0.1))
    one.fit(x, y, 1, 6, lengths=lengths, sample_weight=np.ones((6, 10)), progress=False, shuffle=False)
    two = Trainer(tagger(dtype="f8"), optimizer=SGD(0.1))
    two.fit([(x, y, lengths, np.ones(6))], progress=False)
    for name, param in one.model.params.items():
        np.testing.assert_allclose(two.model.params[name], param, rtol=1e-9)
    three = Trainer(tagger(dtype="f8"), optimizer=SGD(0.1))
    three.fit([{"x": x, "y": y, "lengths": lengths, "sample_weight": weights}], progress=False)
    with pytest.raises(AssertionError):
        assert_same_params(two.model, three.model)

    halves = [(x[:, :5], y[:, :5]), (x[:, 5:], y[:, 5:])]  # each sequence goes on in the next batch
    whole, stateful = Trainer(tagger(), stateful=True), Trainer(tagger(), stateful=True)
    whole.fit(np.concatenate([x[:, :5], x[:, 5:]]), np.concatenate([y[:, :5], y[:, 5:]]), 2, 6, progress=False)
    stateful.fit(halves, epochs=2, progress=False)
    assert_same_params(whole.model, stateful.model)
    with pytest.raises(ValueError, match="expected 6 samples, as each goes on in the next batch, got 5"):
        Trainer(tagger(), stateful=True).fit([halves[0], (x[:5, 5:], y[:5, 5:])], progress=False)


def test_a_loader_of_torch(torch, tmp_path):
    utils = torch.utils.data
    data = utils.TensorDataset(torch.tensor(X), torch.tensor(Y))
    with pytest.raises(
        TypeError, match=r"x: expected batches, got a TensorDataset of samples; write torch\.utils\.data\.Data"
    ):
        fitted(data)
    plain = fitted(utils.DataLoader(data, batch_size=5))
    assert_same_params(plain.model, fitted(X, Y, batch_size=5, shuffle=False).model)

    def loader():
        return utils.DataLoader(data, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(3))

    whole = fitted(loader(), epochs=3)

    class Interrupt(Callback):
        def on_batch_begin(self, trainer, batch):
            if trainer.optimizer.steps == 7:
                raise RuntimeError

    trainer = Trainer(classifier(), callbacks=[Interrupt(), Checkpoints(tmp_path, every_batches=1)])
    with pytest.raises(RuntimeError):
        trainer.fit(loader(), epochs=3, progress=False)
    again = Trainer.load(tmp_path)
    again.fit(loader(), epochs=3, progress=False, resume=True)
    assert_same_params(whole.model, again.model)  # the loader's generator was put back
    assert numbers(whole.history) == numbers(again.history)


def test_arrays_mapped_from_disk_are_never_whole_in_memory(tmp_path):
    """Converted batch by batch, also where they have another dtype than the layers."""
    N, T, D = 4000, 50, 20  # 8 MB of int16, 16 MB of float32
    rng = np.random.default_rng(0)
    written = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.int16, (N, T, D))
    written[...] = rng.integers(-50, 50, (N, T, D))
    written.flush()
    y = rng.integers(0, 2, N)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")

    def trainer():
        layers = GRU(D, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1)
        return Trainer(Sequential(*layers))

    tracemalloc.start()
    mapped = trainer()
    mapped.fit(x, y, 1, 64, progress=False)
    scores = mapped.evaluate(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6
    whole = trainer()
    whole.fit(np.array(x), y, 1, 64, progress=False)
    assert_same_params(whole.model, mapped.model)
    assert scores == whole.evaluate(np.array(x), y)
    np.testing.assert_array_equal(mapped.predict(x[:7]), whole.predict(np.array(x[:7])))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda t: t.fit(iter(BATCHES), epochs=2), TypeError, "x: expected batches that can be gone through in each"),
        (lambda t: t.fit([(X,)]), TypeError, r"x: expected batches \(x, y\), \(x, y, lengths\) or dicts, got tuple"),
        (lambda t: t.fit([{"x": X}]), TypeError, "x: expected batches with x, y, .*, got entries x"),
        (lambda t: t.fit(BATCHES, validation_split=0.5), ValueError, "validation_split, bucket: expected none of them"),
        (lambda t: t.fit(BATCHES, lengths=[1]), ValueError, "expected them in the batches of the iterable"),
        (
            lambda t: t.fit(BATCHES, class_weight="balanced"),
            ValueError,
            "class_weight: expected a dict, got 'balanced'",
        ),
        (lambda t: t.fit(X), ValueError, "y: expected one target per sample of x, got None"),
        (lambda t: t.fit([(X[:3], Y[:2])]), ValueError, "y: expected one target per sample of x, 3 of them"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(Trainer(classifier()))


def test_an_iterator_is_enough_for_one_epoch():
    assert_same_params(fitted(iter(BATCHES), epochs=1).model, fitted(BATCHES, epochs=1).model)
