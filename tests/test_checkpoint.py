"""Files of models and trainers: going on exactly, nothing half written, nothing foreign read."""

from __future__ import annotations

import functools
import os
import stat

import numpy as np
import pytest
from trainer_cases import TIMES, assert_same_params, classifier, echo, numbers, sign_of_sum, tagger

import fastrnn
from fastrnn import losses, optim
from fastrnn.layers import LSTM, RNN, Dropout, LastStep, Linear, Module, Sequential
from fastrnn.serialization import load_model, save_model
from fastrnn.trainer import Trainer
from fastrnn.trainer.callbacks import LearningRateSchedule


def with_dropout() -> Sequential:
    return Sequential(
        LSTM(1, 6, 2, dropout=0.3, bidirectional=True, rng=1), LastStep(), Dropout(0.2, rng=2), Linear(12, 2, rng=3)
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
        optim.SGD(lr=0.1),
        optim.RMSprop(lr=0.01),
        optim.Adagrad(lr=0.1),
        optim.Adam(lr=0.01),
        optim.AdamW(lr=0.01),
    ],
    ids=repr,
)
def test_training_goes_on_exactly_after_load(tmp_path, optimizer):
    x, y = sign_of_sum(40)
    path = tmp_path / "trainer.safetensors"
    halve = LearningRateSchedule(lambda epoch: 0.1 / (epoch + 1))
    options = {"epochs": 2, "batch_size": 12, "validation_data": (x, y), "progress": False}

    def make():
        fresh = optim.from_config(optimizer.config())
        return Trainer(with_dropout(), optimizer=fresh, clip_norm=1.0, callbacks=[halve], rng=5)

    whole = make()
    whole.fit(x, y, **options | {"epochs": 4})
    first = make()
    first.fit(x, y, **options)
    first.save(path)
    again = Trainer.load(path, callbacks=[halve])
    again.fit(x, y, **options)
    assert_same_params(again.model, whole.model)
    assert numbers(again.history) == numbers(whole.history)
    assert again.optimizer.steps == whole.optimizer.steps == 16
    first.fit(x, y, **options)  # saving disturbed nothing
    assert_same_params(first.model, whole.model)
    assert os.listdir(tmp_path) == [path.name]


def test_everything_is_in_the_file(tmp_path):
    path = tmp_path / "trainer"
    trainer = Trainer(
        tagger(dtype=np.float64),
        functools.partial(losses.cross_entropy, reduction="sequence", ignore_index=3),
        optim.RMSprop(lr=0.02, momentum=0.5),
        clip_norm=2.0,
        clip_value=0.5,
        metrics=["accuracy"],
    )
    trainer.save(path)  # before the first step
    again = Trainer.load(path)
    assert repr(again.model) == repr(trainer.model) and repr(again.optimizer) == repr(trainer.optimizer)
    assert (again.clip_norm, again.clip_value, again.history) == (2.0, 0.5, {})
    assert again.objective.config() == trainer.objective.config()
    x, y = echo(20)
    y[:, 0] = 0
    for each in (trainer, again):
        each.fit(x, y, epochs=1, progress=False)
    assert_same_params(trainer.model, again.model)
    assert again.evaluate(x, y) == trainer.evaluate(x, y)


def half_absolute(outputs, targets):
    difference = outputs - targets
    return 0.5 * float(np.abs(difference).mean()), 0.5 * np.sign(difference) / difference.size


def worst(outputs, targets):
    return float(np.abs(outputs - targets).max())


def test_own_loss_and_metric_are_asked_for(tmp_path):
    x, _ = sign_of_sum(20)
    path = tmp_path / "trainer"
    trainer = Trainer(Sequential(RNN(1, 4), LastStep(), Linear(4, 1)), half_absolute, metrics=[worst])
    history = trainer.fit(x, x[:, -1], epochs=2, progress=False)
    assert set(history) == {"loss", "worst", *TIMES}
    trainer.save(path)
    for options, message in [
        ({}, "loss: expected the function half_absolute that it was saved with, got None"),
        ({"loss": half_absolute}, "metrics: expected the functions worst that it was saved with, got None"),
    ]:
        with pytest.raises(ValueError) as caught:
            Trainer.load(path, **options)
        assert str(caught.value) == f"{path}: {message}"
    again = Trainer.load(path, loss=half_absolute, metrics=[worst])
    assert again.evaluate(x, x[:, -1]) == trainer.evaluate(x, x[:, -1])


