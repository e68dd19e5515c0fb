"""Data as people have them, and errors before the work: each case once gave a wrong result, or an error too late.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    SGD,
    Adam,
    EarlyStopping,
    Embedding,
    LastStep,
    Linear,
    ModelCheckpoint,
    Sequential,
    Trainer,
)

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5, 3)).astype(np.float32), RNG.integers(0, 2, 12)


def classifier(seed=1):
    rng = np.random.default_rng(seed)
    layers = GRU(3, 4, batch_first=True, rng=rng), LastStep(batch_first=True), Linear(4, 2, rng=rng)
    return Trainer(Sequential(*layers), optimizer=Adam(lr=0.02))


def fit(trainer, x=X, y=Y, epochs=1, **more):
    trainer.fit(x, y, epochs=epochs, batch_size=4, progress=False, **more)
    return trainer


def parameters(trainer):
    return np.concatenate([a.ravel() for a in trainer.model.params.values()])


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


# --- After a restart --------------------------------------------------------------------------------------------------


def test_the_best_file_is_kept_after_a_restart(tmp_path):
    path = tmp_path / "best"
    trainer = classifier()
    trainer.callbacks = [ModelCheckpoint(path, monitor="loss")]
    fit(trainer, epochs=3)
    best = path.read_bytes()
    again = Trainer.load(path, callbacks=[ModelCheckpoint(path, monitor="loss")])
    again.optimizer.lr = 50.0  # nothing becomes better
    fit(again, epochs=2)
    assert min(again.history["loss"][3:]) > min(again.history["loss"][:3])
    assert path.read_bytes() == best


def test_a_resumed_stateful_fit_is_the_uninterrupted_one(tmp_path):
    def make():
        rng = np.random.default_rng(1)
        model = Sequential(GRU(3, 4, batch_first=True, rng=rng), Linear(4, 3, rng=rng))
        return Trainer(model, loss="mse", stateful=True, rng=3)

    whole = make()
    fit(whole, X, X, epochs=1)  # so that the next fit begins from a state
    halved = copy.deepcopy(whole)
    fit(whole, X, X, epochs=4)
    halved.callbacks = [ModelCheckpoint(tmp_path / "m", save="last")]
    fit(halved, X, X, epochs=2)
    resumed = fit(Trainer.load(tmp_path / "m"), X, X, epochs=2)
    assert np.array_equal(parameters(whole), parameters(resumed))


def test_early_stopping_restores_the_best_weights_after_ctrl_c():
    class Interrupt(fastrnn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 2:
                raise KeyboardInterrupt

    trainer = classifier()
    trainer.optimizer.lr = 0.5
    seen = []

    class Watch(fastrnn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append((logs["loss"], parameters(trainer)))

    trainer.callbacks = [EarlyStopping("loss", restore_best=True), Watch(), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=9)
    assert len(seen) == 3
    assert np.array_equal(parameters(trainer), min(seen, key=lambda entry: entry[0])[1])


def test_models_with_read_only_arrays_become_trainable_copies():
    joblib = pytest.importorskip("joblib")
    import io

    model = classifier().model
    for layer in model:
        for array in (*layer._params.values(), *layer._grads.values()):
            array.flags.writeable = False
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    fit(Trainer(joblib.load(file)))
    fit(Trainer(copy.deepcopy(model)))


def test_params_can_be_copied_and_pickled():
    """copy.deepcopy(model.params) keeps the best weights; of a container it raised KeyError."""
    model = Sequential(GRU(3, 4, rng=0), Linear(4, 2, rng=1))
    for again in (copy.deepcopy(model.params), pickle.loads(pickle.dumps(model.params))):
        assert list(again) == list(model.params)
        again["1.weight"][...] = 7
        assert not (model.params["1.weight"] == 7).any()
        model.load_state_dict(again)
        assert (model.params["1.weight"] == 7).all()
        model.reset_parameters(0)


def test_an_update_is_that_of_the_arrays_that_the_layers_have():
    """The trainer keeps dicts of them; what `tie`, a copy or params[name] = ... replaces is seen."""
    x, y = np.ones((4, 3), np.float32), np.zeros(4, int)
    net = Sequential(Linear(3, 3, rng=0), Linear(3, 3, rng=1))
    trainer = Trainer(net, optimizer=SGD(lr=0.1), rng=0)
    trainer.fit(x, y, progress=False)
    twin = copy.deepcopy(trainer)
    before = {name: a.copy() for name, a in net.params.items()}
    twin.fit(x, y, progress=False)
    for name, a in net.params.items():
        np.testing.assert_array_equal(a, before[name])
        assert not np.array_equal(twin.model.params[name], a)
    net[0].params["weight"] = np.zeros((3, 3), np.float32)
    trainer.fit(x, y, progress=False)
    assert net[0].params["weight"].any()
    net.tie("1.weight", to="0.weight")
    trainer.optimizer = SGD(lr=0.1)
    shared = net[0].params["weight"].copy()
    trainer.fit(x, y, progress=False)
    assert net[1].params["weight"] is net[0].params["weight"] and not np.array_equal(net[0].params["weight"], shared)


# --- Data of every form, at every door --------------------------------------------------------------------------------

SERIES = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])


def doors() -> dict[str, Any]:
    """What takes data by name."""

    def trainer() -> Trainer:
        return Trainer(
            Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1)), rng=0
        )

    return {
        "fit": lambda x: trainer().fit(x, LABELS, progress=False)["loss"],
        "evaluate": lambda x: list(trainer().evaluate(x, LABELS).values()),
        "predict": lambda x: trainer().predict(x),
        "layer": lambda x: LSTM(3, 4, batch_first=True, rng=0)(x)[0],
        "training": lambda x: LSTM(3, 4, batch_first=True, rng=0)(x, training=True)[0],
    }


every_door = pytest.mark.parametrize("door", doors())


@every_door
def test_real_numbers_in_any_container(door):
    """The same numbers give the same result, whoever holds them."""
    call = doors()[door]
    read_only = SERIES.copy()
    read_only.setflags(write=False)
    forms = {
        "float64": SERIES.astype("f8"),
        "big-endian": SERIES.astype(">f4"),
        "big-endian float64": SERIES.astype(">f8"),
        "long double": SERIES.astype(np.longdouble),
        "Fortran order": np.asfortranarray(SERIES),
        "list": SERIES.tolist(),
        "strided": np.repeat(SERIES, 2, axis=2)[:, :, ::2],
        "reversed": SERIES[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "tuple of arrays": tuple(SERIES),
        "memoryview": memoryview(SERIES),
    }
    expected = call(SERIES)
    for name, form in forms.items():
        np.testing.assert_allclose(call(form), expected, rtol=1e-6, err_msg=name)
    for dtype in (np.int8, np.uint64, bool, np.float16):
        whole = (np.abs(SERIES) * 3).astype(dtype)
        np.testing.assert_allclose(call(whole), call(whole.astype(np.float32)), rtol=1e-6)


@every_door
def test_what_is_no_array_of_real_numbers_is_named(door):
    call = doors()[door]
    for x, error, message in (
        (np.ma.masked_greater(SERIES, 1), TypeError, "x: expected a plain array, got a masked one"),
        ([np.ma.masked_greater(a, 1) for a in SERIES], TypeError, "x: expected a plain array, got a masked one"),
        (SERIES.astype(complex), TypeError, "x: expected real numbers, got complex128"),
        (SERIES.astype(str), TypeError, "x: expected real numbers, got <U32; encode words or classes as numbers"),
        (SERIES.astype(object), TypeError, "turn numbers into an array of them, x.astype(float)"),
        (np.zeros((6, 5, 3), "M8[D]"), TypeError, "x: expected real numbers, got datetime64[D]"),
        ({"x": SERIES}, TypeError, "x: expected what NumPy can read as an array, got dict"),
        (SERIES.astype("f8") * 1e300, ValueError, "x: expected numbers within the range of float32, got larger ones"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call(x)


@every_door
def test_tensors_that_numpy_cannot_read_are_named(door):
    torch = pytest.importorskip("torch")
    call = doors()[door]
    tensor = torch.tensor(SERIES)
    np.testing.assert_array_equal(call(tensor), call(SERIES))
    for wrong in (tensor.clone().requires_grad_(), tensor.bfloat16()):
        with pytest.raises(TypeError, match="x: expected what NumPy can read as an array, got"):
            call(wrong)


def test_masked_arrays_at_the_core_and_in_targets():
    layer, masked = GRU(3, 4, rng=0), np.ma.masked_greater(SERIES, 1)
    p = [layer.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    for module in (fastrnn.functional, fastrnn.reference):
        with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
            module.gru_forward(masked, None, *p)
        with pytest.raises(
            TypeError, match=r"x: expected float32 like weight_ih, got float64; .astype\(np.float32\) converts"
        ):
            module.gru_forward(SERIES.astype(float), None, *p)
    with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
        layer.stream(6).step(masked[:, 0])
    trainer = Trainer(Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1)))
    flags = np.ma.MaskedArray(LABELS, mask=LABELS > 0)
    for name, value in (("y", flags), ("lengths", flags + 1), ("sample_weight", flags)):
        with pytest.raises(TypeError, match=f"{name}: expected a plain array, got a masked one"):
            trainer.fit(SERIES, **({"y": LABELS} | {name: value}), progress=False)


def test_a_file_that_is_mapped_is_read_and_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", SERIES.astype(">f8"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for call in doors().values():
        np.testing.assert_allclose(call(mapped), call(SERIES), rtol=1e-6)


def test_words_are_named_as_words():
    """Not as sequences of differing dtypes, <U3 and <U5, and not as wrong classes."""
    tagger = Sequential(Embedding(9, 4, rng=0), GRU(4, 5, batch_first=True, rng=1), Linear(5, 3, rng=2))
    words, tags, tokens = [["the", "cat"], ["a", "mouse", "eats"]], [["D", "N"], ["D", "N", "V"]], [[0, 1], [2, 3, 4]]
    with pytest.raises(TypeError, match="x: expected real numbers, got <U3; encode words or classes as numbers"):
        Trainer(tagger).fit(words, tokens, progress=False)
    with pytest.raises(
        TypeError, match="y: expected numbers, got <U1; number the classes from 0, or take an estimator"
    ):
        Trainer(tagger).fit(tokens, tags, progress=False)
    with pytest.raises(TypeError, match="y: expected numbers, got <U1; number the classes from 0"):
        Trainer(tagger).fit(tokens[:1] * 2, tags[:1] * 2, progress=False)


def test_an_iterable_of_no_batches():
    """Its epochs had a loss of nan, in silence."""
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    trainer, batch = Trainer(net, rng=0), (SERIES, LABELS)
    with pytest.raises(ValueError, match="x: expected at least one batch in epoch 1/1, got none"):
        trainer.fit(lambda: iter(()), progress=False)
    with pytest.raises(ValueError, match="validation_data: expected at least one batch, got none"):
        trainer.fit(*batch, validation_data=lambda: iter(()), progress=False)
    trainer.fit([batch], progress=False)
    assert trainer.history.epochs == 1


def test_what_is_wrong_with_validation_data_says_so():
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    for given, message in (
        ((SERIES[:0], LABELS[:0]), "validation_data: x: expected samples first, at least one"),
        ((SERIES, LABELS[:2]), "validation_data: y: expected one target per sample"),
        (iter([(SERIES, LABELS)]), "validation_data: x: expected batches that can be gone through in each epoch"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Trainer(net).fit(SERIES, LABELS, validation_data=given, progress=False)


def test_class_weights_of_no_class():
    """{"0": 5} was passed over, as no target is the string."""
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    with pytest.raises(TypeError, match="class_weight: expected classes as y has them, numbers, got '0'"):
        Trainer(net).fit(SERIES, LABELS, class_weight={"0": 5.0}, progress=False)
