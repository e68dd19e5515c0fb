"""fastrnn.interop.keras against Keras itself on its PyTorch backend.

Letters: T time steps, N batch, D input size, H units.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
from conftest import assert_output_close

for package in ("keras", "torch", "h5py"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")

pytestmark = pytest.mark.filterwarnings("default")

import keras  # noqa: E402
from keras import layers as L  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.interop import keras as door  # noqa: E402
from fastrnn.interop.final_state import FinalState  # noqa: E402

N, T, D, H = 3, 6, 4, 5
RECURRENT = {
    "rnn": lambda **more: L.SimpleRNN(H, **more),
    "rnn-relu": lambda **more: L.SimpleRNN(H, activation="relu", **more),
    "gru": lambda **more: L.GRU(H, **more),
    "gru-before": lambda **more: L.GRU(H, reset_after=False, **more),
    "gru-hard": lambda **more: L.GRU(H, recurrent_activation="hard_sigmoid", activation="relu", **more),
    "lstm": lambda **more: L.LSTM(H, **more),
    "lstm-hard": lambda **more: L.LSTM(H, recurrent_activation="hard_sigmoid", **more),
    "lstm-no-bias": lambda **more: L.LSTM(H, use_bias=False, **more),
}


def with_random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.standard_normal(a.shape).astype(np.float32) * 0.6 for a in model.get_weights()])
    return model


def run(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x)), np.float64)


def outputs(model, x, **more):
    y = model(x, **more)
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("name", RECURRENT)
def test_layers(name, both, sequences):
    layer = RECURRENT[name](return_sequences=sequences)
    layer = L.Bidirectional(layer) if both else layer
    x = np.random.default_rng(1).standard_normal((N, T, D), dtype=np.float32)
    layer(x)
    with_random_weights(layer)
    assert_output_close(outputs(door.from_keras(layer), x), run(layer, x), "float32")


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("mode", ["sum", "mul", "ave", "concat"])
def test_what_becomes_of_two_directions(mode, sequences, tmp_path):
    layers = [L.Bidirectional(L.GRU(H, return_sequences=True), merge_mode=mode)]
    layers.append(L.Bidirectional(L.LSTM(H, return_sequences=sequences), merge_mode=mode))
    model = keras.Sequential([keras.Input((T, D)), *layers])
    with_random_weights(model)
    x = np.random.default_rng(1).standard_normal((N, T, D), dtype=np.float32)
    ours = door.from_keras(model)
    assert_output_close(ours(x), run(model, x), "float32")
    model.save(tmp_path / "m.keras")
    assert np.array_equal(door.load(tmp_path / "m.keras")(x), ours(x))
    assert fastrnn.layers.build(ours.config()).config() == ours.config()


def test_recurrent_dropout_is_kept(tmp_path):
    """It was dropped in silence, so that a model was tuned on without."""
    model = keras.Sequential(
        [
            keras.Input((T, D)),
            L.Bidirectional(L.LSTM(H, recurrent_dropout=0.3, return_sequences=True)),
            L.GRU(H, recurrent_dropout=0.2),
        ]
    )
    with_random_weights(model)
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(1).standard_normal((N, T, D), dtype=np.float32)
    for ours in (door.from_keras(model), door.load(tmp_path / "m.keras")):
        kept = [layer.noise.recurrent_dropout for layer in ours.flatten() if hasattr(layer, "noise")]
        assert kept == [0.3, 0.2]
        assert_output_close(ours(x), run(model, x), "float32")
        assert not np.allclose(ours(x, training=True), ours(x))


def test_a_layer_that_goes_backwards():
    layer = L.GRU(H, go_backwards=True)
    x = np.random.default_rng(1).standard_normal((N, T, D), dtype=np.float32)
    layer(x)
    assert_output_close(outputs(door.from_keras(with_random_weights(layer)), x), run(layer, x), "float32")


def tagger():
    return keras.Sequential(
        [
            L.Input((None,)),
            L.Embedding(11, D, mask_zero=True),
            L.Bidirectional(L.LSTM(H, return_sequences=True)),
            L.Dropout(0.3),
            L.GRU(H, return_sequences=True),
            L.TimeDistributed(L.Dense(3)),
            L.Activation("softmax"),
        ]
    )


def classifier():
    inputs = keras.Input((T, D))
    y = L.SimpleRNN(H, return_sequences=True)(inputs)
    y = L.LSTM(H, return_sequences=True)(y)
    y = L.LSTM(H)(y)
    return keras.Model(inputs, L.Dense(2, activation="sigmoid")(y))


@pytest.mark.parametrize("how", ["memory", "keras", "h5"])
@pytest.mark.parametrize("make", [tagger, classifier])
@pytest.mark.filterwarnings("ignore")
def test_models(make, how, tmp_path):
    model = with_random_weights(make())
    rng = np.random.default_rng(2)
    x = rng.integers(1, 11, (N, T)) if make is tagger else rng.standard_normal((N, T, D)).astype(np.float32)
    expected = run(model, x)
    if how == "memory":
        ours = door.from_keras(model)
    else:
        path = tmp_path / f"model.{how}"
        model.save(path)
        ours = door.load(path)
    assert_output_close(ours(x), expected, "float32")


def test_masks_are_lengths():
    """Keras passes the state over a masked step; fastrnn ends the sequence there."""
    model = with_random_weights(keras.Sequential([L.Input((None,)), L.Embedding(11, D, mask_zero=True), L.LSTM(H)]))
    tokens = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0]])
    ours = door.from_keras(model)
    assert_output_close(ours(tokens, lengths=np.array([4, 2, 1])), run(model, tokens), "float32")


@pytest.mark.filterwarnings("ignore")
def test_weights_files_go_into_a_model_that_is_given(tmp_path):
    model = with_random_weights(tagger())
    model.save_weights(tmp_path / "m.weights.h5")
    ours = door.from_keras(tagger())
    door.load(tmp_path / "m.weights.h5", ours)
    x = np.random.default_rng(2).integers(1, 11, (N, T))
    assert_output_close(ours(x), run(model, x), "float32")
    with pytest.raises(ValueError, match=r"m.weights.h5: expected a fastrnn model beside it"):
        door.load(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"m.weights.h5: expected weights of 1 layers for this model, got 4"):
        door.load(tmp_path / "m.weights.h5", fastrnn.GRU(2, 3))


@pytest.mark.filterwarnings("ignore")
def test_the_hard_sigmoid_of_an_old_file_is_the_old_one(tmp_path):
    import h5py

    layer = L.LSTM(H, recurrent_activation="hard_sigmoid", return_sequences=True)
    model = keras.Sequential([L.Input((T, D)), layer])
    model.save(tmp_path / "m.h5")
    assert door.load(tmp_path / "m.h5")[0].gate_activation == "hard_sigmoid_6"
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = "2.15.0"
    assert door.load(tmp_path / "m.h5")[0].gate_activation == "hard_sigmoid"


def test_what_fastrnn_does_not_have_is_refused(tmp_path):
    x = np.zeros((N, T, D), np.float32)
    cases = {
        "expected a merge_mode": L.Bidirectional(L.GRU(H), merge_mode=None),
        "activation: expected": L.GRU(H, activation="elu"),
        "recurrent_activation: expected": L.GRU(H, recurrent_activation="tanh"),
        "got Conv1D": L.Conv1D(3, 2),
        "go_backwards": L.GRU(H, go_backwards=True, return_sequences=True),
        "zero_output_for_mask: expected False": L.LSTM(H, return_sequences=True, zero_output_for_mask=True),
    }
    for words, layer in cases.items():
        layer(x)
        with pytest.raises(door.UnsupportedLayer, match=words):
            door.from_keras(layer)
    inputs = keras.Input((T, D))
    one = L.GRU(H, return_sequences=True)(inputs)
    model = keras.Model(inputs, L.Concatenate()([one, inputs]))
    with pytest.raises(door.UnsupportedLayer, match="chain|Concatenate"):
        door.from_keras(model)
    (tmp_path / "x.keras").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="x.keras: "):
        door.load(tmp_path / "x.keras")
    with pytest.raises(FileNotFoundError, match="y.keras: expected a Keras file"):
        door.load(tmp_path / "y.keras")


BACKWARD = {
    "activation": lambda: L.GRU(3, activation="relu", go_backwards=True),
    "recurrent_activation": lambda: L.GRU(3, recurrent_activation="hard_sigmoid", go_backwards=True),
    "reset_after": lambda: L.GRU(3, reset_after=False, go_backwards=True),
    "use_bias": lambda: L.GRU(3, use_bias=False, go_backwards=True),
    "units": lambda: L.GRU(4, go_backwards=True),
    "expected GRU": lambda: L.LSTM(3, go_backwards=True),
}


@pytest.mark.parametrize("option", BACKWARD)
def test_a_backward_layer_that_computes_something_else_is_refused(option, tmp_path):
    layer = L.Bidirectional(L.GRU(3), backward_layer=BACKWARD[option]())
    model = keras.Sequential([L.Input((None, 5)), layer])
    model.save(tmp_path / "model.keras")
    for read in (lambda: door.from_keras(model), lambda: door.load(tmp_path / "model.keras")):
        with pytest.raises(door.UnsupportedLayer, match=f"backward_layer: {option}"):
            read()


def test_a_backward_layer_that_computes_the_same_is_read():
    layer = L.Bidirectional(L.GRU(3), backward_layer=L.GRU(3, go_backwards=True, name="other"))
    x = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(door.from_keras(layer)(x), y, atol=1e-6)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: L.GlobalMaxPooling1D(keepdims=True), "keepdims: expected False"),
        (lambda: L.GlobalAveragePooling1D(data_format="channels_first"), "data_format: expected 'channels_last'"),
        (lambda: L.TimeDistributed(L.LSTM(3)), "got TimeDistributed"),
    ],
)
def test_layers_whose_outputs_have_another_shape_are_refused(make, said):
    layer = make()
    layer(np.zeros((2, 3, 4, 5) if "TimeDistributed" in said else (2, 3, 4), np.float32))
    with pytest.raises(door.UnsupportedLayer, match=said):
        door.from_keras(layer)


def test_what_has_no_weights_yet_is_refused():
    with pytest.raises(ValueError, match="expected one that is built.* without weights"):
        door.from_keras(L.LSTM(3))
    with pytest.raises(TypeError, match="model: expected a Keras layer or model, got int"):
        door.from_keras(3)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("directions", ["forward", "backward", "both", "sum", "mul", "ave"])
def test_final_state_is_what_the_layer_ends_with(directions, batch_first):
    merge = "concat"
    if directions in ("sum", "mul", "ave"):
        directions, merge = "both", directions
    both = directions == "both"
    layer = fastrnn.GRU(D, H, bidirectional=both, batch_first=batch_first, dtype=np.float64, rng=1)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, T, D) if batch_first else (T, N, D))
    lengths = np.array([T, 2, 0])
    output, h_n = layer(x, lengths=lengths)
    pool = FinalState(directions, merge=merge, batch_first=batch_first)
    y = pool(output, lengths=lengths, training=True)
    if directions != "backward":
        join = {"concat": lambda h: np.concatenate(list(h), axis=1), "sum": sum, "mul": np.prod, "ave": np.mean}[merge]
        expected = join(h_n, axis=0) if merge in ("mul", "ave") else join(h_n)
        assert np.array_equal(y, expected)
    dy = rng.standard_normal(y.shape)
    dx = pool.backward(dy)
    for at in np.ndindex(*output.shape):
        old = output[at]
        output[at] += 1  # y is linear in each entry
        moved = pool(output, lengths=lengths)
        output[at] = old
        assert dx[at] == pytest.approx(((moved - y) * dy).sum(), abs=1e-9)
