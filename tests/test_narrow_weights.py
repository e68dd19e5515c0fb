"""bfloat16 weights, which "medium" has in streams and in inference of few rows.

Letters: T time steps, N batch, D inputs, H hidden size.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import _native

LAYERS = {
    "rnn": (fastrnn.RNN, {}),
    "gru": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-more": (fastrnn.LSTM, {"proj_size": 50, "peephole": True, "cell_clip": 2.0, "num_layers": 2}),
    "both-ways": (fastrnn.GRU, {"bidirectional": True, "num_layers": 2}),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def float32_again():
    yield
    fastrnn.set_matmul_precision("highest")
    _native.force_plan()


def bf16(a):
    """float32 rounded to bfloat16, ties to even."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def make(name, D=40, H=100, rounded=False, **options):
    cls, more = LAYERS[name]
    layer = cls(D, H, rng=0, **more, **options)
    for key, a in layer.params.items():
        if rounded and key.startswith(("weight_ih", "weight_hh", "weight_hr")):
            a[...] = bf16(a)
    return layer


def inputs(*shape, rng=0):
    return np.random.default_rng(rng).standard_normal(shape).astype(np.float32)


@every_layer
@pytest.mark.parametrize("T, N, D", [(1, 1, 3), (9, 1, 40), (5, 4, 17), (3, 15, 301)])
def test_numbers_are_those_of_rounded_weights(name, T, N, D, isa):
    layer, rounded = make(name, D, 101), make(name, D, 101, rounded=True)
    x = inputs(T, N, D)
    plain, expected = layer(x)[0], rounded(x)[0]
    fastrnn.set_matmul_precision("medium")
    y = layer(x)[0]
    assert np.abs(y - expected).max() < 2e-6 * np.sqrt(D)
    assert 1e-6 < np.abs(y - plain).max() < 2e-2
    assert np.abs(layer(x, lengths=np.full(N, T))[0] - y).max() == 0


@pytest.mark.parametrize("D", [5, 64])
def test_weights_without_a_bfloat16(D, isa):
    """The largest floats stay finite; NaN stays NaN, in its own unit."""
    layer = fastrnn.Linear(D, 9000 // D + 17, rng=0)
    layer.params["weight"][0, 0], layer.params["weight"][3, 1] = 3.4e38, np.nan
    fastrnn.set_matmul_precision("medium")
    y = layer(np.full((2, D), 0.5, np.float32))
    assert np.isfinite(y[:, 0]).all() and (y[:, 0] > 1.6e38).all()
    assert np.isnan(y[:, 3]).all() and np.isnan(y).sum() == 2


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-before", "lstm", "lstm-more"])
@pytest.mark.parametrize("N", [1, 4, 13])
def test_streams_equal_sequences_and_rows_alone(name, N, isa):
    fastrnn.set_matmul_precision("medium")
    layer = make(name)
    x = inputs(9, N, 40)
    expected = layer(x)[0]
    stream = layer.stream(N)
    assert np.array_equal(stream.run(x[:4]), expected[:4])
    assert all(np.array_equal(stream.step(x[t]), expected[t]) for t in range(4, 9))
    alone = [layer(np.ascontiguousarray(x[:, n : n + 1]))[0] for n in range(N)]
    assert np.array_equal(np.concatenate(alone, axis=1), expected)
    some = layer.stream(20)  # more rows than a sequence of bfloat16 weights has
    for t in range(9):
        some.step(x[t], rows=np.arange(N))
    assert np.array_equal(some.state[0] if isinstance(some.state, tuple) else some.state, _padded(layer(x)[1], 20))


def _padded(state, N):
    h = state[0] if isinstance(state, tuple) else state
    return np.concatenate([h, np.zeros((h.shape[0], N - h.shape[1], h.shape[2]), h.dtype)], axis=1)


@pytest.mark.parametrize("name", ["gru", "lstm", "both-ways"])
@pytest.mark.parametrize("N", [1, 7])
def test_same_bits_for_any_threads_and_plan(name, N, isa):
    fastrnn.set_matmul_precision("medium")
    layer, x = make(name), inputs(11, N, 40)
    _native.force_plan(threads=1)
    expected = layer(x)[0]
    for count in (1, 2, 3, 8):
        for by_units in (False, True):
            for fused in (False, True):
                _native.force_plan(threads=count, by_units=by_units, fused=fused, chunk=4)
                assert np.array_equal(layer(x)[0], expected)


def test_what_keeps_float32():
    x, small = inputs(4, 16, 40), fastrnn.RNN(40, 64, rng=0)
    layer, double = make("lstm"), make("lstm", dtype="float64")
    wide, few = layer(x)[0], [layer(x[:, :15])[0], double(x[:, :15].astype(float))[0], small(x[:, :15])[0]]
    trained = layer(x[:, :15], training=True)[0]
    fastrnn.set_matmul_precision("medium")
    assert np.array_equal(layer(x[:, :15], training=True)[0], trained)
    layer.backward(np.ones_like(trained))
    assert np.array_equal(double(x[:, :15].astype(float))[0], few[1]) and np.array_equal(small(x[:, :15])[0], few[2])
    assert not np.array_equal(layer(x[:, :15])[0], few[0])
    if _native.why_no_amx():
        assert np.array_equal(layer(x)[0], wide)
    fastrnn.set_matmul_precision("high")
    assert np.array_equal(layer(x[:, :15])[0], few[0])
    stream = layer.stream(2)
    fastrnn.set_matmul_precision("medium")
    fastrnn.set_matmul_precision("highest")
    assert np.array_equal(stream.run(x[:, :2]), layer(x[:, :2])[0])


def test_changes_of_weights_show():
    fastrnn.set_matmul_precision("medium")
    layer, x = make("gru"), inputs(3, 2, 40)
    before = layer(x)[0]
    layer.params["weight_hh_l0"][...] *= 2
    assert not np.array_equal(layer(x)[0], before)
    fastrnn.set_matmul_precision("highest")
    after = layer(x)[0]
    layer.prepare()
    assert np.array_equal(layer(x)[0], after)


def test_words_say_what_runs():
    fastrnn.set_matmul_precision("medium")
    words = fastrnn.show_config()["matmul_precision"]
    if _native.why_no_amx():
        assert words.startswith("medium: bf16 weights in streams and inference of fewer than 16 rows; float32 else, as")
