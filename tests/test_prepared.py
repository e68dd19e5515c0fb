"""Weights that stay packed: the same bits as without, and never a stale result.

Letters: T time steps, N batch.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import run_in_threads

import fastrnn
from fastrnn import GRU, LSTM, RNN, Activation, Adam, Embedding, LastStep, Linear, Sequential

D, H = 3, 5


def models(batch_first):
    options = {"batch_first": batch_first}
    return {
        "rnn": RNN(D, H, rng=1, **options),
        "gru": GRU(D, H, 2, rng=1, learn_initial_state=True, **options),
        "lstm": LSTM(D, H, 2, rng=1, proj_size=2, peephole=True, **options),
        "sequential": Sequential(LSTM(D, H, rng=1, **options), Linear(H, 4, rng=2), Activation("identity")),
        "last": Sequential(GRU(D, H, rng=1, **options), LastStep(**options), Linear(H, 2, rng=2)),
        "tokens": Sequential(Embedding(7, D, rng=1), GRU(D, H, rng=2, **options), Linear(H, 7, rng=3)),
    }


def make_x(name, T, N, batch_first):
    rng = np.random.default_rng([T, N])
    lead = (N, T) if batch_first else (T, N)
    return rng.integers(0, 7, lead) if name == "tokens" else rng.standard_normal((*lead, D), dtype=np.float32)


def flat(state):
    return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [] if state is None else [state]


def same(a, b):
    return len(flat(a)) == len(flat(b)) and all(np.array_equal(x, y) for x, y in zip(flat(a), flat(b)))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", models(False))
def test_prepared_equals_unprepared_bit_for_bit(name, batch_first):
    model = models(batch_first)[name]
    twin = copy.deepcopy(model)
    model.prepare()
    generations = [layer._stack.generation for layer in model.flatten() if layer._stack is not None]
    assert generations and all(generations)
    for T, N in ((1, 1), (2, 3), (7, 1), (1, 4), (40, 8)):
        x = make_x(name, T, N, batch_first)
        y, state_n = model.run(x)
        expected, expected_n = twin.run(x)
        assert np.array_equal(y, expected), (T, N)
        assert same(state_n, expected_n), (T, N)
        y, state_n = model.run(x, expected_n)
        expected, expected_n = twin.run(x, expected_n)
        assert np.array_equal(y, expected), (T, N)
        assert same(state_n, expected_n), (T, N)
    after = [layer._stack.generation for layer in model.flatten() if layer._stack is not None]
    assert after == generations  # no call has packed


def test_lengths_resets_and_vectors():
    model = GRU(D, H, rng=1)
    twin = copy.deepcopy(model)
    model.prepare()
    x = make_x("gru", 4, 3, False)
    mask = np.zeros((4, 3), bool)
    mask[2, 1] = True
    for more in ({"lengths": np.array([1, 4, 2])}, {"reset_mask": mask}):
        assert same(model(x, **more), twin(x, **more))
    assert same(model(x[:, 0]), twin(x[:, 0]))
    assert same(model(x.astype(float)), twin(x.astype(float)))


WAYS = {
    "by hand": lambda model: model.params["weight_hh_l0"].__imul__(2),
    "an entry": lambda model: model.params["bias_ih_l0"].__setitem__(0, 9),
    "load_state_dict": lambda model: model.load_state_dict({k: 2 * v for k, v in model.params.items()}),
    "optimiser alone": lambda model: Adam(lr=0.1).step(
        model.params, {k: np.ones_like(v) for k, v in model.params.items()}
    ),
    "training": lambda model: (
        model.backward(np.ones_like(model(make_x("gru", 2, 2, False), training=True)[0])),
        Adam(lr=0.1).step(model.params, model.grads),
    ),
    "after release": lambda model: (model.release(), model.params["weight_hh_l0"].__imul__(2)),
    "copied out": lambda model: np.copyto(model.params["weight_ih_l0"], 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_change_a_weight_gives_a_stale_result(way):
    """Either the way is refused and nothing has changed, or the next call computes with the new weights."""
    model = GRU(D, H, rng=1)
    before = model.state_dict()
    x = make_x("gru", 2, 2, False)
    model.prepare()
    model(x)
    try:
        WAYS[way](model)
        refused = False
    except ValueError as error:
        refused = True
        assert "read-only" in str(error)
    changed = any((model.params[name] != before[name]).any() for name in before)
    assert changed is not refused
    fresh = GRU(D, H, rng=2)
    fresh.load_state_dict(model.state_dict())
    assert same(model(x), fresh(x))


def test_a_prepared_sequential_trains_and_can_be_prepared_again():
    model = models(True)["last"]
    twin = copy.deepcopy(model)
    model.prepare()
    x, y = make_x("last", 3, 8, True), np.arange(8) % 2
    for one in (model, twin):
        fastrnn.Trainer(one, rng=0).fit(x, y, epochs=2, batch_size=4, progress=False)
    model.prepare()
    assert np.array_equal(model(x), twin(x))
    model[0].load_state_dict({name: 2 * a for name, a in model[0].params.items()})
    twin[0].load_state_dict({name: 2 * a for name, a in twin[0].params.items()})
    assert np.array_equal(model(x), twin(x))


@pytest.mark.parametrize(
    "model",
    [
        fastrnn.Jordan(D, H, 2, rng=0),
        Linear(D, 2, rng=0),
        GRU(D, H, bidirectional=True, rng=0),
        fastrnn.TreeRNN(D, H, rng=0),
        fastrnn.EncoderDecoder(GRU(D, H, rng=0), Sequential(GRU(2, H, rng=1), Linear(H, 2, rng=2)), start=None),
    ],
    ids=lambda model: type(model).__name__,
)
def test_training_releases_any_prepared_layer(model):
    model.prepare()
    params = model.params
    assert not any(a.flags.writeable for a in params.values())
    x = np.ones((3, 2, D), np.float32)
    if isinstance(model, fastrnn.TreeRNN):
        trees = fastrnn.Trees([[2, 2, -1]])
        y = model(np.ones((3, D), np.float32), trees, training=True)
    elif isinstance(model, fastrnn.EncoderDecoder):
        y = model(x, targets=np.ones((3, 2, 2), np.float32), training=True)
    else:
        y = model(x, training=True)
    assert all(a.flags.writeable for a in params.values())
    assert y is not None
    Adam(lr=0.1).step(params, model.grads)


def test_copies_and_pickles_are_free():
    model = models(False)["sequential"]
    model.prepare()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.params["0.weight_hh_l0"][...] = 0
        assert model.params["0.weight_hh_l0"].any()


def test_threads_at_once():
    model = models(False)["lstm"]
    x = make_x("lstm", 3, 2, False)
    expected = model(x)
    model.prepare()
    wrong = []

    def work():
        for _ in range(300):
            if not same(model(x), expected):
                wrong.append(1)

    run_in_threads(work)
    assert not wrong


@pytest.mark.parametrize("held", [False, True])
def test_nobody_looks_at_prepared_weights(held):
    model = GRU(D, H, rng=1)
    array = model.params["weight_ih_l0"] if held else None
    view = None if array is None else array[:]  # writable, as it was taken before
    model.prepare()
    expected = model(make_x("gru", 2, 2, False))
    if view is not None:
        view[...] = 9  # what the documentation says not to do
    assert same(model(make_x("gru", 2, 2, False)), expected)
    model.release()
    assert same(model(make_x("gru", 2, 2, False)), expected) is not held


def test_any_model_can_be_prepared():
    for model in (
        GRU(D, H, bidirectional=True, rng=0),
        Sequential(Activation("softmax"), GRU(D, H, rng=0)),
        Sequential(GRU(D, H, rng=0), Linear(H, 2, rng=0), Activation("tanh")),
    ):
        twin = copy.deepcopy(model)
        model.prepare()
        x = make_x("gru", 4, 3, False)
        assert same(model.run(x), twin.run(x))
        with pytest.raises(ValueError, match="read-only"):
            next(iter(model.params.values()))[...] = 0
        model.release()
        next(iter(model.params.values()))[...] = 0