def test_model_files(tmp_path):
    model, x = with_dropout(), sign_of_sum(5)[0].swapaxes(0, 1)
    model(x, training=True)  # the generators are no longer at their start
    save_model(model, tmp_path / "model")
    Trainer(model).save(tmp_path / "trainer")
    for path in (tmp_path / "model", str(tmp_path / "trainer")):
        again = load_model(path)
        assert_same_params(model, again)
        np.testing.assert_array_equal(again(x), model(x))
    np.testing.assert_array_equal(load_model(tmp_path / "model")(x, training=True), model(x, training=True))
    with pytest.raises(ValueError, match="model: expected the checkpoint of a trainer, got one without 'trainer'$"):
        Trainer.load(tmp_path / "model")


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "trainer"
    trainer = Trainer(classifier())
    trainer.save(path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    trainer.model.params["2.bias"][...] = 3
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, lambda *args: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="^disk full$"):
                trainer.save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["trainer"]
    with pytest.raises(FileNotFoundError):
        trainer.save(tmp_path / "no folder" / "trainer")
    link = tmp_path / "link"
    link.symlink_to(path)
    trainer.save(link)
    assert link.is_symlink() and (Trainer.load(path).model.params["2.bias"] == 3).all()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_damaged_and_foreign_files(tmp_path):
    from safetensors.numpy import save

    whole, path = tmp_path / "whole", tmp_path / "model.safetensors"
    trainer = Trainer(classifier())
    trainer.fit(*sign_of_sum(8), progress=False)
    trainer.save(whole)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    damaged = {f"cut at {size}": data[:size] for size in (0, 1, 7, 8, 100, len(data) // 2, len(data) - 1)}
    damaged["longer"] = data + b"\0"
    for place in rng.integers(8, len(data), 60):
        damaged[f"bit at {place}"] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    damaged["text"] = b"Dear reader,\n" * 50
    damaged["pickle"] = b"\x80\x04\x95" + bytes(200)
    array = {"model.weight": np.zeros(3, np.float32)}
    damaged["another program's"] = save(array)
    newer = '{"version": 2, "crc32": 0, "config": ""}'
    for name, entry in {"no JSON": "{", "a list": "[]", "nothing in it": "{}", "newer": newer}.items():
        damaged[name] = save(array, metadata={"fastrnn": entry})
    for what, content in damaged.items():
        path.write_bytes(content)
        for load in (Trainer.load, load_model):
            with pytest.raises(ValueError, match="model.safetensors: expected a fastrnn checkpoint, got a") as caught:
                load(path)
            assert str(caught.value).startswith(f"{path}: "), what
    for load in (Trainer.load, load_model):
        with pytest.raises(FileNotFoundError, match="absent"):
            load(tmp_path / "absent")
        with pytest.raises(IsADirectoryError):
            load(tmp_path)


def test_a_layer_of_ones_own_needs_its_class(tmp_path):
    from fastrnn.layers import registry

    class Twice(Module):
        def arguments(self):
            return {}

        def __call__(self, x, *, training=False):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    path = tmp_path / "trainer"
    Trainer(Sequential(Twice(), *classifier())).save(path)
    assert type(Trainer.load(path).model[0]) is Twice
    registered = next(name for name, cls in registry._classes.items() if cls is Twice)
    del registry._classes[registered]
    with pytest.raises(ValueError, match=f"^{path}: class: expected a layer of fastrnn .*Twice'$"):
        Trainer.load(path)


# --- Where a file goes, and whose file it is --------------------------------------------------------------------------


def small():
    return fastrnn.Sequential(fastrnn.GRU(2, 3, rng=0), fastrnn.Linear(3, 1, rng=1))


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "m"
    save_model(small(), path)
    path.chmod(0o600)
    save_model(small(), path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_is_not_replaced(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="expected a place for a file, got a folder, a device or a pipe"):
            save_model(small(), place)


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f"m.{process.pid}-0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "m.1-0123abcd.tmp").write_bytes(b"of a process that runs")
    save_model(small(), tmp_path / "m")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m", "m.1-0123abcd.tmp"]


def test_foreign_files_are_named_with_what_loads_them(tmp_path):
    path = tmp_path / "m"
    np.savez(path.with_suffix(".npz"), a=np.zeros(2))
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(60))
    for name, words in (("m.npz", "a NumPy archive"), ("m.h5", "an HDF5 file"), ("m.onnx", "an ONNX model")):
        with pytest.raises(ValueError, match=f"{name}: expected a fastrnn checkpoint, got {words}"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    "change", [{"num_layers": 2**40}, {"hidden_size": 2_000_000_000}, {"hidden_size": 10_000}, {"input_size": 2**50}]
)
def test_a_crafted_file_makes_nothing_larger_than_itself(tmp_path, change):
    from fastrnn.serialization import describe_model, write

    arrays, config = describe_model(small())
    config["model"]["layers"][0] |= change
    write(tmp_path / "m", arrays, config)
    with pytest.raises(ValueError, match=f"m: {next(iter(change))}: expected"):
        load_model(tmp_path / "m")
