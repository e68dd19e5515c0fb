"""Small inputs that layers, streams and generation once took wrongly, in silence or too late, and their right values.

Letters: N batch, T time steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from test_generation import Plain

import fastrnn
from fastrnn import GRU, LSTM, RNN, Embedding, Jordan, LastStep, Linear, MaxPool, MeanPool, Sequential, Trainer

RNG = np.random.default_rng(0)
N, T, D, H, V = 3, 5, 2, 4, 7
X = RNG.standard_normal((T, N, D)).astype(np.float32)


# --- Generation: NaN, infinities, tiny temperatures -------------------------------------------------------------------


def language_model(compiled=True):
    layers = [Embedding(V, D), GRU(D, H), Linear(H, V)]
    if not compiled:
        layers[2] = Plain(H, V)
    return Sequential(*layers, rng=1)


MODES = [
    {},
    {"mode": "sample"},
    {"mode": "sample", "temperature": 0.5, "top_k": 2},
    {"mode": "sample", "temperature": 0},
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("options", MODES, ids=repr)
def test_logits_of_nan_are_an_error_in_every_mode(options, compiled):
    model = language_model(compiled)
    model[2].params["bias"][3] = np.nan
    with pytest.raises(FloatingPointError, match="^model: expected outputs without NaN, got NaN in row 0$"):
        model.generate(np.array([1, 2]), 4, rng=0, **options)
    model[2].params["bias"][3] = 0
    model.generate(np.array([1, 2]), 4, rng=0, **options)


@pytest.mark.parametrize("compiled", [True, False])
def test_nan_is_an_error_also_later_in_feedback_and_in_a_beam(compiled):
    model = language_model(compiled)
    model[0].params["weight"][4] = np.nan  # once token 4 has been read
    model[2].params["bias"][4] = 100
    with pytest.raises(FloatingPointError, match="got NaN in row 0"):
        model.generate(np.array([1, 2]), 4)
    assert model.generate(np.array([1, 2]), 1).tolist() == [[4], [4]]
    linear = Linear(D, D, rng=0) if compiled else Plain(D, D, rng=0)
    linear.params["weight"][...] = [[0, np.inf], [1, 1]]
    with pytest.raises(FloatingPointError, match="got NaN in row"):
        Sequential(linear).generate(np.zeros((2, D), np.float32), 4, mode="feedback")
    with pytest.raises(FloatingPointError, match="got NaN in row"):
        fastrnn.streaming.decode.beam_search(
            lambda tokens, state: (np.full((len(tokens), V), np.nan), state),
            np.zeros(2, int),
            None,
            3,
            beam_size=2,
            end=0,
        )


@pytest.mark.parametrize("compiled", [True, False])
def test_an_infinite_logit_wins(compiled):
    model = language_model(compiled)
    model[2].params["bias"][5] = np.inf
    for options in MODES:
        assert (model.generate(np.array([1, 2]), 6, rng=0, **options) == 5).all()
    model[2].params["bias"][2] = np.inf  # two of them share
    tokens = model.generate(np.arange(V).repeat(200) % V, 1, mode="sample", rng=0)
    shares = np.bincount(tokens.ravel(), minlength=V) / tokens.size
    assert set(np.flatnonzero(shares)) == {2, 5} and abs(shares[2] - 0.5) < 0.05
    model[2].params["bias"][2] = -np.inf
    assert (model.generate(np.array([1, 2]), 6, mode="sample", rng=0) == 5).all()
    scores = fastrnn.streaming.decode.log_softmax(np.array([[0.0, np.inf, 1.0, np.inf]]))
    np.testing.assert_allclose(scores, [[-np.inf, np.log(0.5), -np.inf, np.log(0.5)]])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-31, 1e-12, 0])
def test_a_tiny_temperature_is_the_limit_in_both_paths(temperature, compiled):
    model = language_model(compiled)
    greedy = model.generate(np.arange(V), 9)
    assert len(np.unique(greedy)) > 1
    for top_k in (None, 3):
        options = {"mode": "sample", "temperature": temperature, "top_k": top_k, "rng": 0}
        assert np.array_equal(model.generate(np.arange(V), 9, **options), greedy)


# --- States of which a part is None -----------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True])
def test_a_part_of_a_state_may_be_none(learned):
    layer = LSTM(D, H, 2, learn_initial_state=learned, rng=0)
    if learned:
        for part in "hc":
            layer.params[f"initial_{part}"][...] = RNG.standard_normal((2, H))
    h = RNG.standard_normal((2, N, H)).astype(np.float32)
    start = np.zeros((2, N, H), np.float32)
    if learned:
        start += layer.params["initial_c"][:, None]
    expected, (h_n, c_n) = layer(X, (h, start), training=True)
    _, (dh0, dc0) = layer.backward(None, (h_n, np.zeros_like(c_n)))
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    output, _ = layer(X, (h, None), training=True)
    assert np.array_equal(output, expected)
    for got, wanted in zip(layer.backward(None, (h_n, None))[1], (dh0, dc0)):
        assert np.array_equal(got, wanted)
    for name, grad in grads.items():
        if name == "initial_c":
            np.testing.assert_allclose(layer.grads[name], dc0.sum(axis=1), rtol=1e-6)
        else:
            assert np.array_equal(layer.grads[name], grad), name
    assert np.array_equal(layer(X, (None, None))[0], layer(X)[0])
    layer(None, (h, None), steps=2)


def test_a_part_of_a_state_may_be_none_in_streams_prepared_models_and_cells():
    layer = LSTM(D, H, rng=0)
    h = RNG.standard_normal((1, N, H)).astype(np.float32)
    expected = layer(X, (h, None))
    stream = layer.stream(N)
    stream.state = (h, None)
    assert np.array_equal(stream.run(X), expected[0])
    layer.prepare()
    assert np.array_equal(layer(X, (h, None))[0], expected[0])
    layer.release()
    model = Sequential(layer, Linear(H, 2, rng=0))
    assert np.array_equal(model.run(X, ((h, None), None))[1][0][0], expected[1][0])

    class Two(fastrnn.Cell):
        state_size = (H, H)

        def step(self, x_t, state):
            return state[0] + state[1], state, None

        def step_backward(self, dy_t, dstate, cache):
            return None, (dy_t + dstate[0], dy_t + dstate[1]), {}

    recurrent = fastrnn.Recurrent(Two())
    y, _ = recurrent(X, (h, None), training=True)
    assert np.array_equal(y[0], h[0])
    _, (ds0, ds1) = recurrent.backward(None, (h, None))
    assert np.array_equal(ds0, h) and not ds1.any()
    assert recurrent(None, (None, h), steps=3)[0].shape == (3, N, H)


# --- No sequences at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "make, width",
    [
        (lambda **k: RNN(D, H, **k), H),
        (lambda **k: GRU(D, H, 2, bidirectional=True, **k), 2 * H),
        (lambda **k: LSTM(D, H, proj_size=3, learn_initial_state=True, **k), 3),
        (lambda **k: Jordan(D, H, 3, **k), 3),
    ],
)
def test_an_empty_batch_gives_an_empty_output(make, width, batch_first):
    layer = make(batch_first=batch_first, rng=0)
    shape = (0, 4) if batch_first else (4, 0)
    x = np.zeros((*shape, D), np.float32)
    lengths = np.zeros(0, int)
    for options in ({}, {"lengths": lengths}, {"reset_mask": np.zeros((4, 0), bool)}):
        y, state = layer(x, training=True, **options)
        assert y.shape == (*shape, width) and y.dtype == np.float32
        full = layer(np.zeros((4, 4, D), np.float32))[1]
        for part, other in zip(*map(fastrnn._state.flatten, (state, full))):
            assert part.shape == (len(other), 0, other.shape[2])
        dx, dstate0 = layer.backward(y, state)
        assert dx.shape == x.shape
        assert [a.shape for a in fastrnn._state.flatten(dstate0)] == [a.shape for a in fastrnn._state.flatten(state)]
    assert not any(grad.any() for grad in layer.grads.values())
    with pytest.raises(ValueError, match="lengths: expected shape"):
        layer(x, lengths=np.zeros(1, int))
    with pytest.raises(ValueError, match="state: expected shape"):
        layer(x, fastrnn._state.map(lambda a: np.zeros((len(a), 1, a.shape[2]), a.dtype), state))


@pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])
def test_whole_models_take_empty_batches(pool):
    model = Sequential(Linear(D, D), LSTM(D, H, batch_first=True), pool(batch_first=True), Linear(H, 2), rng=0)
    for lengths in (None, np.zeros(0, int)):
        y = model(np.zeros((0, T, D), np.float32), lengths=lengths, training=True)
        assert y.shape == (0, 2)
        assert model.backward(y).shape == (0, T, D)
    assert Trainer(model).predict(np.zeros((0, T, D))).shape == (0, 2)
    tagger = Trainer(Sequential(GRU(D, H, batch_first=True), Linear(H, 2), rng=0))
    assert tagger.predict(np.zeros((0, T, D))).shape == (0, T, 2)
    assert Sequential(Embedding(V, D), GRU(D, H), rng=0)(np.zeros((T, 0), int)).shape == (T, 0, H)


@pytest.mark.parametrize("compiled", [True, False])
def test_generation_of_no_sequences(compiled):
    model, rng = language_model(compiled), np.random.default_rng(0)
    for start in (np.zeros(0, int), np.zeros((0, 3), int)):
        for options in ({}, {"mode": "sample", "rng": rng}, {"end": 1}):
            tokens = model.generate(start, 4, **options)
            assert tokens.shape == (0, 4) and tokens.dtype == model.generate(np.ones(1, int), 4).dtype
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    tokens, state = model.generate(start, 4, return_state=True)
    of_one = model.generate(np.ones(1, int), 4, return_state=True)[1]
    for part, one in zip(*map(fastrnn._state.flatten, (state, of_one)), strict=True):
        assert part.shape == (len(one), 0, *one.shape[2:]) and part.dtype == one.dtype
    assert model.generate(tokens[:, -1], 2, state).shape == (0, 2)
    with pytest.raises(ValueError, match="state: expected shape .*, 0, "):
        model.generate(start, 4, of_one)
    with pytest.raises(ValueError, match=r"start: expected shape \(N,\) or \(N, T\), with nothing empty but N"):
        model.generate(np.zeros((0, 0), int), 4)


def test_feedback_of_no_sequences():
    for batch_first in (False, True):
        model = Sequential(GRU(D, H, batch_first=batch_first), Linear(H, D), rng=0)
        for start in (np.zeros((0, D), np.float32), np.zeros((0, 3, D), np.float32)):
            made = model.generate(start, 4, mode="feedback")
            assert made.shape == (0, 4, D) and made.dtype == np.float32
        with pytest.raises(ValueError, match=r"start: expected shape \(.*, 2\)"):
            model.generate(np.zeros((0, D + 1), np.float32), 4, mode="feedback")
    with pytest.raises(ValueError, match="layers: expected outputs as wide as inputs, 2, got 4"):
        Sequential(GRU(D, H, rng=0)).generate(start, 4, mode="feedback")
    with pytest.raises(ValueError, match="expected one direction for a stream"):
        Sequential(GRU(D, H, bidirectional=True), Linear(2 * H, D), rng=0).generate(start, 4, mode="feedback")


# --- What stands past the lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_stands_past_the_lengths_reaches_no_layer_in_front(batch_first):
    def make():
        front = Sequential(Linear(D, D), fastrnn.Activation("tanh"))  # not even one in a container
        layers = front, LSTM(D, H, batch_first=batch_first), MeanPool(batch_first=batch_first), Linear(H, 2)
        return Sequential(*layers, rng=0)

    lengths = np.array([2, 5, 0])
    clean = X * (np.arange(T)[:, None] < lengths)[:, :, None]
    found = []
    for rest in (0, np.nan, np.inf, 3.0):
        x = np.where((np.arange(T)[:, None] < lengths)[:, :, None], clean, np.float32(rest))
        x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
        before, model = x.copy(), make()
        y = model(x, lengths=lengths, training=True)
        model.backward(np.ones_like(y))
        assert np.array_equal(x, before, equal_nan=True)
        found.append([y, *model.grads.values()])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_tokens_past_the_lengths_may_be_anything():
    model = Sequential(Embedding(V, D), GRU(D, H), LastStep(), rng=0)
    tokens = np.array([[1, 2, 3], [4, -1, 5], [6, -1, 999]])
    y = model(tokens, lengths=[3, 1, 2], training=True)
    model.backward(np.ones_like(y))
    assert not model.grads["0.weight"][0].any()
    with pytest.raises(ValueError, match="lengths: expected shape"):
        model(tokens, lengths=[3, 1])


# --- Streams ----------------------------------------------------------------------------------------------------------


def test_flags_of_two_rows_are_not_taken_for_indices():
    stream = GRU(D, H, rng=1).stream(2)
    for rows in ([1, 0], [0, 1], np.array([0, 1])):
        with pytest.raises(ValueError, match=r"flags are a mask of bool, rows.astype\(bool\)"):
            stream.reset(rows)
    stream.step(X[0, :2])
    stream.reset([0])
    stream.reset([True, False])
    assert not stream.state[0, 0].any() and stream.state[0, 1].any()


def test_a_stream_refuses_a_wrong_shape_before_it_copies():
    stream = GRU(D, H, rng=1).stream(2)
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**20, 2**22), (0, 0))  # 16 TB, if it were copied
    with pytest.raises(ValueError, match=r"x: expected shape \(2, 2\) = \(N, D\), got \(1048576, 4194304\)"):
        stream.step(huge)


def test_a_stream_in_use_gives_no_snapshot_and_takes_no_state():
    stream = Sequential(GRU(D, 256), GRU(256, 256), rng=0).stream(8)
    x, met, done = np.zeros((1000, 8, D), np.float32), [], threading.Event()

    def run():
        try:
            for _ in range(3):
                stream.run(x)
        finally:
            done.set()

    first = stream.snapshot()
    thread = threading.Thread(target=run)
    thread.start()
    while not done.is_set():
        for use in (stream.snapshot, stream.reset, lambda: stream.restore(first)):
            try:
                use()
            except RuntimeError as error:
                met.append(str(error))
    thread.join()
    assert met and set(met) == {"stream: expected one thread at a time, got a call while another one runs"}
    stream.reset()


def test_an_own_layer_of_before_that_takes_the_newest_step_streams():
    class Newest(fastrnn.Module):
        keeps_time, streams, batch_first = False, True, False

        def __call__(self, x, *, training=False):
            return x[-1]

        def backward(self, dy):
            return dy

        def arguments(self):
            return {}

    assert Newest.takes_newest and not MeanPool.takes_newest and LastStep.takes_newest
    model = Sequential(GRU(D, H), Newest(), rng=0)
    stream = model.stream(N)
    for t in range(T):
        np.testing.assert_allclose(stream.step(X[t]), model(X[: t + 1]), rtol=1e-6)


# --- Cells of one's own, and single steps -----------------------------------------------------------------------------


class Leaky(fastrnn.Cell):
    state_size = H
    wrong = ""

    def __init__(self):
        self.params = {"W": np.ones((H, D), np.float32)}

    def step(self, x_t, state):
        h = state * np.float32(0.5) + x_t @ self.params["W"].T
        return h, h, x_t

    def step_backward(self, dy_t, dstate, cache):
        dh = dy_t + dstate
        dx, dprevious, dW = dh @ self.params["W"], dh * np.float32(0.5), dh.T @ cache
        if self.wrong == "dx shape":
            dx = dx[:, :1]
        if self.wrong == "dx dtype":
            dx = dx.astype(np.float64)
        if self.wrong == "dW shape":
            dW = dW[:1]
        if self.wrong == "dW dtype":
            dW = dW.astype(np.float64)
        if self.wrong == "state":
            dprevious = dprevious[:1]
        return dx, dprevious, {"W": dW}


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        ("dx shape", ValueError, r"expected dx_t of shape \(3, 2\), got \(3, 1\)"),
        ("dx dtype", TypeError, "expected dx_t in float32 like the parameters, got float64"),
        ("dW shape", ValueError, r"expected dparams\['W'\] of shape \(4, 2\), got \(1, 2\)"),
        ("dW dtype", TypeError, r"expected dparams\['W'\] in float32 like the parameters, got float64"),
        ("state", ValueError, r"expected dstate_prev of shape \(3, 4\), got \(1, 4\)"),
    ],
)
def test_what_a_cell_returns_is_neither_broadcast_nor_cast(wrong, error, words):
    layer = fastrnn.Recurrent(Leaky())
    y, _ = layer(X, training=True)
    layer.cell.wrong = wrong
    with pytest.raises(error, match=f"^cell.step_backward: {words}$"):
        layer.backward(y)


def test_a_single_step_speaks_of_its_own_shapes():
    weights = np.zeros((H, D), np.float32), np.zeros((H, H), np.float32), None, None
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, 2\), got \(3, 10\)$"):
        fastrnn.functional.rnn_cell_forward(np.zeros((3, 10), np.float32), None, *weights)


# --- Resets and a learned initial state -------------------------------------------------------------------------------


def learned(make, **options):
    layer = make(D, H, 2, learn_initial_state=True, dtype="float64", rng=3, **options)
    for name, value in layer.params.items():
        if name.startswith("initial"):
            value[...] = RNG.standard_normal(value.shape)
    return layer


def marks(lengths):
    mask = RNG.random((T, N)) < 0.4
    mask[0, 0] = mask[2, 0] = True
    return mask, lengths


@pytest.mark.parametrize("lengths", [None, np.array([5, 0, 3])], ids=["full", "ragged"])
@pytest.mark.parametrize("make", [RNN, GRU, LSTM, lambda *a, **k: LSTM(*a, proj_size=3, peephole=True, **k)])
def test_a_reset_goes_to_the_learned_state_as_in_a_stream(make, lengths):
    layer = learned(make)
    x, (mask, lengths) = RNG.standard_normal((T, N, D)), marks(lengths)
    given = layer(x[:2])[1]
    for state in (None, given):
        output, state_n = layer(x, state, lengths=lengths, reset_mask=mask)
        steps = np.full(N, T) if lengths is None else lengths
        stream, last = layer.stream(N), [None] * N
        stream.state = state
        for t in range(T):
            stream.reset(mask[t])
            y = stream.step(x[t])
            np.testing.assert_allclose(output[t, steps > t], y[steps > t], rtol=1e-12, atol=1e-14)
            assert not output[t, steps <= t].any()
            for n in np.flatnonzero(steps == t + 1):
                last[n] = fastrnn._state.take_rows(stream.state, [n])
        for n in np.flatnonzero(steps == 0):  # no step, no reset
            last[n] = fastrnn._state.take_rows(layer.stream(N).state if state is None else state, [n])
        for n, wanted in enumerate(last):
            for a, b in zip(*map(fastrnn._state.flatten, (fastrnn._state.take_rows(state_n, [n]), wanted))):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("make", [RNN, GRU, LSTM])
def test_gradients_of_resets_reach_the_learned_state(make, both, batch_first):
    layer = learned(make, bidirectional=both, batch_first=batch_first)
    x = RNG.standard_normal((N, T, D) if batch_first else (T, N, D))
    state = fastrnn._state.map(lambda a: a + 0.5, layer(x)[1])
    for lengths in (None, np.array([5, 0, 3])):
        mask, _ = marks(None)
        for start in (None, state):
            fastrnn.check_gradients(layer, x, start, lengths=lengths, reset_mask=mask)
    layer.zero_grad()
    _, state_n = layer(x, state, reset_mask=np.ones((T, N), bool), training=True)
    _, dstate0 = layer.backward(None, state_n)
    for part, name in zip(fastrnn._state.flatten(dstate0), layer.states):
        assert not part[::2].any() if both else not part.any()  # all starts are marked: nothing reaches what was given
        assert layer.grads[f"initial_{name}"].any()


def test_episodes_of_a_bidirectional_layer_are_sequences_of_their_own():
    layer = learned(GRU, bidirectional=True)
    x, mask = RNG.standard_normal((T, N, D)), np.zeros((T, N), bool)
    mask[3] = True
    output, h_n = layer(x, reset_mask=mask)
    first, h_first = layer(x[:3])
    second, h_second = layer(x[3:])
    np.testing.assert_allclose(output, np.concatenate([first, second]), rtol=1e-12)
    np.testing.assert_allclose(h_n[::2], h_second[::2], rtol=1e-12)
    np.testing.assert_allclose(h_n[1::2], h_first[1::2], rtol=1e-12)
    one, _ = layer(x[:, 0], reset_mask=mask[:, :1])  # without a batch axis
    np.testing.assert_allclose(one, output[:, 0], rtol=1e-12)
    y, h = layer(None, h_n, steps=4, reset_mask=mask[:4])
    layer.zero_grad()
    layer(None, h_n, steps=4, reset_mask=mask[:4], training=True)
    assert layer.backward(y, h)[0] is None
    dropped = learned(LSTM, dropout=0.5)
    fastrnn.check_gradients(dropped, x, reset_mask=mask)
    trainer = Trainer(
        Sequential(GRU(D, H, batch_first=True, learn_initial_state=True), Linear(H, 2), rng=0), loss="mse"
    )
    data = RNG.standard_normal((4, T, D))
    trainer.fit(data, data, reset_mask=np.tile(mask[:, :1].T, (4, 1)), epochs=1, progress=False)
    assert trainer.model.grads["0.initial_h"].any()


# --- Errors within a model --------------------------------------------------------------------------------------------


def test_an_error_within_a_model_names_the_layer():
    model = Sequential(GRU(D, H), Linear(H + 1, 2), rng=0)
    with pytest.raises(ValueError, match=r"^layer 1 \(Linear\): x: expected shape \(..., 5\), got \(5, 3, 4\)$"):
        model(X)
    with pytest.raises(ValueError, match="^x: expected shape"):  # this x is the caller's
        model(X[..., :1])
    nested = Sequential(GRU(D, H), Sequential(Linear(H, H), Linear(H + 1, 2)), rng=0)
    with pytest.raises(ValueError, match=r"^layer 1 \(Sequential\): layer 1 \(Linear\): x: expected"):
        nested(X)


@pytest.mark.parametrize("both", [False, True])
def test_masked_steps_within_episodes_carry_the_learned_state(both):
    layer = learned(LSTM, bidirectional=both)
    x, (mask, _) = RNG.standard_normal((T, N, D)), marks(None)
    real = RNG.random((T, N)) < 0.6
    fastrnn.check_gradients(layer, x, reset_mask=mask, mask=real) if not both else None
    output, _ = layer(x, reset_mask=mask, mask=real)
    trace = layer.trace(x, reset_mask=mask, mask=real)
    np.testing.assert_allclose(trace.output, output, rtol=1e-12, atol=1e-14)
