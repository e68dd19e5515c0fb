"""Small inputs that once went wrong, in front of the layers: files, the command line, the machine, streams in threads.

Layers and the trainer have theirs in test_front_door.py. Letters: T time steps, N batch, D features, H hidden size.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import serialization
from fastrnn.datasets.idx import read_idx
from fastrnn.layers import registry
from fastrnn.layers.weights import Weights

SOURCE = Path(fastrnn.__file__).parents[1]


def small():
    return fastrnn.Sequential(
        fastrnn.Embedding(5, 3, rng=0),
        fastrnn.LSTM(3, 8, num_layers=2, dropout=0.3, proj_size=4, peephole=True, rng=0),
        fastrnn.Dropout(0.2, rng=1),
        fastrnn.LastStep(),
        fastrnn.Linear(4, 2, rng=2),
    )


def run_python(code, *arguments, **environment):
    """`python -c code` in another process, which finds this fastrnn."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
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
            [sys.executable, "-c", code, str(tmp_path / "m")],
            stdout=subprocess.PIPE,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
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


# --- IDX files --------------------------------------------------------------------------------------------------------


def idx(shape, data):
    return b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes() + data


def test_a_gzipped_bomb_is_not_unpacked(tmp_path):
    """100 MB of zeros after a header of 12 pixels, and no header at all: neither takes 10 MB."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(idx((3, 2, 2), b""))
        for _ in range(100):
            file.write(bytes(1 << 20))
    zeros = gzip.compress(bytes(100 << 20), mtime=0)
    huge = gzip.compress(idx((2**32 - 1,) * 3, bytes(1000)))
    for content, words in (
        (buffer.getvalue(), "at least 1048576 bytes beyond the 28 that shape"),
        (zeros, "expected an IDX file, got one that begins with the bytes 00 00 00 00"),
        (huge, "truncated IDX file, expected .* bytes for shape"),
    ):
        (tmp_path / "bomb.gz").write_bytes(content)
        code = (
            "import resource, sys, fastrnn\nfrom fastrnn.datasets.idx import read_idx\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: read_idx(sys.argv[1])\nexcept ValueError as error: print(error)\n"
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
        )
        done = run_python(code, str(tmp_path / "bomb.gz"))
        said, megabytes = done.stdout.splitlines()
        import re

        assert re.search(words, said), done.stdout + done.stderr
        assert int(megabytes) < 10


def test_a_gzipped_file_in_several_parts(tmp_path):
    content = idx((3, 2), bytes(range(6)))
    (tmp_path / "x").write_bytes(gzip.compress(content[:9]) + gzip.compress(content[9:]))
    assert np.array_equal(read_idx(tmp_path / "x"), np.arange(6).reshape(3, 2))


# --- The command line -------------------------------------------------------------------------------------------------


def run_command(*arguments, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastrnn", *arguments],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


DEMO = ["demo", "--epochs", "1", "--hidden-size", "4", "--no-progress"]


@pytest.mark.parametrize("arguments", [["info"], ["--version"], ["--help"], DEMO], ids=lambda a: a[0])
def test_a_closed_pipe_is_quiet(arguments, tmp_path):
    if arguments is DEMO:
        arguments = [*arguments, "--output", str(tmp_path)]
    read, write = os.pipe()
    os.close(read)
    done = run_command(*arguments, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_stdout(tmp_path):
    script = f'exec "{sys.executable}" -m fastrnn "$@" >&-'
    for arguments in (["info"], [*DEMO, "--output", str(tmp_path)]):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *arguments],
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    for arguments in (["info"], [*DEMO, "--output", str(tmp_path)]):
        with open("/dev/full", "w") as full:
            done = run_command(*arguments, stdout=full)
        assert done.returncode == 2
        assert done.stderr == f"fastrnn {arguments[0]}: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("variable", ["FASTRNN_ISA", "FASTRNN_NUM_THREADS"])
def test_a_wrong_environment_ends_the_command_and_no_program_that_imports(tmp_path, variable):
    said = f"environment variable {variable}: "
    wrong = {variable: "many"}
    done = run_command("info", **wrong)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fastrnn: error: {said}") and done.stderr.count("\n") == 1
    program = "try:\n    import fastrnn\nexcept RuntimeError as error:\n    print('caught', error)\n"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(program)
    (tmp_path / "package" / "__main__.py").write_text("")
    (tmp_path / "fastrnn.d").mkdir()
    (tmp_path / "fastrnn.d" / "fastrnn").write_text(program)  # a program of this name, no script of pip's
    for arguments in (["-c", program], ["-m", "package", "fastrnn"], [str(tmp_path / "fastrnn.d" / "fastrnn")]):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(SOURCE)} | wrong,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout.startswith(f"caught {said}"), arguments


def test_the_script_that_pip_makes_is_the_command(tmp_path):
    script = tmp_path / "fastrnn"
    script.write_text("import sys\nfrom fastrnn.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, str(script), "info"],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(SOURCE), "FASTRNN_ISA": "foo"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stderr.startswith("fastrnn: error: environment variable FASTRNN_ISA: ")


# --- The machine ------------------------------------------------------------------------------------------------------


def test_show_config_prints_what_it_returns(capsys):
    config = fastrnn.show_config()
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["fastrnn"].strip() == config["version"] == fastrnn.__version__
    assert lines["threads"].strip() == str(config["num_threads"])
    assert lines["threads from"].strip() == config["num_threads_from"]
    json.dumps(config)


def test_a_second_interpreter_is_told_so():
    interpreters = pytest.importorskip("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
    if sys.version_info >= (3, 12):
        pytest.skip("the interface has changed")
    del interpreters
    code = (
        "import warnings, fastrnn, _xxsubinterpreters as interpreters\n"
        "interpreters.run_string(interpreters.create(), '''\n"
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "try: import fastrnn\nexcept ImportError as error: print(error)''')"
    )
    done = run_python(code)
    assert "sub-interpreters are not supported" in done.stdout, done.stderr
    assert "pip install" not in done.stdout


def control_group(root, version, path, files, *, mount_root="/"):
    """What a process sees in /proc/self and in the mounted groups: files {folder within the mount: {name: content}}."""
    mount = root / "sys fs" / f"v{version}"
    for folder, contents in files.items():
        (mount / folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (mount / folder / name).write_text(content)
    escaped = str(mount).replace(" ", "\\040")
    kind = {1: "cgroup cgroup rw,cpu,cpuacct", 2: "cgroup2 cgroup rw,nsdelegate"}[version]
    (root / "self").mkdir(exist_ok=True)
    with open(root / "self" / "mountinfo", "a") as file:
        file.write(
            f"22 27 0:21 / /proc rw,relatime - proc proc rw\n31 29 0:28 {mount_root} {escaped} rw shared:9 - {kind}\n"
        )
    with open(root / "self" / "cgroup", "a") as file:
        file.write(f"4:memory:/elsewhere\n{'1:cpu,cpuacct' if version == 1 else '0:'}:{path}\n")
    return str(root / "self"), str(mount)


@pytest.mark.parametrize(
    "version, path, files, options, cpus",
    [
        (2, "/", {".": {}}, {}, None),
        (2, "/a", {"a": {"cpu.max": "max 100000\n"}}, {}, None),
        (2, "/a", {"a": {"cpu.max": "150000 100000\n"}}, {}, 1.5),
        (2, "/a/b", {"a": {"cpu.max": "50000 100000\n"}, "a/b": {"cpu.max": "300000 100000\n"}}, {}, 0.5),
        (2, "/a/b/c", {"a": {"cpu.max": "max 100000\n"}, "a/b": {"cpu.max": "7000 1000\n"}, "a/b/c": {}}, {}, 7),
        (1, "/", {".": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}}, {}, None),
        (1, "/a", {"a": {"cpu.cfs_quota_us": "220000\n", "cpu.cfs_period_us": "100000\n"}}, {}, 2.2),
        # A container that sees its own group as the top, and the path that it has outside.
        (
            1,
            "/docker/0f",
            {".": {"cpu.cfs_quota_us": "20000\n", "cpu.cfs_period_us": "50000\n"}},
            {"mount_root": "/docker/0f"},
            0.4,
        ),
        (2, "/../x", {".": {"cpu.max": "200000 100000\n"}}, {"mount_root": "/docker/0f"}, 2),
        (2, "/a", {"a": {"cpu.max": "nonsense\n"}}, {}, None),
    ],
)
def test_a_quota_of_cpu_time_is_found(tmp_path, version, path, files, options, cpus):
    from fastrnn._cgroup import cpu_quota

    process, mount = control_group(tmp_path, version, path, files, **options)
    quota = cpu_quota(process)
    assert (quota and quota.cpus) == cpus
    if quota:
        assert quota.threads() == max(1, -int(-cpus // 1))
        assert quota.file.startswith(mount) and Path(quota.file).exists()


def test_both_versions_at_once_and_none(tmp_path):
    from fastrnn._cgroup import cpu_quota

    assert cpu_quota(str(tmp_path)) is None
    process, _ = control_group(tmp_path, 2, "/a", {"a": {"cpu.max": "300000 100000\n"}})
    control_group(tmp_path, 1, "/b", {"b": {"cpu.cfs_quota_us": "120000\n", "cpu.cfs_period_us": "100000\n"}})
    quota = cpu_quota(process)
    assert quota is not None and quota.cpus == 1.2 and quota.threads() == 2


def test_the_number_of_threads_says_where_it_is_from(monkeypatch):
    from fastrnn import _native, runtime
    from fastrnn._cgroup import Quota

    before = fastrnn.get_num_threads(), runtime._default_threads
    try:
        monkeypatch.delenv("FASTRNN_NUM_THREADS", raising=False)
        _native.set_num_threads(8)
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(1.5, "/sys/fs/cgroup/a/cpu.max"))
        runtime.bound_threads()
        assert fastrnn.get_num_threads() == 2
        assert runtime.config()["num_threads_from"] == "a quota of 1.5 CPUs in /sys/fs/cgroup/a/cpu.max"
        fastrnn.set_num_threads(5)
        assert runtime.config()["num_threads_from"] == "a call of set_num_threads or threadpoolctl"
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(64.0, "f"))
        runtime.bound_threads()  # more than there are
        assert fastrnn.get_num_threads() == 5
        assert runtime.config()["num_threads_from"] == "the CPUs that this process may run on: 5"
        monkeypatch.setattr(runtime, "cpu_quota", lambda: Quota(1.0, "f"))
        monkeypatch.setenv("FASTRNN_NUM_THREADS", "5")
        runtime.bound_threads()
        assert fastrnn.get_num_threads() == 5
        assert runtime.config()["num_threads_from"] == "the environment variable FASTRNN_NUM_THREADS"
    finally:
        fastrnn.set_num_threads(before[0])
        runtime._default_threads = before[1]


# --- The caller's NumPy settings, and his memory ----------------------------------------------------------------------

SCALES = {"f4": [1, 1e-30, 1e-40, 1e3, 3e37], "f8": [1, 1e-300, 1e-310, 1e3, 1e300]}
RNG = np.random.default_rng(0)


def layers_of(dtype):
    options = {"dtype": dtype, "rng": 0}
    yield fastrnn.RNN(3, 4, nonlinearity="relu", **options)
    yield fastrnn.GRU(3, 4, num_layers=2, bidirectional=True, learn_initial_state=True, **options)
    yield fastrnn.LSTM(3, 4, proj_size=2, peephole=True, dropout=0.5, num_layers=2, **options)
    yield fastrnn.Jordan(3, 4, 3, output_activation="softmax", **options)
    yield fastrnn.Linear(3, 4, **options)
    yield fastrnn.Dropout(0.3, rng=0)
    yield from (fastrnn.LastStep(), fastrnn.MeanPool(), fastrnn.MaxPool())
    yield from (fastrnn.Activation(name) for name in ("sigmoid", "tanh", "relu", "softmax"))


@pytest.mark.parametrize("dtype, scale", [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales])
def test_rounding_to_zero_raises_nothing(dtype, scale):
    """Results under np.seterr(all="raise") are those without."""
    x = (RNG.standard_normal((5, 4, 3)) * scale).astype(dtype)
    classes, truths = RNG.integers(0, 3, (5, 4)), (x > 0).astype(dtype)

    def run():
        results = []
        for layer in layers_of(dtype):
            y, _ = layer.run(x, training=True)
            layer.run_backward(y)
            results += [y, *layer.grads.values()]
            if "state" in layer.accepts and layer.state_spec.directions == 1:
                results.append(layer.stream(4).step(x[0]))
        losses = fastrnn.losses
        for reduction in ("none", "sequence"):
            if scale < 1e300:  # what overflows is told
                results += losses.cross_entropy(x, classes, reduction=reduction)
            results += losses.mse(x, x[::-1].copy(), reduction=reduction)
            results += losses.binary_cross_entropy_with_logits(x, truths, reduction=reduction)
        grads = {"w": x.copy()}
        results += [fastrnn.clip_grad_norm(grads, 1e-30), grads["w"].copy()]
        fastrnn.clip_grad_value(grads, 1e-35)
        results.append(grads["w"])
        return results

    with np.errstate(all="raise"):
        raising = run()
    with np.errstate(all="ignore"):
        expected = run()
    assert len(raising) > 40
    for got, wanted in zip(raising, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "piecewise"])
def test_generation_and_beams_of_saturated_logits_raise_nothing(own):
    layers = [fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 7, rng=0)]
    layers[2].params["weight"][...] *= 1e4
    model = fastrnn.Sequential(*layers, *([fastrnn.Activation("tanh"), fastrnn.Linear(7, 7, rng=0)] if own else []))
    if own:
        layers[0].params["weight"][...] *= 1e-38
        model[4].params["weight"][...] *= 1e4
    pair = fastrnn.EncoderDecoder(
        fastrnn.Sequential(fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0)),
        fastrnn.Sequential(fastrnn.Embedding(7, 3, rng=0), fastrnn.GRU(3, 4, rng=0), layers[2]),
        start=1,
        end=2,
    )
    with np.errstate(all="raise"):
        for options in ({}, {"mode": "sample", "rng": 0, "temperature": 1e-3, "top_k": 3}):
            assert model.generate(np.array([1, 2]), 6, **options).shape == (2, 6)
        for mode in ("greedy", "beam"):
            assert pair.generate(np.array([[1], [2], [3]]), steps=4, mode=mode).shape == (1, 4)


def test_conversions_and_references_round_to_zero_in_silence():
    from fastrnn import reference

    tiny = RNG.standard_normal((5, 4, 3)) * 1e-300
    layer, linear = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(3, 2, rng=0)
    weights = [RNG.standard_normal(shape) * 1e-310 for shape in ((12, 3), (12, 4), (12,), (12,))]
    with np.errstate(all="raise"):
        assert not linear(tiny).any() or linear.params["bias"].any()
        layer(tiny)
        layer.load_state_dict({name: np.full(a.shape, 1e-300) for name, a in layer.params.items()})
        model = fastrnn.Sequential(layer)
        model.params["0.weight_ih_l0"] = np.full((12, 3), 1e-300)
        fastrnn.datasets.mnist()
        for scale in (1, 1e303):
            output, h_n, cache = reference.gru_forward(tiny * scale, None, *weights)
            reference.gru_backward(output, h_n, cache)
    assert not layer.params["weight_ih_l0"].any()


def whole(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_small_results_do_not_keep_large_arrays():
    x = RNG.standard_normal((50, 4, 3)).astype(np.float32)
    for batch_first in (False, True):
        for lengths in (None, np.array([50, 1, 0, 7])):
            steps = x.swapaxes(0, 1) if batch_first else x
            last, _ = fastrnn.LastStep(batch_first=batch_first).run(steps, lengths=lengths)
            assert whole(last).size == last.size
    model = fastrnn.Sequential(fastrnn.GRU(3, 4, rng=0), fastrnn.LastStep())
    y, state = model.run(x)
    assert whole(y).size == y.size and whole(state[0]).size == state[0].size
    (train, _), (test, labels) = fastrnn.datasets.mnist()
    assert len(train) > len(test) and whole(test).size == test.size and whole(labels).size == labels.size
