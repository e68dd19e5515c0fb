"""Masks against Keras's own, on its PyTorch backend: outputs, final states and gradients.

Letters: T time steps, N batch, D input size, H units.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close

for package in ("keras", "torch", "h5py"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.filterwarnings("default")

import keras  # noqa: E402
import torch  # noqa: E402
from keras import layers as L  # noqa: E402

from fastrnn.interop import keras as door  # noqa: E402

N, T, D, H = 4, 7, 3, 5
CELLS = {
    "rnn": lambda **more: L.SimpleRNN(H, **more),
    "gru": lambda **more: L.GRU(H, **more),
    "gru-before": lambda **more: L.GRU(H, reset_after=False, **more),
    "lstm": lambda **more: L.LSTM(H, **more),
}


def case(name: str, both: bool, seed: int = 0) -> tuple[Any, Any, np.ndarray, np.ndarray, np.ndarray]:
    """A Keras layer, ours, x (N, T, D), a mask (N, T) with rows of no real step at the beginning or at all, dy."""
    rng = np.random.default_rng(seed)
    layer = CELLS[name](return_sequences=True)
    layer = L.Bidirectional(layer) if both else layer
    x = rng.standard_normal((N, T, D)).astype(np.float32)
    layer(x)
    layer.set_weights([rng.standard_normal(a.shape).astype(np.float32) * 0.6 for a in layer.get_weights()])
    mask = rng.random((N, T)) < 0.6
    mask[0, :3], mask[1] = False, False
    return layer, door.from_keras(layer), x, mask, rng.standard_normal((N, T, H * (1 + both))).astype(np.float32)


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients(name: str, both: bool) -> None:
    layer, ours, x, mask, dy = case(name, both)
    leaf = torch.tensor(x, requires_grad=True)
    theirs = layer(leaf, mask=torch.tensor(mask))
    if both:  # Keras's Bidirectional shows zeros at masked steps
        dy *= mask[:, :, None]
    (theirs * torch.tensor(dy)).sum().backward()
    output, _ = ours(x, mask=mask, training=True)
    shown = output * mask[:, :, None] if both else output
    assert_output_close(shown, theirs.detach().numpy().astype(np.float64), "float32")
    dx, _ = ours.backward(dy)
    assert_gradient_close(dx, leaf.grad.numpy().astype(np.float64), "float32", "dx")
    D_first = [w.value.grad.numpy() for w in layer.trainable_weights]
    per_direction = len(D_first) // (1 + both)
    for s, suffix in enumerate(("", "_reverse")[: 1 + both]):
        half = D_first[s * per_direction : (s + 1) * per_direction]
        kind = {"rnn": "SimpleRNN", "gru": "GRU", "gru-before": "GRU", "lstm": "LSTM"}[name]
        wanted = door._recurrent_weights(kind, half, True, suffix)
        for key, value in wanted.items():
            if "bias_hh" in key and name != "gru":
                continue  # Keras has one bias there
            assert_gradient_close(ours.grads[key], value.astype(np.float64), "float32", key)


@pytest.mark.parametrize("name", CELLS)
def test_final_states(name: str) -> None:
    _, ours, x, mask, _ = case(name, False)
    cell = CELLS[name](return_state=True)
    cell(x)
    layer, *_ = case(name, False)
    cell.set_weights(layer.get_weights())
    _, *states = cell(x, mask=torch.tensor(mask))
    _, state_n = ours(x, mask=mask)
    for got, wanted in zip(state_n if isinstance(state_n, tuple) else (state_n,), states):
        assert_output_close(got[0], wanted.detach().numpy().astype(np.float64), "float32")


def test_masking_and_zeros_of_an_embedding() -> None:
    """What Keras finds by itself is given at the call, and `mask_of` finds it in the same way."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, T, D)).astype(np.float32)
    x[0, 2:4] = x[1, 0] = -1
    np.testing.assert_array_equal(door.mask_of(x, -1), keras.ops.convert_to_numpy(L.Masking(-1.0).compute_mask(x)))
    tokens = rng.integers(0, 3, (N, T))
    model = keras.Sequential([L.Input((None,)), L.Embedding(3, D, mask_zero=True), L.LSTM(H)])
    ours = door.from_keras(model)
    theirs = keras.ops.convert_to_numpy(model(tokens)).astype(np.float64)
    assert_output_close(ours(tokens, mask=door.mask_of(tokens)), theirs, "float32")
    masking = keras.Sequential([L.Input((T, D)), L.Masking(-1.0), L.LSTM(H)])
    with pytest.raises(door.UnsupportedLayer, match=r"leave it out.*mask=mask_of\(x, -1\.0\)"):
        door.from_keras(masking)
