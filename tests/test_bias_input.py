"""RNN, GRU and LSTM with bias="input": what a layer computes whose bias_hh is 0, without one. Letters: T, N, D, H."""

import importlib.util
import os

import numpy as np
import pytest

import fastrnn

pytestmark = pytest.mark.filterwarnings("default:__array__ implementation")

T, N, D, H = 6, 3, 4, 5
CELLS = [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM]


def pair(make, **options):
    """A layer with bias="input", and one with both biases, the second 0."""
    ours = make(D, H, bias="input", rng=0, **options)
    both = make(D, H, rng=1, **options)
    values = {name: np.zeros_like(a) for name, a in both.state_dict().items()}
    both.load_state_dict(values | ours.state_dict())
    return ours, both


def x_of(seed=0, T=T):
    return np.random.default_rng(seed).standard_normal((T, N, D), dtype=np.float32)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"dtype": np.float64}])
@pytest.mark.parametrize("make", CELLS)
def test_results_and_gradients(make, options):
    ours, both = pair(make, **options)
    assert ours.bias == "input" and not [name for name in ours.params if name.startswith("bias_hh")]
    assert [name for name in ours.params if name.startswith("bias_ih")]
    x = x_of().astype(options.get("dtype", np.float32))
    for layer in (ours, both):
        layer.zero_grad()
        layer.y, layer.state_n = layer(x, training=True)
        layer.dx, _ = layer.backward(np.cos(layer.y))
    np.testing.assert_array_equal(ours.y, both.y)
    np.testing.assert_array_equal(ours.dx, both.dx)
    assert set(both.grads) - set(ours.grads) == {name for name in both.params if name.startswith("bias_hh")}
    for name, gradient in ours.grads.items():
        np.testing.assert_array_equal(gradient, both.grads[name])
    np.testing.assert_array_equal(ours(x)[0], both(x)[0])
    ours.prepare()
    np.testing.assert_array_equal(ours(x)[0], both(x)[0])


@pytest.mark.parametrize("make", CELLS)
def test_streams_int8_and_configurations(make):
    ours, both = pair(make)
    x = x_of()
    streams = ours.stream(N), both.stream(N)
    for x_t in x:
        np.testing.assert_array_equal(*(stream.step(x_t) for stream in streams))
    np.testing.assert_array_equal(fastrnn.quantize(ours)(x)[0], fastrnn.quantize(both)(x)[0])
    again = make(**ours.arguments())
    again.load_state_dict(ours.state_dict())
    np.testing.assert_array_equal(again(x)[0], ours(x)[0])


def test_a_saved_model_keeps_it(tmp_path):
    model = fastrnn.Sequential(fastrnn.LSTM(D, H, bias="input", forget_bias=1.0, rng=0), fastrnn.Linear(H, 2, rng=0))
    assert (model.layers[0].params["bias_ih_l0"][H : 2 * H] == 1).all()
    trainer = fastrnn.Trainer(model, loss="mse")
    trainer.fit(x_of().swapaxes(0, 1), np.zeros((N, T, 2), np.float32), epochs=1, progress=False)
    trainer.save(tmp_path / "model.safetensors")
    again = fastrnn.Trainer.load(tmp_path / "model.safetensors").model
    assert again.layers[0].bias == "input"
    np.testing.assert_array_equal(again(x_of())[0], model(x_of())[0])


@pytest.mark.parametrize("bias", ["both", "hidden", ""])
def test_other_words_are_refused(bias):
    with pytest.raises(ValueError, match="bias: expected True, False or 'input', got"):
        fastrnn.GRU(D, H, bias=bias)


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed")
@pytest.mark.parametrize("make", CELLS)
def test_written_as_onnx(make, tmp_path):
    from fastrnn.interop import onnx as door

    ours, _ = pair(make, bidirectional=True)
    door.save(ours, tmp_path / "model.onnx")
    (again,) = door.load_layers(tmp_path / "model.onnx").values()
    np.testing.assert_array_equal(again(x_of())[0], ours(x_of())[0])


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
@pytest.mark.parametrize("make", CELLS)
def test_to_keras_and_back(make, tmp_path):
    from fastrnn.interop import keras as door

    options = {"reset_after": False} if make is fastrnn.GRU else {}
    ours, _ = pair(make, batch_first=True, **options)
    door.save(ours, tmp_path / "model.keras")
    again = door.load(tmp_path / "model.keras")
    layer = again.layers[0] if isinstance(again, fastrnn.Sequential) else again
    assert layer.bias == "input"
    for name, a in ours.params.items():
        np.testing.assert_array_equal(layer.params[name], a)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("keras", "torch")), reason="keras or torch is not installed"
)
@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_fine_tuning_moves_as_in_keras(kind):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    from fastrnn.interop import keras as door

    options = {"reset_after": False} if kind == "GRU" else {}
    theirs = getattr(keras.layers, kind)(H, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((T, D)), theirs])
    ours = door.from_keras(theirs)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = x_of().swapaxes(0, 1), np.random.default_rng(1).standard_normal((N, T, H), dtype=np.float32)
    model.fit(x, y, epochs=3, batch_size=N, verbose=0)
    trainer = fastrnn.Trainer(fastrnn.Sequential(ours), loss="mse", optimizer=fastrnn.SGD(lr=0.1))
    trainer.fit(x, y, epochs=3, batch_size=N, progress=False)
    moved = door.from_keras(theirs)
    for name, a in ours.state_dict().items():
        np.testing.assert_allclose(moved.params[name], a, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_converted_for_torch(tmp_path):
    import torch

    from fastrnn.cli import main

    fastrnn.Trainer(fastrnn.Sequential(pair(fastrnn.GRU)[0])).save(tmp_path / "in.safetensors")
    assert not main(["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.pt")])
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    prefix = next(iter(found)).rpartition(".")[0]
    module = torch.nn.GRU(D, H)
    module.load_state_dict({name.removeprefix(prefix + "."): a for name, a in found.items()})
    assert not module.bias_hh_l0.any()
