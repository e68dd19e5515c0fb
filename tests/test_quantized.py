"""Layers with int8 weights against their reference, and what `quantize` promises beyond numbers.

Letters: T time steps, N batch, D inputs, H hidden size, M outputs.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _native, serialization
from fastrnn.layers import QuantizedLinear, QuantizedRecurrent
from fastrnn.reference.quantized import dequantize_rows, quantize_rows, round_rows

LAYERS = {
    "rnn": (fastrnn.RNN, {}),
    "rnn-relu": (fastrnn.RNN, {"nonlinearity": "relu", "bias": False}),
    "gru": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-projection": (fastrnn.LSTM, {"proj_size": 5}),
    "lstm-more": (fastrnn.LSTM, {"peephole": True, "cell_clip": 2.0, "gate_activation": "hard_sigmoid"}),
    "stacked": (fastrnn.LSTM, {"num_layers": 2}),
    "both-ways": (fastrnn.GRU, {"bidirectional": True, "num_layers": 2}),
    "summed": (fastrnn.LSTM, {"bidirectional": True, "merge": "sum", "num_layers": 2}),
    "zoneout": (fastrnn.LSTM, {"zoneout": 0.2}),
    "learned": (fastrnn.GRU, {"learn_initial_state": True}),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(params=[*_native.isas(), "avx512-without-vnni"])
def build(request):
    before, name = _native.isa(), request.param
    if name.partition("-")[0] not in _native.isas():
        pytest.skip("this CPU has no AVX-512")
    _native.use_isa(name.partition("-")[0])
    _native.use_vnni("-" not in name)
    yield name
    _native.use_vnni(True)
    _native.use_isa(before)


@pytest.fixture
def threads():
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)
    _native.force_plan()


def make(name, D=7, H=19, rng=0, **options):
    cls, more = LAYERS[name]
    layer = cls(D, H, rng=rng, **more, **options)
    for key in [key for key in layer.params if key.startswith("initial")]:
        layer.params[key][...] = np.random.default_rng(5).uniform(-1, 1, layer.params[key].shape)
    return layer


def twin_of(layer, quantized):
    """The float64 layer whose weights are those that the int8 layer stands for."""
    twin = type(layer)(**{**layer.arguments(), "dtype": "float64"})
    values = {}
    for key, a in quantized.params.items():
        if a.dtype == np.int8:
            values[key] = dequantize_rows(a, quantized.params[f"{key}_scale"])
        elif not key.endswith("_scale"):
            values[key] = a.astype(np.float64)
    twin.load_state_dict(values)
    return twin


def inputs(*shape, rng=0):
    return np.random.default_rng(rng).standard_normal(shape).astype(np.float32)


# ---- Numbers ----


@pytest.mark.parametrize("D", [1, 3, 16, 67, 512, 513, 1500, 5000])
@pytest.mark.parametrize("M", [1, 16, 65])
@pytest.mark.parametrize("N", [1, 2, 7, 13])
def test_products_are_those_of_rounded_rows(D, M, N, build):
    layer = fastrnn.Linear(D, M, rng=1)
    quantized = fastrnn.quantize(layer, "int8", linear=True)
    x = inputs(N, D)
    weight = dequantize_rows(*quantize_rows(layer.params["weight"]))
    expected = round_rows(x) @ weight.T + layer.params["bias"]
    assert np.abs(quantized(x) - expected).max() <= 2e-6 * (1 + np.abs(expected).max())


def test_largest_numbers_do_not_overflow(build):
    layer = fastrnn.Linear(3000, 3, rng=1)
    layer.params["weight"][...] = [[1], [-1], [0]]
    x = np.full((2, 3000), 10.0, np.float32)
    x[1] *= -1
    expected = np.array([[30000, -30000, 0], [-30000, 30000, 0]]) + layer.params["bias"]
    assert np.allclose(fastrnn.quantize(layer, linear=True)(x), expected, rtol=1e-6)


@every_layer
@pytest.mark.parametrize("T, N, D, H", [(1, 1, 3, 9), (9, 1, 40, 70), (6, 5, 17, 33), (4, 20, 28, 64), (3, 2, 600, 24)])
def test_matches_reference(name, T, N, D, H, build):
    layer = make(name, D, H)
    quantized = fastrnn.quantize(layer)
    x = inputs(T, N, D)
    y, state = quantized(x)
    expected, expected_state = twin_of(layer, quantized)(x.astype(np.float64))
    parts = zip(_parts(state), _parts(expected_state))
    for got, wanted in [(y, expected), *parts]:
        assert got.dtype == np.float32 and got.shape == wanted.shape
        assert np.abs(got - wanted).max() < 3e-4 * np.sqrt(max(D, H) / 64 + 1)  # rows of x and h have 16 bits
    assert np.abs(y - layer(x)[0]).max() < 0.05


def _parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("name", ["lstm", "gru", "gru-before", "both-ways"])
def test_lengths_resets_and_states(name, build):
    layer = make(name)
    quantized = fastrnn.quantize(layer)
    twin = twin_of(layer, quantized)
    x, lengths = inputs(8, 4, 7), np.array([3, 8, 0, 5])
    resets = np.random.default_rng(1).random((8, 4)) < 0.2
    mask = np.random.default_rng(2).random((8, 4)) < 0.7
    state = layer(inputs(2, 4, 7, rng=3))[1]
    state64 = tuple(a.astype(np.float64) for a in state) if isinstance(state, tuple) else state.astype(np.float64)
    for options in (
        {"lengths": lengths},
        {"reset_mask": resets},
        {"lengths": lengths, "mask": mask, "reset_mask": resets},
    ):
        got, wanted = quantized(x, state, **options), twin(x.astype(np.float64), state64, **options)
        assert np.abs(got[0] - wanted[0]).max() < 3e-4
        for a, b in zip(_parts(got[1]), _parts(wanted[1])):
            assert np.abs(a - b).max() < 3e-4


def test_runs_without_input():
    layer = make("lstm")
    quantized = fastrnn.quantize(layer)
    state = layer(inputs(3, 2, 7))[1]
    got = quantized(None, state, steps=4)[0]
    wanted = twin_of(layer, quantized)(None, tuple(a.astype(np.float64) for a in state), steps=4)[0]
    assert got.shape == wanted.shape and np.abs(got - wanted).max() < 3e-4


def test_rows_that_are_not_finite(build):
    quantized = fastrnn.quantize(make("lstm"))
    x = inputs(5, 4, 7)
    good = quantized(x)[0]
    x[2, 1, 3], x[0, 2, 0], x[1, 3] = np.nan, np.inf, 1e38
    y = quantized(x)[0]
    assert np.array_equal(y[:, 0], good[:, 0])
    assert np.array_equal(y[:2, 1], good[:2, 1]) and np.isnan(y[2:, 1]).all()
    assert np.isnan(y[:, 2]).all() and np.isfinite(y[:, 3]).all()


def test_zeros_and_tiny_numbers(build):
    layer = fastrnn.Linear(20, 3, rng=0)
    quantized = fastrnn.quantize(layer, linear=True)
    for x in (np.zeros((2, 20), np.float32), np.full((2, 20), 1e-42, np.float32)):
        assert np.allclose(quantized(x), layer.params["bias"], rtol=1e-7)
    layer.params["weight"][1] = 0
    assert np.array_equal(
        fastrnn.quantize(layer, linear=True)(inputs(2, 20))[:, 1], np.repeat(layer.params["bias"][1], 2)
    )


def test_quantized_rows():
    weight = inputs(6, 33)
    weight[2] = 0
    values, scale = quantize_rows(weight)
    assert values.dtype == np.int8 and np.abs(values[[0, 1, 3, 4, 5]]).max(axis=1).tolist() == [127] * 5
    assert scale[2] == 0 and not values[2].any()
    assert (np.abs(dequantize_rows(values, scale) - weight) <= scale[:, None] * 0.5001).all()
    quantized = fastrnn.quantize(fastrnn.Linear(33, 6, rng=0), linear=True)
    assert quantized.params["weight"].dtype == np.int8


# ---- Bits ----


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-before", "lstm", "lstm-projection", "both-ways"])
@pytest.mark.parametrize("N", [1, 3, 20])
def test_same_bits_for_any_threads_and_plan(name, N, build, threads):
    quantized = fastrnn.quantize(make(name, 40, 70))
    x = inputs(11, N, 40)
    _native.force_plan(threads=1)
    expected = quantized(x)[0]
    for count in (1, 2, 3, 8):
        threads(count)
        for by_units in (False, True):
            for fused in (False, True):
                _native.force_plan(threads=count, by_units=by_units, fused=fused, chunk=4)
                assert np.array_equal(quantized(x)[0], expected)


@pytest.mark.parametrize(
    "name", ["rnn", "gru", "gru-before", "lstm", "lstm-projection", "stacked", "zoneout", "learned"]
)
@pytest.mark.parametrize("N", [1, 4, 13])
def test_streams_equal_sequences(name, N, build):
    model = fastrnn.quantize(fastrnn.Sequential(make(name, 40, 70), fastrnn.Activation("tanh")))
    x = inputs(9, N, 40)
    expected = model(x)
    stream = model.stream(N)
    assert np.array_equal(stream.run(x[:4]), expected[:4])
    assert all(np.array_equal(stream.step(x[t]), expected[t]) for t in range(4, 9))
    alone = np.concatenate([model(np.ascontiguousarray(x[:, n : n + 1])) for n in range(N)], axis=1)
    assert np.array_equal(alone, expected)


def test_some_rows_of_a_stream_step(build):
    model = fastrnn.quantize(fastrnn.Sequential(make("lstm"), fastrnn.Linear(19, 3, rng=1)), linear=True)
    x = inputs(6, 3, 7)
    stream, alone = model.stream(3), [model.stream() for _ in range(3)]
    for t in range(6):
        rows = [n for n in range(3) if (t + n) % 2]
        y = stream.step(x[t, rows], rows=rows)
        for i, n in enumerate(rows):
            assert np.array_equal(y[i], alone[n].step(x[t, n]))


def test_tokens_stream():
    model = fastrnn.quantize(
        fastrnn.Sequential(fastrnn.Embedding(11, 7, rng=0), make("gru"), fastrnn.Linear(19, 11, rng=1))
    )
    tokens = np.random.default_rng(0).integers(0, 11, (6, 2))
    expected = model(tokens)
    stream = model.stream(2)
    assert all(np.array_equal(stream.step(tokens[t]), expected[t]) for t in range(6))
    assert model.generate(np.array([1, 2]), 5).shape == (2, 5)


# ---- Copies, files and changes ----


@every_layer
def test_files_pickles_and_copies(name, tmp_path):
    pytest.importorskip("safetensors")
    model = fastrnn.quantize(fastrnn.Sequential(make(name, batch_first=True), fastrnn.Dropout(0.1)))
    x = inputs(4, 6, 7)
    expected = model(x)
    serialization.save_model(model, tmp_path / "model")
    loaded = serialization.load_model(tmp_path / "model")
    empty = fastrnn.layers.build(model.config())
    empty.load_state_dict(model.state_dict())
    for other in (loaded, empty, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other(x), expected)
        assert all(np.array_equal(a, other.params[key]) for key, a in model.params.items())


def test_changes_of_weights_show():
    model = fastrnn.quantize(make("lstm"))
    other = fastrnn.quantize(make("lstm", rng=9))
    x = inputs(3, 2, 7)
    before, expected = model(x)[0], other(x)[0]
    model.load_state_dict(other.state_dict())
    assert np.array_equal(model(x)[0], expected) and not np.array_equal(before, expected)
    for key in ("weight_hh_l0", "weight_hh_l0_scale", "bias_ih_l0"):
        earlier = model(x)[0]
        model.params[key][:3] //= 2
        assert not np.array_equal(model(x)[0], earlier), key
    model.prepare()
    prepared = model(x)[0]
    with pytest.raises(ValueError):
        model.params["weight_hh_l0"][0] = 1
    model.release()
    assert np.array_equal(model(x)[0], prepared)


def test_the_model_stays_as_it_is():
    model = fastrnn.Sequential(make("lstm"), fastrnn.Linear(19, 3, rng=0))
    before = model.state_dict()
    quantized = fastrnn.quantize(model, linear=True)
    assert isinstance(quantized[0], QuantizedRecurrent) and isinstance(quantized[1], QuantizedLinear)
    assert isinstance(fastrnn.quantize(model)[1], fastrnn.Linear)
    fastrnn.quantize(model)[1].params["weight"][...] = 0
    assert all(np.array_equal(a, before[key]) for key, a in model.params.items())


def test_tied_weights():
    model = fastrnn.Sequential(fastrnn.Embedding(9, 6, rng=0), fastrnn.LSTM(6, 6, rng=1), fastrnn.Linear(6, 9, rng=2))
    model.tie("2.weight", to="0.weight")
    kept, apart = fastrnn.quantize(model), fastrnn.quantize(model, linear=True)
    assert kept.aliases() == {"2.weight": "0.weight"} and not apart.aliases()
    tokens = np.array([[1, 2], [3, 4]])
    assert np.abs(kept(tokens) - model(tokens)).max() < 0.05 and np.abs(apart(tokens) - model(tokens)).max() < 0.05


@pytest.mark.parametrize("tied, to", [("1.weight", "0.weight_hh_l0"), ("2.weight_hh_l0", "0.weight_hh_l0")])
@pytest.mark.parametrize("linear", [False, True])
def test_weights_that_are_tied_to_recurrent_ones_come_apart(tied, to, linear):
    model = fastrnn.Sequential(fastrnn.RNN(6, 6), fastrnn.Linear(6, 6), fastrnn.RNN(6, 6), rng=0)
    model.tie(tied, to=to)
    x = inputs(5, 2, 6)
    quantized = fastrnn.quantize(model, linear=linear)
    assert not quantized.aliases() and np.abs(quantized(x)[0] - model(x)[0]).max() < 0.05


def test_what_is_said_of_it():
    model = fastrnn.quantize(fastrnn.LSTM(28, 64, rng=0))
    size = 4 * 64 * (28 + 64) + 4 * 4 * (4 * 64)  # int8 matrices; two scales and two biases
    assert model.nbytes == size
    assert "int8" in repr(model) and f"{size:,} bytes" in repr(model) and "lstm" in repr(model)
    assert "QuantizedRecurrent" in model.summary() and "no" in model.summary().splitlines()[2]
    assert not model.trainable and not model.trainable_params
    whole = fastrnn.quantize(fastrnn.Sequential(fastrnn.LSTM(28, 64, rng=0), fastrnn.Linear(64, 3, rng=0)))
    *_, recurrent, linear, _, count, memory = whole.summary().splitlines()  # which no Trainer takes, Linear or not
    assert [row.split()[-1] for row in (recurrent, linear)] == ["no", "no"]
    assert count.endswith("(float32, int8), 0 trainable")
    assert memory == f"memory: {(size + 4 * 3 * 65) / 1000:.3g} kB; int8 weights are for inference, without gradients"


# ---- What is refused ----


def test_training_is_refused():
    model = fastrnn.quantize(fastrnn.Sequential(make("lstm"), fastrnn.Linear(19, 3, rng=0)), linear=True)
    x = inputs(3, 2, 7)
    for layer in (model, model[0]):
        with pytest.raises(TypeError, match="training=False, as int8 weights are for inference"):
            layer(x, training=True)
        with pytest.raises(TypeError, match="expected float32 weights for a backward, got int8"):
            layer.backward(x)
    with pytest.raises(TypeError, match="training=False, as int8"):
        model[1](inputs(3, 19), training=True)
    with pytest.raises(TypeError, match="expected float32 layers to train, got QuantizedRecurrent"):
        fastrnn.Trainer(model, "mse", fastrnn.Adam())
    with pytest.raises(TypeError, match="weight_ih_l0'\\]: expected an array of float32 or float64, got int8"):
        fastrnn.Adam().step(model[0].params, model[0].grads)
    with pytest.raises(TypeError, match="to trace, got int8"):
        model[0].trace(x)
    with pytest.raises(TypeError, match="to draw anew, got int8"):
        model.reset_parameters(0)


@pytest.mark.parametrize(
    "layer, message",
    [
        (lambda: fastrnn.Jordan(3, 4, 2), r"layer 1 \(Jordan\): expected .* got Jordan, which has no int8 form"),
        (lambda: fastrnn.LSTM(3, 4, dtype="float64"), r"layer 1 \(LSTM\): expected float32, got float64"),
    ],
)
def test_unsupported_layers_are_named(layer, message):
    first = fastrnn.Linear(3, 3, dtype=layer().dtype)
    with pytest.raises(TypeError, match=message if layer().dtype == np.float32 else r"expected float32, got float64"):
        fastrnn.quantize(fastrnn.Sequential(first, layer()))


def test_other_arguments_are_refused():
    layer = make("lstm")
    with pytest.raises(ValueError, match="dtype: expected one of 'int8', got 'int4'"):
        fastrnn.quantize(layer, "int4")
    with pytest.raises(TypeError, match="model: expected a layer such as Sequential, got int"):
        fastrnn.quantize(3)
    layer.params["weight_hh_l0"][0, 0] = np.nan
    with pytest.raises(ValueError, match="model: expected finite weights, got NaN or infinity in weight_hh_l0"):
        fastrnn.quantize(layer)
    quantized = fastrnn.quantize(make("lstm"))
    with pytest.raises(TypeError, match="weight_ih_l0: expected int8, got float32"):
        quantized.load_state_dict(quantized.state_dict() | {"weight_ih_l0": make("lstm").params["weight_ih_l0"]})
    with pytest.raises(ValueError, match=r"x: expected shape"):
        quantized(inputs(3, 2, 8))
    whole = fastrnn.Sequential(fastrnn.Linear(7, quantized.input_size, rng=0), quantized)
    for again in (quantized, whole, fastrnn.Sequential(whole)):
        said = f"^model: expected float32 weights, got int8 ones: this {type(again).__name__} is quantized already; "
        with pytest.raises(TypeError, match=said):
            fastrnn.quantize(again)
    for wrong in ("int8", 1, None):
        with pytest.raises(TypeError, match=f"^linear: expected True or False, got {wrong!r}$"):
            fastrnn.quantize(make("lstm"), linear=wrong)


def test_the_core_refuses_what_does_not_fit():
    from fastrnn.functional.sequence import sequence_forward
    from fastrnn.functional.spec import CellSpec

    (ih, scale_ih), (hh, scale_hh) = (quantize_rows(inputs(12, D)) for D in (3, 3))
    call = lambda **more: sequence_forward(  # noqa: E731
        CellSpec("lstm"), inputs(2, 1, 3), None, None, ih, hh, None, None, **{"training": False, **more}
    )
    call(scale_ih=scale_ih, scale_hh=scale_hh)
    with pytest.raises(TypeError, match="training: expected False for int8 weights"):
        call(scale_ih=scale_ih, scale_hh=scale_hh, training=True)
    with pytest.raises(TypeError, match="scale_hh, scale_hr: expected an array for each weight"):
        call(scale_ih=scale_ih)
    with pytest.raises(TypeError, match="scale_ih: expected float32"):
        call(scale_ih=scale_ih.astype(np.float64), scale_hh=scale_hh)
    with pytest.raises(ValueError, match="scale_hh: expected shape"):
        call(scale_ih=scale_ih, scale_hh=scale_hh[:-1])
    with pytest.raises(TypeError, match="weight_ih: expected float32 or float64, got int8"):
        call()
