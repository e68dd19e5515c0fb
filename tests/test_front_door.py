"""Data as people have them, and errors before the work: each case once gave a wrong result, or an error too late.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import numpy as np
import pytest
from front_cases import X, Y, classifier, fit, parameters

import fastrnn
from fastrnn import GRU, LSTM, Adam, EarlyStopping, Embedding, LastStep, Linear, ModelCheckpoint, Sequential, Trainer

# --- A missing axis ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_x_without_an_axis_of_time_is_refused_with_what_to_write(method):
    trainer, more = classifier(), {"fit": {"progress": False}}.get(method, {})
    arguments = [X[:, 0]] if method == "predict" else [X[:, 0], Y]
    with pytest.raises(ValueError, match=r"x: expected sequences \(N, T, D\), got shape \(12, 3\); write x\[None\]"):
        getattr(trainer, method)(*arguments, **more)
    tokens = Trainer(Sequential(Embedding(9, 3, rng=0), GRU(3, 4, rng=0), LastStep(), Linear(4, 2, rng=0)))
    arguments = [np.arange(9)] if method == "predict" else [np.arange(9), np.zeros(9, int)]
    with pytest.raises(ValueError, match=r"x: expected sequences \(N, T\), got shape \(9,\); write x\[None\]"):
        getattr(tokens, method)(*arguments, **more)
    with pytest.raises(ValueError, match=r"x: expected sequences \(T_i, D\), got shape \(5,\); write x_i\[:, None\]"):
        trainer.predict([np.zeros(5), np.zeros(4)])


def test_models_that_read_no_time_keep_samples_of_two_axes():
    flat = Trainer(Sequential(Linear(3, 2, rng=0)))
    assert flat.predict(X[:, 0]).shape == (12, 2)
    fit(flat, X[:, 0])
    maker = Trainer(Sequential(fastrnn.Repeat(4), LSTM(3, 5, rng=0), Linear(5, 1, rng=0)), loss="mse")
    assert maker.predict(X[:, 0]).shape == (12, 4, 1)


# --- Data as people have them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", "i2", "u1", "bool"])
def test_any_real_dtype_is_converted(dtype):
    x = (X > 0).astype(dtype)
    expected = classifier().predict(x.astype(np.float32))
    assert np.array_equal(classifier().predict(x), expected)
    assert np.array_equal(classifier().predict(x.tolist()), expected)
    assert np.array_equal(classifier().predict(list(x)), expected)


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="x: expected real numbers, got complex64"):
        classifier().predict(X.astype(np.complex64))
    with pytest.raises(TypeError, match="x: expected real numbers, got <U.*; encode words"):
        classifier().predict(np.full((2, 3, 3), "a"))
    with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
        classifier().predict(np.ma.array(X, mask=X > 0))


def test_object_arrays_and_empty_sequences_are_lists_of_sequences():
    parts = [X[0], X[1, :2], np.empty((0, 3), np.float32), X[2, :4]]
    expected = classifier().predict(parts)
    boxed = np.empty(4, object)
    for i, part in enumerate(parts):
        boxed[i] = part
    assert np.array_equal(classifier().predict(boxed), expected)
    assert np.array_equal(classifier().predict([X[0], X[1, :2], [], X[2, :4].astype(float)]), expected)


def test_dataframes_and_tensors_are_taken():
    pandas = pytest.importorskip("pandas")
    flat = Trainer(Sequential(Linear(3, 2, rng=0)))
    assert np.array_equal(flat.predict(pandas.DataFrame(X[:, 0])), flat.predict(X[:, 0]))
    series = pandas.Series(list(X))
    assert np.array_equal(classifier().predict(series), classifier().predict(list(X)))


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_targets_of_one_output_need_no_axis(loss):
    trainers = []
    for y in (Y.astype(np.float32), Y.astype(np.float32)[:, None]):
        rng = np.random.default_rng(1)
        layers = GRU(3, 4, batch_first=True, rng=rng), LastStep(batch_first=True), Linear(4, 1, rng=rng)
        trainers.append(fit(Trainer(Sequential(*layers), loss=loss), X, y, epochs=2))
    assert np.array_equal(parameters(trainers[0]), parameters(trainers[1]))
    rng = np.random.default_rng(1)
    steps = Trainer(Sequential(GRU(3, 4, batch_first=True, rng=rng), Linear(4, 1, rng=rng)), loss="mse")
    fit(steps, X, X[:, :, 0])


def test_what_stands_past_the_lengths_does_no_harm():
    lengths = np.arange(12) % 5 + 1
    dirty = X.copy()
    dirty[np.arange(5) >= lengths[:, None]] = np.nan
    trainers = []
    for x in (X, dirty):
        rng = np.random.default_rng(1)
        layers = Linear(3, 4, rng=rng), GRU(4, 4, batch_first=True, rng=rng), LastStep(batch_first=True)
        trainers.append(fit(Trainer(Sequential(*layers, Linear(4, 2, rng=rng))), x, Y, lengths=lengths))
    assert np.isfinite(parameters(trainers[1])).all()
    np.testing.assert_allclose(parameters(trainers[0]), parameters(trainers[1]), rtol=1e-6)


def test_tokens_past_the_lengths_may_be_anything():
    rng = np.random.default_rng(1)
    model = Sequential(Embedding(5, 3, rng=rng), GRU(3, 4, batch_first=True, rng=rng), Linear(4, 2, rng=rng))
    tokens = np.array([[1, 2, -1], [3, -1, -1]])
    fit(Trainer(model), tokens, np.zeros((2, 3), int), lengths=[2, 1])


@pytest.mark.parametrize("make", [fastrnn.RNN, GRU, LSTM, lambda *a, **k: fastrnn.Jordan(*a, 2, **k)])
def test_layers_convert_too(make):
    layer = make(3, 4, rng=1)
    x = (X > 0).astype(np.float32)
    expected = layer(x)[0]
    for other in (x.astype("f8"), x.astype(">f4"), x.astype("i2"), x.astype(bool), x.tolist()):
        assert np.array_equal(layer(other)[0], expected)
    with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
        layer(np.ma.array(x, mask=x > 0))
    linear = Linear(3, 2, rng=1)
    assert np.array_equal(linear(x.astype("f8")), linear(x))
    assert np.array_equal(linear(x.tolist()), linear(x))


# --- Numbers at the ends of their range -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, entry", [("f4", 5e37), ("f4", 3e38), ("f8", 1e200), ("f8", 1e308)])
def test_clipping_leaves_no_range(dtype, entry):
    grads = {"w": np.full(4, entry, dtype)}
    fastrnn.clip_grad_norm(grads, 1.0)
    np.testing.assert_allclose(grads["w"], 0.5, rtol=1e-5)
    for optimizer in (fastrnn.SGD(lr=1.0), Adam(lr=0.1)):
        params, twins = ({"w": np.zeros(4, dtype)} for _ in range(2))
        large = {"w": np.full(4, entry, dtype)}
        optimizer.step(params, large, clip_norm=1.0)
        type(optimizer)(lr=optimizer.lr).step(twins, {"w": np.full(4, 0.5, dtype)})
        np.testing.assert_allclose(params["w"], twins["w"], rtol=1e-5)
        assert (large["w"] == dtype_of(entry, dtype)).all()  # a step leaves gradients as they were
        with pytest.raises(FloatingPointError, match="gradient: expected a finite norm"):
            optimizer.step(params, {"w": np.array([1, np.inf, 0, 0], dtype)}, clip_norm=1.0)


def dtype_of(value, dtype):
    return np.dtype(dtype).type(value)


def test_a_tiny_temperature_is_the_limit():
    rng = np.random.default_rng(0)
    model = Sequential(Embedding(7, 3, rng=rng), GRU(3, 8, rng=rng), Linear(8, 7, rng=rng))
    greedy = model.generate(np.array([1]), 6)
    for temperature in (5e-324, 1e-200):
        assert np.array_equal(model.generate(np.array([1]), 6, mode="sample", temperature=temperature, rng=0), greedy)


def test_flags_are_no_indices():
    stream = GRU(3, 4, rng=1).stream(4)
    stream.step(X[:4, 0])
    with pytest.raises(ValueError, match=r"rows: expected each index once, got \[0 0 1 0\]; .*astype\(bool\)"):
        stream.reset(np.array([0, 0, 1, 0]))
    stream.reset(np.array([0, 0, 1, 0]).astype(bool))
    assert not stream.state[0, 2].any() and stream.state[0, 0].any()


@pytest.mark.parametrize("change", ["optimizer", "load_state_dict", "container"])
def test_weights_that_change_between_forward_and_backward_are_noticed(change):
    model = Sequential(GRU(3, 4, rng=1), Linear(4, 2, rng=1))
    layer = model[0]
    output, _ = layer(X, training=True)
    if change == "optimizer":
        fastrnn.SGD(lr=0.1).step(layer.params, layer.grads)
    elif change == "container":
        Adam(lr=0.1).step(model.params, model.grads)
    else:
        model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="GRU.backward: expected the weights of the call with training=True"):
        layer.backward(output)
    output, _ = layer(X, training=True)
    layer.backward(output)


def test_parameters_of_a_container_are_written_through():
    model = Sequential(GRU(3, 4, rng=1), Linear(4, 2, rng=1))
    new = np.ones((2, 4))
    model.params["1.weight"] = new
    assert (model[1].params["weight"] == 1).all()
    with pytest.raises(ValueError, match=r"1.weight: expected shape \(2, 4\), got \(4, 2\)"):
        model.params["1.weight"] = new.T
    with pytest.raises(KeyError, match="1.wait: expected one of"):
        model.params["1.wait"] = new


# --- Errors before the work -------------------------------------------------------------------------------------------


class Count(fastrnn.Callback):
    def __init__(self):
        self.batches = 0

    def on_batch_end(self, trainer, batch, logs):
        self.batches += 1


@pytest.mark.parametrize(
    "callback, more, error, words",
    [
        (EarlyStopping(), {}, ValueError, "monitor: expected validation data for 'val_loss', got none"),
        (EarlyStopping("f1"), {}, ValueError, "monitor: expected one of loss, accuracy, .* got 'f1'"),
        (ModelCheckpoint("no/such/folder/m", save="last"), {}, FileNotFoundError, "path: expected an existing folder"),
        (None, {"validation_data": (X, Y[:5])}, ValueError, "y: expected one target per sample"),
        (
            None,
            {"validation_data": (X, np.full(12, 7))},
            ValueError,
            r"validation_data: targets: expected classes 0\.\.1",
        ),
        (None, {"validation_data": (X[:, :, :2], Y)}, ValueError, "validation_data: x: expected"),
        (None, {"validation_data": (X, None)}, ValueError, "validation_data: expected targets, got None"),
    ],
)
def test_what_an_epoch_ends_with_is_tried_before_the_first_batch(callback, more, error, words):
    trainer = classifier()
    before, count = parameters(trainer), Count()
    trainer.callbacks = [callback] if callback is not None else []
    with pytest.raises(error, match=words):
        fit(trainer, **more)
    assert count.batches == 0
    assert np.array_equal(parameters(trainer), before)


def test_stateful_validation_data_of_no_whole_batches_are_refused_first():
    rng = np.random.default_rng(1)
    model = Sequential(GRU(3, 4, batch_first=True, rng=rng), LastStep(batch_first=True), Linear(4, 2, rng=rng))
    trainer = Trainer(model, stateful=True)
    fit(trainer)
    before = parameters(trainer)
    with pytest.raises(ValueError, match="x: expected whole batches of 4"):
        fit(trainer, validation_data=(X[:6], Y[:6]))
    assert np.array_equal(parameters(trainer), before)
