"""Files of models and trainers that once went wrong: pipes, kills during saves, crafted, deep and foreign files."""

from __future__ import annotations

import copy
import gzip
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from process_cases import environment

import fastrnn
from fastrnn import serialization
from fastrnn.layers import registry
from fastrnn.layers.weights import Weights


def small():
    return fastrnn.Sequential(
        fastrnn.Embedding(5, 3, rng=0),
        fastrnn.LSTM(3, 8, num_layers=2, dropout=0.3, proj_size=4, peephole=True, rng=0),
        fastrnn.Dropout(0.2, rng=1),
        fastrnn.LastStep(),
        fastrnn.Linear(4, 2, rng=2),
    )


# --- Files that are saved ---------------------------------------------------------------------------------------------


def test_pipes_and_devices_are_neither_replaced_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    trainer = fastrnn.Trainer(small())
    (tmp_path / "link").symlink_to("/dev/null")
    for place in (tmp_path / "pipe", "/dev/null", tmp_path / "link"):
        with pytest.raises(OSError, match="expected a place for a file, got a folder, a device or a pipe"):
            trainer.save(place)
        for load in (fastrnn.Trainer.load, serialization.load_model):
            with pytest.raises(OSError, match="expected a file, got a device or a pipe"):
                load(place)  # opening the pipe would wait for a writer for ever
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def test_the_new_file_is_never_more_readable_than_the_old_one(tmp_path, monkeypatch):
    path, modes = tmp_path / "m", []
    serialization.save_model(small(), path)
    path.chmod(0o600)
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(os.stat(file).st_mode & 0o777))
    serialization.save_model(small(), path)
    assert modes == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_run_of_the_same_number_is_cleaned_up_after(tmp_path):
    """In a container each run may be process 1: an old file with our own number is not ours."""
    old = tmp_path / f"m.{os.getpid()}-0123abcd.tmp"
    old.write_bytes(b"half")
    serialization.save_model(small(), tmp_path / "m")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_kills_during_saves_leave_one_file(tmp_path):
    code = (
        "import sys, fastrnn\nfrom fastrnn.serialization import save_model\n"
        "model = fastrnn.Embedding(200, 5000, rng=0)\nprint('ready', flush=True)\n"
        "while True: save_model(model, sys.argv[1])"
    )
    for pause in (0.02, 0.03, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "m")], stdout=subprocess.PIPE, cwd="/", env=environment()
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(pause)
        process.kill()
        process.communicate()
    serialization.save_model(small(), tmp_path / "m")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    serialization.load_model(tmp_path / "m")


def test_paths_of_bytes(tmp_path):
    path = os.fsencode(tmp_path / "m")
    serialization.save_model(small(), path)
    assert serialization.load_model(path).params.keys() == small().params.keys()


# --- Files that are loaded --------------------------------------------------------------------------------------------

ODD = [None, True, -1, 0, 3, 2**31, 2**40, 10**30, 1.5, float("inf"), float("nan"), "", "x", [], [[]], {}, {"a": 1}]


def places(config, place=()):
    yield place
    entries = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in entries:
        yield from places(value, (*place, key))


def changed(config, place, value):
    config = copy.deepcopy(config)
    part = config
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return config


def saved_trainer(path):
    model = fastrnn.Sequential(fastrnn.GRU(3, 4, rng=0), fastrnn.Dropout(0.1, rng=0), fastrnn.Linear(4, 3, rng=0))
    trainer = fastrnn.Trainer(model, loss="mse", stateful=True, rng=0, callbacks=[fastrnn.EarlyStopping("loss")])
    x = np.zeros((8, 4, 3), np.float32)
    trainer.fit(x, x, epochs=1, batch_size=4, progress=False)
    trainer.save(path)


@pytest.mark.parametrize("name", ["sequential", "jordan", "tree", "trainer"])
def test_any_entry_of_a_file_may_be_anything(tmp_path, name):
    """With a right checksum: it loads, or a ValueError names the file; nothing large is made."""
    path, load = tmp_path / "m", serialization.load_model
    if name == "trainer":
        saved_trainer(path)
        load = fastrnn.Trainer.load
    else:
        models = {
            "sequential": small,
            "jordan": lambda: fastrnn.Jordan(3, 4, 2),
            "tree": lambda: fastrnn.TreeLSTM(3, 4),
        }
        serialization.save_model(models[name](), path)
    arrays, config = serialization.read(path)
    refused = 0
    for place in places(config):
        for value in ODD:
            serialization.write(path, arrays, changed(config, place, value) if place else {"model": value})
            try:
                load(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: "), (place, value)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "make, sizes",
    [
        (lambda: fastrnn.Linear(300, 300), {"in_features": 90_000, "out_features": 90_000}),
        (lambda: fastrnn.Embedding(300, 300), {"num_embeddings": 90_000, "embedding_dim": 90_000}),
        (lambda: fastrnn.LSTM(3, 99, proj_size=9), {"hidden_size": 9_999, "proj_size": 9_998}),
        (lambda: fastrnn.RNN(3, 9, num_layers=2), {"num_layers": 250}),
        (lambda: fastrnn.TreeLSTM(3, 4, children=2), {"children": 2**31}),
        (lambda: fastrnn.Jordan(3, 4, 2), {"output_size": 2**31}),
    ],
)
def test_sizes_are_checked_against_the_arrays_first(tmp_path, monkeypatch, make, sizes):
    arrays, config = serialization.describe_model(fastrnn.Sequential(make()))
    config["model"]["layers"][0] |= sizes
    serialization.write(tmp_path / "m", arrays, config)
    monkeypatch.setattr(serialization, "build", None)  # nothing is made
    with pytest.raises(
        ValueError, match=f"m: {next(iter(sizes))}: expected a .* of at most the .* numbers in the file"
    ):
        serialization.load_model(tmp_path / "m")


