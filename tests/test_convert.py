"""`fastrnn convert` and the files it reads and writes: every way between them keeps what a model computes.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

import os

import numpy as np
import pytest

import fastrnn
from fastrnn.cli.main import main
from fastrnn.interop.tensors import read_tensors, recurrent_layers, write_tensors

D, H = 3, 5
X = np.random.default_rng(0).standard_normal((6, 4, D)).astype(np.float32)
MAKERS = {
    "rnn": lambda: fastrnn.RNN(D, H, 2, rng=0),
    "gru": lambda: fastrnn.GRU(D, H, bidirectional=True, rng=0),
    "lstm": lambda: fastrnn.LSTM(D, H, 2, bidirectional=True, rng=0),
    "no bias": lambda: fastrnn.LSTM(D, H, bias=False, rng=0),
    "projection": lambda: fastrnn.LSTM(D, H, proj_size=2, rng=0),
}


def convert(*arguments):
    main(["convert", *map(str, arguments)])


def fails(capsys, *arguments):
    """The one line that is said of a failure."""
    with pytest.raises(SystemExit) as ended:
        convert(*arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", MAKERS)
def test_layers_are_read_from_names_and_shapes(name):
    layer = MAKERS[name]()
    tensors = {f"encoder.rnn.{key}": a for key, a in layer.state_dict().items()} | {"head.weight": np.ones((2, H))}
    (found,) = recurrent_layers(tensors).values()
    assert type(found) is type(layer) and found.bidirectional == layer.bidirectional
    np.testing.assert_array_equal(found(X)[0], layer(X)[0])


def test_cells_and_several_layers():
    tensors = {"a.weight_ih": np.ones((3 * H, D)), "a.weight_hh": np.ones((3 * H, H))}
    tensors |= {f"b.{key}": a for key, a in MAKERS["rnn"]().state_dict().items()}
    found = recurrent_layers(tensors, nonlinearity="relu", batch_first=True)
    assert list(found) == ["a.", "b."] and type(found["a."]) is fastrnn.GRU
    assert found["b."].nonlinearity == "relu" and found["b."].batch_first


@pytest.mark.parametrize(
    "changed", [{"weight_hh_l0": (H, 4 * H)}, {"weight_hh_l0": (2 * H, H)}, {"weight_ih_l0": (D, 4 * H)}], ids=str
)
def test_shapes_of_another_order_are_refused(changed):
    tensors = fastrnn.LSTM(D, H, rng=0).state_dict()
    tensors |= {name: np.ones(shape, np.float32) for name, shape in changed.items()}
    with pytest.raises(ValueError, match="expected"):
        recurrent_layers(tensors)


def test_between_files_of_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    layer = MAKERS["lstm"]()
    module = torch.nn.LSTM(D, H, 2, bidirectional=True)
    module.load_state_dict({key: torch.tensor(a) for key, a in layer.state_dict().items()})
    torch.save(
        {"state_dict": {f"net.rnn.{k}": t for k, t in module.state_dict().items()}, "epoch": 3}, tmp_path / "a.ckpt"
    )
    convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors", "--prefix", "net.rnn.")
    convert(tmp_path / "b.safetensors", tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    module.load_state_dict(state)
    for key, a in layer.state_dict().items():
        np.testing.assert_array_equal(state[key].numpy(), a)
    torch.save(module.bfloat16().state_dict(), tmp_path / "half.pt")
    from safetensors.torch import save_file

    save_file(module.state_dict(), tmp_path / "half.safetensors")
    for name in ("half.pt", "half.safetensors"):
        found = read_tensors(tmp_path / name)
        assert all(a.dtype == np.float32 for a in found.values())
        np.testing.assert_allclose(found["bias_ih_l0"], layer.state_dict()["bias_ih_l0"], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "no bias"])
def test_through_onnx(name, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    layer = MAKERS[name]()
    write_tensors(tmp_path / "a.safetensors", {f"rnn.{key}": a for key, a in layer.state_dict().items()})
    convert(tmp_path / "a.safetensors", tmp_path / "b.onnx", "--prefix", "rnn.")
    session = runtime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    feeds = {"x": X, "lengths": np.full(4, 6, np.int32)}
    for value in session.get_inputs()[2:]:
        feeds[value.name] = np.zeros((value.shape[0], 4, H), np.float32)
    np.testing.assert_allclose(session.run(["y"], feeds)[0], layer(X)[0], atol=2e-6)
    convert(tmp_path / "b.onnx", tmp_path / "c.safetensors")  # a node for each level
    x = X
    for found in recurrent_layers(read_tensors(tmp_path / "c.safetensors")).values():
        x = found(x)[0]
    np.testing.assert_allclose(x, layer(X)[0], atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "no bias"])
def test_names_come_back_from_onnx(name, prefix, tmp_path):
    pytest.importorskip("onnx")
    there = {f"{prefix}{key}": a for key, a in MAKERS[name]().state_dict().items()}
    write_tensors(tmp_path / "a.safetensors", there)
    convert(tmp_path / "a.safetensors", tmp_path / "b.onnx")
    convert(tmp_path / "b.onnx", tmp_path / "c.safetensors")
    back = read_tensors(tmp_path / "c.safetensors")
    assert back.keys() == there.keys()
    for key, a in there.items():
        np.testing.assert_array_equal(back[key], a)


def test_levels_of_a_chain_come_back_from_onnx_with_their_names(tmp_path):
    pytest.importorskip("onnx")
    model = fastrnn.Sequential(fastrnn.GRU(D, H, 2), fastrnn.LSTM(H, H, bidirectional=True), rng=0)
    fastrnn.serialization.save_model(model, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.onnx")
    convert(tmp_path / "b.onnx", tmp_path / "c.safetensors")
    assert read_tensors(tmp_path / "c.safetensors").keys() == model.params.keys()


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "no bias"])
def test_through_keras_files(name, tmp_path):
    pytest.importorskip("h5py")
    layer = MAKERS[name]()
    write_tensors(tmp_path / "a.safetensors", layer.state_dict())
    convert(tmp_path / "a.safetensors", tmp_path / "b.keras")
    convert(tmp_path / "b.keras", tmp_path / "c.safetensors")
    back = fastrnn.serialization.load_model(tmp_path / "c.safetensors")
    y = back(X.swapaxes(0, 1))
    y = y[0] if isinstance(y, tuple) else y
    np.testing.assert_allclose(y.swapaxes(0, 1), layer(X)[0], atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_keras_reads_what_was_written(tmp_path):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    for package in ("h5py", "torch", "keras"):
        pytest.importorskip(package)
    import keras

    from fastrnn.interop.keras import save

    model = fastrnn.Sequential(
        fastrnn.Embedding(11, D, rng=0),
        fastrnn.LSTM(D, H, 2, bidirectional=True, merge="sum", rng=0, batch_first=True),
        fastrnn.GRU(H, H, rng=1, batch_first=True, gate_activation="hard_sigmoid_6"),
        fastrnn.GRU(H, H, rng=2, batch_first=True, reset_after=False),
        fastrnn.RNN(H, H, rng=3, batch_first=True, nonlinearity="relu"),
        fastrnn.Dropout(0.5),
        fastrnn.Linear(H, 2, rng=4),
        fastrnn.Activation("softmax"),
    )
    for layer in model:  # biases that differ from zero
        for name, a in layer.params.items():
            if name.startswith("bias"):
                a[...] = np.random.default_rng(1).standard_normal(a.shape)
    save(model, tmp_path / "model.keras")
    tokens = np.random.default_rng(0).integers(11, size=(4, 7))
    theirs = np.asarray(keras.saving.load_model(tmp_path / "model.keras").predict(tokens, verbose=0))
    np.testing.assert_allclose(theirs, model(tokens), atol=1e-5)


def test_what_cannot_be_written_is_refused(tmp_path, capsys):
    pytest.importorskip("h5py")
    from fastrnn.interop.keras import save

    for model, word in (
        (fastrnn.LSTM(D, H, peephole=True), "peephole"),
        (fastrnn.LSTM(D, H, proj_size=2), "proj_size"),
        (fastrnn.LSTM(D, H, zoneout=(0.0, 0.2)), "zoneout"),
        (fastrnn.LSTM(D, H).state_dict(), "expected a layer or Sequential, got"),
        (fastrnn.GRU(D, H, gate_activation="hard_sigmoid"), "gate_activation"),
        (fastrnn.LastStep(), "LastStep"),
    ):
        with pytest.raises((ValueError, TypeError), match=word):
            save(model, tmp_path / "model.keras")
    path = tmp_path / "two.safetensors"
    state = MAKERS["rnn"]().state_dict()
    write_tensors(path, {f"{part}.{key}": a for part in "ab" for key, a in state.items()})
    assert "'a.', 'b.'" in fails(capsys, path, tmp_path / "b.keras")
    assert "--prefix" in fails(capsys, path, tmp_path / "b.pt", "--prefix", "c.")
    assert "ends in" in fails(capsys, path, tmp_path / "b.txt")
    assert "No such file" in fails(capsys, tmp_path / "none.safetensors", tmp_path / "b.pt")
    path.write_bytes(b"nonsense")
    assert "cannot be read" in fails(capsys, path, tmp_path / "b.keras")


# ---- Files that cannot be written, or not be read ----


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "onnx", "keras"])
def test_an_earlier_file_outlives_a_failure(suffix, tmp_path, capsys, monkeypatch):
    for package in {"pt": ["torch"], "onnx": ["onnx"], "keras": ["h5py"]}.get(suffix, []):
        pytest.importorskip(package)
    write_tensors(tmp_path / "a.safetensors", MAKERS["gru"]().state_dict())
    there = tmp_path / f"b.{suffix}"
    there.write_bytes(b"earlier")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left" in fails(capsys, tmp_path / "a.safetensors", there)
    assert there.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 2
    (tmp_path / f"link.{suffix}").symlink_to(there)
    there.chmod(0o600)
    convert(tmp_path / "a.safetensors", tmp_path / f"link.{suffix}")
    assert (tmp_path / f"link.{suffix}").is_symlink() and there.stat().st_mode & 0o777 == 0o600
    assert there.read_bytes() != b"earlier"


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "onnx", "keras"])
def test_places_for_no_file_are_refused(suffix, tmp_path, capsys):
    for package in {"pt": ["torch"], "onnx": ["onnx"], "keras": ["h5py"]}.get(suffix, []):
        pytest.importorskip(package)
    write_tensors(tmp_path / "a.safetensors", MAKERS["gru"]().state_dict())
    assert "got no folder" in fails(capsys, tmp_path / "a.safetensors", tmp_path / "none" / f"b.{suffix}")
    (tmp_path / f"c.{suffix}").mkdir()
    assert "got a folder" in fails(capsys, tmp_path / "a.safetensors", tmp_path / f"c.{suffix}")


def test_whole_modules_of_torch_are_refused_without_advice_to_run_them(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.LSTM(D, H), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"no file of torch")
    for name in ("a.pt", "b.pt"):
        said = fails(capsys, tmp_path / name, tmp_path / "c.onnx")
        assert "holds objects other than tensors" in said and "weights_only" not in said


@pytest.mark.parametrize("cut", [0, 1, -4])
def test_a_damaged_model_is_not_read_as_tensors(cut, tmp_path, capsys):
    fastrnn.serialization.save_model(MAKERS["lstm"](), tmp_path / "a.safetensors")
    whole = bytearray((tmp_path / "a.safetensors").read_bytes())
    if cut == 0:
        whole[-3] ^= 0x40
    else:
        del whole[len(whole) // 2 if cut == 1 else cut :]
    (tmp_path / "a.safetensors").write_bytes(whole)
    said = fails(capsys, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert ("checksum" if cut == 0 else "cut short") in said and not (tmp_path / "b.safetensors").exists()


def test_options_of_tensors_are_refused_for_models(tmp_path, capsys):
    fastrnn.serialization.save_model(MAKERS["rnn"](), tmp_path / "a.safetensors")
    for option in (["--prefix", "x."], ["--batch-first"], ["--nonlinearity", "relu"]):
        said = fails(capsys, tmp_path / "a.safetensors", tmp_path / "b.safetensors", *option)
        assert f"{option[0]}: expected none" in said


def test_damaged_keras_files_are_named(tmp_path, capsys):
    pytest.importorskip("h5py")
    from fastrnn.interop.keras import save

    save(MAKERS["gru"](), tmp_path / "a.keras")
    whole = (tmp_path / "a.keras").read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 0x40
    for data in (b"", whole[:50], bytes(changed)):
        (tmp_path / "b.keras").write_bytes(data)
        assert "b.keras: expected a Keras file" in fails(capsys, tmp_path / "b.keras", tmp_path / "c.onnx")
    (tmp_path / "d.keras").mkdir()
    assert "d.keras: expected a Keras file" in fails(capsys, tmp_path / "d.keras", tmp_path / "c.onnx")
