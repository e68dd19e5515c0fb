"""Small inputs that layers and streams once took wrongly, in silence or too late, and their right values.

Letters: N batch, T time steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Embedding, LastStep, Linear, MeanPool, Sequential

RNG = np.random.default_rng(0)
N, T, D, H, V = 3, 5, 2, 4, 7
X = RNG.standard_normal((T, N, D)).astype(np.float32)


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