def test_many_layers_of_a_crafted_file_are_counted_together(tmp_path, monkeypatch):
    arrays, config = serialization.describe_model(fastrnn.Sequential(fastrnn.Linear(30, 30, rng=0)))
    config["model"]["layers"] *= 1000
    serialization.write(tmp_path / "m", arrays, config)
    monkeypatch.setattr(serialization, "build", None)
    with pytest.raises(ValueError, match="m: layers: expected at most the 930 numbers in the file, got 900000 in all"):
        serialization.load_model(tmp_path / "m")


def test_the_least_number_of_parameters_is_near_the_real_one():
    """Every layer of fastrnn with parameters of its own, so that a new one is not forgotten."""
    made = [
        fastrnn.RNN(3, 5),
        fastrnn.GRU(7, 5, num_layers=3, bidirectional=True),
        fastrnn.LSTM(3, 9, num_layers=2, proj_size=2),
        fastrnn.Jordan(3, 4, 6),
        fastrnn.TreeRNN(3, 4),
        fastrnn.TreeLSTM(3, 4, children=3),
        fastrnn.Linear(7, 3),
        fastrnn.Embedding(7, 3),
        fastrnn.quantize(fastrnn.LSTM(3, 9, num_layers=2, bidirectional=True)),
        *fastrnn.quantize(fastrnn.Sequential(fastrnn.Linear(7, 3), rng=0), linear=True).layers,
    ]
    for layer in made:
        numbers = sum(param.size for param in layer.params.values())
        assert numbers / 20 <= serialization._least_numbers(layer.config()) <= numbers, layer
    counted = {type(layer).__name__ for layer in made}
    with_params = {
        name
        for name, cls in registry._classes.items()
        if "." not in name
        and any("add_param(" in _source(base) for base in cls.__mro__ if base not in (fastrnn.Module, Weights))
    }
    assert {name for name in with_params if not name.endswith("Layer")} <= counted | {"Stateful"}


def _source(cls):
    import inspect

    return inspect.getsource(cls) if cls.__module__.startswith("fastrnn.") else ""


class Window(fastrnn.Module):
    """A layer of one's own whose sizes are not those of arrays."""

    def __init__(self, buffer_size, num_steps):
        super().__init__()
        self.buffer_size, self.num_steps = buffer_size, num_steps

    def arguments(self):
        return {"buffer_size": self.buffer_size, "num_steps": self.num_steps}

    def forward(self, x, state=None, *, context=None, training=False):
        return x, None


def test_sizes_of_ones_own_layers_mean_what_they_say(tmp_path):
    serialization.save_model(fastrnn.Sequential(Window(10**9, 10**6), fastrnn.Linear(2, 2, rng=0)), tmp_path / "m")
    assert serialization.load_model(tmp_path / "m")[0].buffer_size == 10**9


def test_deep_nesting_is_refused(tmp_path):
    arrays, _ = serialization.describe_model(small())
    for depth in (900, 100_000):
        text = json.dumps({"model": 0, "generators": {}}).replace("0", "[" * depth + "]" * depth, 1)
        from safetensors.numpy import save

        header = {"version": 1, "crc32": serialization._checksum(text, arrays), "config": text}
        (tmp_path / "m").write_bytes(save(dict(arrays), metadata={"fastrnn": json.dumps(header)}))
        for load in (serialization.load_model, fastrnn.Trainer.load):
            with pytest.raises(ValueError, match="^.*/m: "):
                load(tmp_path / "m")


def test_foreign_files_are_named(tmp_path):
    import pickle

    np.save(tmp_path / "m.npy", np.zeros(3))
    files = {
        "pickle": (pickle.dumps({"a": 1}), "a pickle, which can run any code"),
        "torch of old": (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(90),
            r"a file of PyTorch before 1.6; layer",
        ),
        "npy": ((tmp_path / "m.npy").read_bytes(), "an array of NumPy, which numpy.load reads"),
        "gzip": (gzip.compress(bytes(90)), "a gzip file; unpack it first"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        for load in (serialization.load_model, fastrnn.Trainer.load):
            with pytest.raises(ValueError, match=f"{name}: expected a fastrnn checkpoint, got {words}"):
                load(tmp_path / name)


def test_an_onnx_file_is_known_by_its_content(tmp_path):
    onnx = pytest.importorskip("onnx")
    from fastrnn.interop import onnx as door

    door.save(fastrnn.GRU(2, 3, rng=0), tmp_path / "one")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), str(tmp_path / "two"))
    for name in ("one", "two"):
        with pytest.raises(ValueError, match=f"{name}: .* got an ONNX model, whose layers fastrnn.interop.onnx"):
            serialization.load_model(tmp_path / name)


def test_pytorch_files_are_known_by_their_content(tmp_path):
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(2, 3)
    torch.save(lstm.state_dict(), tmp_path / "m")
    with pytest.raises(ValueError, match="got a PyTorch file; layer.load_state_dict"):
        serialization.load_model(tmp_path / "m")
    fastrnn.LSTM(2, 3).load_state_dict(torch.load(tmp_path / "m", weights_only=True))  # as it says
