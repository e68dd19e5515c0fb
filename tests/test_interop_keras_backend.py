"""Keras's own layers on fastrnn: `enable`, under the torch backend, and under numpy in a process of its own."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
from process_cases import run_python

for package in ("keras", "torch"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.filterwarnings("default")

import keras  # noqa: E402
import torch  # noqa: E402
from keras import layers as L  # noqa: E402

from fastrnn.interop import keras as door  # noqa: E402
from fastrnn.interop.torch import _autograd  # noqa: E402

N, T, D, H = 3, 6, 4, 5


@pytest.fixture
def runs(monkeypatch):
    """How often our kernels ran."""
    count = []
    kept = _autograd.run_sequence
    monkeypatch.setattr(_autograd, "run_sequence", lambda *args: count.append(1) or kept(*args))
    yield count
    door.disable()


TAKEN = {
    "lstm": lambda: L.LSTM(H, return_sequences=True, return_state=True),
    "lstm-last": lambda: L.LSTM(H, use_bias=False),
    "lstm-backwards": lambda: L.LSTM(H, go_backwards=True, return_sequences=True),
    "gru": lambda: L.GRU(H, return_sequences=True, return_state=True),
    "lstm-zeros": lambda: L.LSTM(H, return_sequences=True, return_state=True, zero_output_for_mask=True),
    "gru-zeros-last": lambda: L.GRU(H, zero_output_for_mask=True, go_backwards=True),
    "bidirectional": lambda: L.Bidirectional(L.GRU(H, return_sequences=True)),
    "gru-no-bias": lambda: L.GRU(H, use_bias=False, go_backwards=True),
}
LEFT = {
    "gru-before": lambda: L.GRU(H, reset_after=False),
    "lstm-relu": lambda: L.LSTM(H, activation="relu"),
    "rnn": lambda: L.SimpleRNN(H),
}


def run(layer, x, **options):
    """Outputs and gradients of x and of the weights."""
    x = torch.tensor(x, requires_grad=True)
    for weight in layer.trainable_variables:
        weight.value.grad = None
    y = layer(x, **options)
    parts = list(y) if isinstance(y, (list, tuple)) else [y]
    sum((part * torch.linspace(-1, 2, part.numel()).reshape(part.shape)).sum() for part in parts).backward()
    return [part.detach() for part in parts] + [x.grad] + [weight.value.grad for weight in layer.trainable_variables]


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_layers_keep_their_results_and_gradients(name, runs):
    layer = (TAKEN | LEFT)[name]()
    x = np.random.default_rng(0).standard_normal((N, T, D)).astype(np.float32)
    layer.build(x.shape)
    for weight in layer.trainable_variables:
        weight.assign(np.random.default_rng(1).standard_normal(weight.shape) * 0.5)
    before = run(layer, x)
    door.enable()
    door.enable()
    after = run(layer, x)
    assert bool(runs) == (name in TAKEN)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    runs.clear()
    door.disable()
    run(layer, x)
    assert not runs


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_masks(name, runs):
    layer = (TAKEN | LEFT)[name]()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, D)).astype(np.float32)
    layer.build(x.shape)
    for mask in (
        np.arange(T) < np.array([[6], [2], [4]]),
        np.arange(T) >= np.array([[0], [2], [6]]),
        rng.random((N, T)) < 0.5,
        np.zeros((N, T), bool),
    ):
        before = run(layer, x, mask=torch.tensor(mask))
        door.enable()
        after = run(layer, x, mask=torch.tensor(mask))
        assert bool(runs) == (name in TAKEN)
        door.disable()
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_masks_over_initial_states(kind, runs):
    """Of a row that begins with a masked step from a state Keras's output is 0: that call is left to Keras."""
    layer = TAKEN[kind]()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, D)).astype(np.float32)
    state = [torch.tensor(rng.standard_normal((N, H)).astype(np.float32)) for _ in range(2 if kind == "lstm" else 1)]
    layer.build(x.shape)
    for mask, taken in ((np.arange(T) < [[6], [2], [4]], True), (np.arange(T) >= [[0], [2], [6]], False)):
        options = {"mask": torch.tensor(mask), "initial_state": state}
        before = run(layer, x, **options)
        door.enable()
        runs.clear()
        after = run(layer, x, **options)
        assert bool(runs) == taken
        door.disable()
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_model_trains_alike(runs):
    x = np.random.default_rng(0).standard_normal((32, 7, D)).astype(np.float32)
    y = (x[:, 2, 0] > 0).astype(np.float32)
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([L.Bidirectional(L.LSTM(H, return_sequences=True)), L.GRU(H), L.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy")
        if ours:
            door.enable()
        losses.append(model.fit(x, y, epochs=3, batch_size=8, verbose=0).history["loss"])
    assert runs
    np.testing.assert_allclose(*losses, rtol=1e-4)


SCRIPT = """
import numpy as np, keras
from keras import layers as L
from fastrnn import functional
from fastrnn.interop import keras as door

count = []
for name in ("lstm_forward", "gru_forward"):
    def counted(*args, kept=getattr(functional, name), **options):
        count.append(1)
        return kept(*args, **options)
    setattr(functional, name, counted)
x = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
for make in (L.LSTM, L.GRU):
    zeros = {"return_sequences": True, "zero_output_for_mask": True}
    for options in ({}, {"return_sequences": True, "go_backwards": True}, {"use_bias": False}, zeros):
        layer = make(5, **options)
        before = layer(x)
        door.enable()
        count.clear()
        np.testing.assert_allclose(layer(x), before, atol=1e-6)
        assert count
        door.disable()
        mask = np.arange(6) < [[6], [2], [4]]
        before = layer(x, mask=mask)
        door.enable()
        count.clear()
        np.testing.assert_allclose(layer(x, mask=mask), before, atol=1e-6)
        assert count
        door.disable()
print("equal under", keras.backend.backend())
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="Keras's numpy backend imports jax")
def test_the_numpy_backend(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run_python(script, KERAS_BACKEND="numpy")
    assert done.returncode == 0 and "equal under numpy" in done.stdout, done.stderr
