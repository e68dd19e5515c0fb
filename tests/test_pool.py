"""Many streams of one model: rows that step apart, a pool of streams, one copy of packed weights.

Letters: D input features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
from conftest import run_in_threads

import fastrnn
from fastrnn import GRU, LSTM, RNN, Activation, Embedding, Linear, Sequential, StreamPool

D, H, V = 5, 7, 11
MODELS = {
    "rnn": lambda **dtype: RNN(D, H, 2, rng=1, **dtype),
    "gru": lambda **dtype: GRU(D, H, 2, rng=1, learn_initial_state=True, **dtype),
    "gru before": lambda **dtype: GRU(D, 33, reset_after=False, rng=1, **dtype),
    "lstm": lambda **dtype: LSTM(D, 33, 2, rng=1, **dtype),
    "projection": lambda **dtype: LSTM(D, H, 2, rng=1, proj_size=2, peephole=True, **dtype),
    "large": lambda **dtype: LSTM(40, 150, rng=1, **dtype),
    "head": lambda **dtype: Sequential(
        GRU(D, H, rng=1, **dtype), Linear(H, 3, rng=2, **dtype), Activation("tanh"), RNN(3, 4, rng=3, **dtype)
    ),
    "tokens": lambda **dtype: Sequential(
        Embedding(V, D, rng=1, **dtype), LSTM(D, H, rng=2, **dtype), Linear(H, V, rng=3, **dtype)
    ),
    "pieces": lambda **dtype: Sequential(GRU(D, H, rng=1, **dtype), Activation("softmax"), GRU(H, 4, rng=2, **dtype)),
}


def make(name, **dtype):
    model = MODELS[name](**dtype)
    rng = np.random.default_rng(3)
    for param in model.params.values():
        param[...] = rng.standard_normal(param.shape) / 3
    return model


def frames_for(name, n, rng, dtype="float32"):
    if name == "tokens":
        return rng.integers(0, V, n)
    return rng.standard_normal((n, 40 if name == "large" else D)).astype(dtype)


def flat(state):
    return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [] if state is None else [state]


def same(a, b):
    return len(flat(a)) == len(flat(b)) and all(np.array_equal(x, y) for x, y in zip(flat(a), flat(b)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_that_step_apart_have_the_bits_of_streams_of_their_own(isa, name, dtype):
    model, N = make(name, dtype=dtype), 23
    together, alone = model.stream(N), [model.stream() for _ in range(N)]
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 5, 6, 7, 11, 13, 20, 23, 0):
        rows = rng.permutation(N)[:n]
        x = frames_for(name, n, rng, dtype)
        y = together.step(x, rows=rows)
        assert len(y) == n
        for k, row in enumerate(rows):
            assert np.array_equal(y[k], alone[row].step(x[k : k + 1])[0]), (n, k)
    for row in range(N):
        assert same(together.snapshot([row]), alone[row].state)
    mask = np.arange(N) % 3 == 0
    x = frames_for(name, mask.sum(), rng, dtype)
    y = together.step(x, rows=mask)
    for k, row in enumerate(np.flatnonzero(mask)):
        assert np.array_equal(y[k], alone[row].step(x[k : k + 1])[0])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("by_units", [False, True])
def test_the_bits_of_rows_do_not_depend_on_threads(threads, by_units):
    model = make("large")
    x = np.random.default_rng(0).standard_normal((3, 20, 40)).astype(np.float32)
    expected = [model.stream(30).step(x[0], rows=range(20))]
    stream = model.stream(30)
    fastrnn._native.force_plan(threads=threads, by_units=by_units)
    try:
        assert np.array_equal(stream.step(x[0], rows=range(20)), expected[0])
        assert np.array_equal(stream.step(x[1], rows=range(20)), stream.snapshot(range(20))[0][0])
    finally:
        fastrnn._native.force_plan()


def state_after_one_step(model, x):
    stream = model.stream()
    stream.step(x)
    return stream.state


@pytest.mark.parametrize("name", MODELS)
def test_snapshots_of_rows(name):
    model, rng = make(name), np.random.default_rng(0)
    stream = model.stream(6)
    stream.step(frames_for(name, 6, rng), rows=range(6))
    whole = stream.state
    some = stream.snapshot([4, 1])
    assert same(stream.snapshot([1]), stream.snapshot([False, True, False, False, False, False]))
    stream.step(frames_for(name, 6, rng), rows=range(6))
    after = stream.state
    stream.restore(some, [4, 1])
    assert same(stream.snapshot([4, 1]), some)
    assert same(stream.snapshot([0, 2, 3, 5]), fastrnn._state.take_rows(after, [0, 2, 3, 5]))
    stream.restore(whole)
    assert same(stream.state, whole)
    stream.restore(some, [0, -1])  # another place
    assert same(stream.snapshot([0, 5]), some)
    stream.restore(None, [2])
    stream.restore(None, [0, 5])
    x = frames_for(name, 1, rng)
    assert np.array_equal(stream.step(x, rows=[2]), model.stream().step(x))
    assert same(stream.snapshot([2]), state_after_one_step(model, x))


def test_what_rows_are_refused():
    stream = make("gru").stream(4)
    before = stream.state
    x = np.zeros((2, D), np.float32)
    for rows, error, message in (
        ([0, 4], IndexError, r"^rows: expected indices 0..3, got 4$"),
        ([1, 1], ValueError, "^rows: expected each index once"),
        ([1, -3], ValueError, "^rows: expected each index once"),
        ([True, False], ValueError, r"^rows: expected a mask of shape \(4,\)"),
        ([0.5, 1], TypeError, "^rows: expected indices or a mask of bool, got float64"),
        ([[0, 1]], ValueError, r"^rows: expected shape \(n,\)"),
        ([0, 1, 2], ValueError, r"^x: expected shape \(3, 5\), a row for each of rows, got \(2, 5\)"),
    ):
        with pytest.raises(error, match=message):
            stream.step(x, rows=rows)
    with pytest.raises(TypeError, match="^x: expected float32"):
        stream.step(x.astype(float), rows=[0, 1])
    with pytest.raises(ValueError, match=r"^out: expected a writable, C-contiguous array \(2, 7\)"):
        stream.step(x, np.zeros((3, H), np.float32), rows=[0, 1])
    with pytest.raises(ValueError, match="^state: expected h"):
        stream.restore(np.zeros((1, 2, H), np.float32), rows=[0, 1])
    assert same(stream.state, before)
    out = np.zeros((2, H), np.float32)
    assert stream.step(x, out, rows=[3, 0]) is out


@pytest.mark.parametrize("name", MODELS)
def test_a_pool_has_the_bits_of_streams_of_their_own(name):
    model, rng = make(name), np.random.default_rng(0)
    pool, alone = StreamPool(model, 9), {}
    for turn in range(60):
        if len(alone) < 9 and rng.random() < 0.5:
            id = pool.open(None if turn % 3 else f"client {turn}")
            assert id in pool and id not in alone
            alone[id] = model.stream()
        if alone and rng.random() < 0.2:
            id = list(alone)[rng.integers(len(alone))]
            pool.close(id)
            del alone[id]
        ids = [id for id in alone if rng.random() < 0.6]
        x = frames_for(name, len(ids), rng)
        found = pool.step({id: (x_t.tolist() if turn % 5 == 0 else x_t) for id, x_t in zip(ids, x)})
        assert list(found) == ids
        for k, id in enumerate(ids):
            assert np.array_equal(found[id], alone[id].step(x[k : k + 1])[0]), turn
        assert len(pool) == len(alone)
    for id, stream in alone.items():
        assert same(pool.snapshot(id), stream.state)


def test_snapshots_go_from_pool_to_stream_and_back():
    model, rng = make("head"), np.random.default_rng(0)
    pool, stream = StreamPool(model, 2), model.stream()
    x = frames_for("head", 4, rng)
    stream.step(x[0])
    a = pool.open(state=stream.state)
    assert np.array_equal(pool.step({a: x[1]})[a], stream.step(x[1]))
    before = pool.snapshot(a)
    pool.step({a: x[2]})
    pool.restore(a, before)
    assert np.array_equal(pool.step({a: x[2]})[a], stream.step(x[2]))
    pool.restore(a, None)
    stream.reset()
    assert np.array_equal(pool.step({a: x[3]})[a], stream.step(x[3]))


def test_what_a_pool_refuses():
    pool = StreamPool(make("gru"), 2)
    first, second = pool.open(), pool.open("b")
    x = np.ones(D, np.float32)
    pool.step({first: x})
    before = pool.snapshot(first)
    with pytest.raises(RuntimeError, match="^pool: expected at most 2 open streams"):
        pool.open()
    with pytest.raises(ValueError, match="^id: expected one that is not open yet, got 'b'"):
        pool.open("b")
    for frames, error, message in (
        ({first: x, "c": x}, KeyError, "expected ids that are open, got 'c'"),
        ({first: x, second: x[:2]}, ValueError, r"^frames\['b'\]: expected shape \(5,\), got shape \(2,\) of float32"),
        ({first: x, second: None}, ValueError, r"^frames\['b'\]: expected shape \(5,\), got shape \(\) of object"),
    ):
        with pytest.raises(error, match=message):
            pool.step(frames)
    for call in (pool.close, pool.snapshot, lambda id: pool.restore(id, None)):
        with pytest.raises(KeyError, match="id: expected one that is open, got 7"):
            call(7)
    assert same(pool.snapshot(first), before)
    pool.close(second)
    with pytest.raises(ValueError, match="^h of state: "):
        pool.open("c", state=np.zeros((2, 1, 3), np.float32))
    assert len(pool) == 1
    assert pool.step({}) == {}
    with pytest.raises(ValueError, match="^capacity: expected"):
        StreamPool(make("gru"), 0)
    with pytest.raises(ValueError, match="expected one direction for a stream"):
        StreamPool(GRU(D, H, bidirectional=True, rng=0), 2)


def test_streams_and_calls_share_packed_weights():
    model = make("lstm")
    model(np.ones((1, 1, D), np.float32))
    packed = model._stack.generation
    streams = [model.stream(N) for N in (1, 1, 4)]
    pool = StreamPool(model, 10)
    model(np.ones((1, 1, D), np.float32))
    streams += [model.stream() for _ in range(5)]
    assert model._stack.generation == packed
    assert len(pool) == 0 and streams


@pytest.mark.parametrize("change", ["by hand", "optimiser", "load"])
def test_streams_keep_the_weights_that_they_began_with(change):
    model = make("head")
    twin = copy.deepcopy(model)
    x = np.random.default_rng(0).standard_normal((4, D)).astype(np.float32)
    stream, pool, expected = model.stream(), StreamPool(model, 3), twin.stream()
    id = pool.open()
    assert np.array_equal(stream.step(x[0]), expected.step(x[0]))
    pool.step({id: x[0]})
    params = model.params
    if change == "by hand":
        for param in params.values():
            param *= 2
    elif change == "optimiser":
        fastrnn.Adam(lr=0.1).step(params, {name: np.ones_like(a) for name, a in params.items()})
    else:
        model.load_state_dict({name: 2 * a for name, a in params.items()})
    model(x[:, None])  # packs what is new
    gc.collect()
    for x_t in x[1:]:
        y = expected.step(x_t)
        assert np.array_equal(stream.step(x_t), y)
        assert np.array_equal(pool.step({id: x_t})[id], y)
    fresh = copy.deepcopy(model)
    assert np.array_equal(model.stream().step(x[0]), fresh.stream().step(x[0]))
    assert not np.array_equal(model.stream().step(x[0]), twin.stream().step(x[0]))


def test_streams_of_one_model_in_several_threads():
    model = make("lstm")
    x = np.random.default_rng(0).standard_normal((50, D)).astype(np.float32)
    expected = model.stream().run(x)
    wrong = []

    def work():
        for _ in range(10):
            stream = model.stream()
            if not np.array_equal(np.stack([stream.step(x_t) for x_t in x]), expected):
                wrong.append(1)

    run_in_threads(work)
    assert not wrong


def test_an_open_stream_holds_no_weights():
    model = make("gru")
    streams = [model.stream(), StreamPool(model, 2)]
    x = np.ones((1, 1, D), np.float32)
    model(x)
    model(x)
    assert model._stack.trusts
    assert streams
