"""Streams: steps and blocks have the bits of whole sequences, states come and go, nothing leaks.

Letters: T time steps, N batch, D input features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Activation, Dropout, Embedding, LastStep, Linear, MeanPool, Module, Sequential
from fastrnn.streaming.stream import CompiledStream, PiecewiseStream

T, D, H = 9, 5, 7
LAYERS = {
    "rnn": lambda **options: RNN(D, H, rng=1, **options),
    "relu": lambda **options: RNN(D, H, nonlinearity="relu", rng=1, **options),
    "gru": lambda **options: GRU(D, H, rng=1, **options),
    "gru-reset-before": lambda **options: GRU(D, H, reset_after=False, rng=1, **options),
    "lstm": lambda **options: LSTM(D, H, rng=1, **options),
    "lstm-projected": lambda **options: LSTM(D, H, proj_size=3, peephole=True, cell_clip=2.0, rng=1, **options),
    "gru-named": lambda **options: GRU(D, H, gate_activation="hard_sigmoid", activation="relu", rng=1, **options),
    "learned": lambda **options: learned(LSTM(D, H, learn_initial_state=True, rng=1, **options)),
}


def learned(layer):
    for name in ("initial_h", "initial_c"):
        layer.params[name][...] = np.random.default_rng(5).standard_normal(layer.params[name].shape)
    return layer


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_same_state(actual, expected):
    """To the bit."""
    if expected is None or isinstance(expected, np.ndarray):
        assert (actual is None) == (expected is None)
        np.testing.assert_array_equal(actual, expected)
        return
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        assert_same_state(one, other)


@pytest.mark.parametrize("N", [1, 3, 8])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LAYERS)
def test_steps_and_blocks_have_the_bits_of_the_whole(isa, kind, dtype, num_layers, N):
    layer = LAYERS[kind](num_layers=num_layers, dtype=dtype)
    x = normal(T, N, D, dtype=dtype)
    output, state_n = layer(x)
    stream = layer.stream(N)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(x[t]), output[t])
    assert_same_state(stream.state, state_n)
    stream.reset()
    np.testing.assert_array_equal(np.concatenate([stream.run(x[:4]), stream.run(x[4:4]), stream.run(x[4:])]), output)
    assert_same_state(stream.state, state_n)


@pytest.mark.parametrize("cell", [RNN, GRU, LSTM])
def test_layer_large_enough_to_share_out(cell):
    layer = cell(130, 300, rng=0)
    x = normal(4, 1, 130)
    stream = layer.stream()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), layer(x)[0])


def test_a_single_sequence_needs_no_batch_axis():
    layer = GRU(D, H, rng=0)
    x = normal(T, D)
    stream = layer.stream()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), layer(x)[0])
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])


def test_batch_first():
    layer = LSTM(D, H, batch_first=True, rng=0)
    x = normal(3, T, D)
    stream = layer.stream(3)
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[:, 0]), layer(x)[0][:, 0])


def test_out_receives_the_result():
    stream, twin = (LSTM(D, H, rng=0).stream(2) for _ in range(2))
    x, out = normal(2, D), np.empty((2, H), np.float32)
    assert stream.step(x, out) is out
    np.testing.assert_array_equal(out, twin.step(x))


def test_state_snapshot_restore_and_reset():
    layer = LSTM(D, H, 2, rng=0)
    x = normal(T, 3, D)
    stream = layer.stream(3)
    stream.run(x[:4])
    snapshot = stream.snapshot()
    rest = stream.run(x[4:])
    stream.restore(snapshot)
    np.testing.assert_array_equal(stream.run(x[4:]), rest)
    assert_same_state(snapshot, layer(x[:4])[1])

    stream.state = (h, c) = tuple(normal(2, 3, H, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(stream.run(x), layer(x, (h, c))[0])
    stream.state = (h, c)
    stream.reset([1])
    h[:, 1] = c[:, 1] = 0
    assert_same_state(stream.state, (h, c))
    stream.reset(np.array([True, False, False]))
    h[:, 0] = c[:, 0] = 0
    assert_same_state(stream.state, (h, c))
    stream.state = None
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])


def test_reset_goes_back_to_the_learned_state():
    layer = LAYERS["learned"]()
    x = normal(T, 2, D)
    stream = layer.stream(2)
    stream.run(x)
    stream.reset([0])
    assert_same_state(stream.state[0][:, 0], layer.params["initial_h"])
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), layer(x)[0])


def test_pickle_and_copy_go_on_alone():
    stream = GRU(D, H, rng=0).stream(2)
    x = normal(T, 2, D)
    stream.run(x)
    copies = [pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)]
    expected = stream.run(x)
    for one in copies:
        np.testing.assert_array_equal(one.run(x), expected)


def test_weights_are_those_at_the_opening():
    layer = RNN(D, H, rng=0)
    x = normal(T, 1, D)
    before = layer(x)[0]
    stream = layer.stream()
    layer.params["weight_hh_l0"] *= 2
    np.testing.assert_array_equal(stream.run(x), before)
    np.testing.assert_array_equal(layer.stream().run(x), layer(x)[0])


def character_model(**options):
    return Sequential(
        Embedding(20, 6, rng=0),
        GRU(6, 9, 2, rng=1, **options),
        Dropout(0.5),
        Linear(9, 8, rng=2),
        Activation("tanh"),
        Linear(8, 20, rng=3),
    )


@pytest.mark.parametrize("batch_first", [False, True])
def test_sequential_is_one_chain(batch_first):
    model = character_model(batch_first=batch_first)
    tokens = np.random.default_rng(0).integers(0, 20, (4, T) if batch_first else (T, 4))
    stream = model.stream(4)
    assert isinstance(stream, CompiledStream)
    output, state_n = model.run(tokens)
    np.testing.assert_allclose(stream.run(tokens), output, rtol=0, atol=1e-6)  # tanh: NumPy's there, the kernels' here
    assert_same_state(stream.state, state_n)
    stream.reset()
    for t in range(T):
        token, expected = (tokens[:, t], output[:, t]) if batch_first else (tokens[t], output[t])
        np.testing.assert_allclose(stream.step(token), expected, rtol=0, atol=1e-6)
    stream.state = state_n
    assert_same_state(stream.state, state_n)


def test_last_step_is_the_newest():
    model = Sequential(GRU(D, H, rng=0), LastStep(), Linear(H, 3, rng=1))
    x = normal(T, 2, D)
    stream = model.stream(2)
    for t in range(T):
        np.testing.assert_allclose(stream.step(x[t]), model(x[: t + 1]), rtol=0, atol=1e-6)


class Doubled(Module):
    """A user's layer without a compiled form."""

    def __call__(self, x, *, training=False):
        return 2 * x

    def arguments(self):
        return {}


def test_layers_of_the_users_own_run_between_chains():
    model = Sequential(GRU(D, H, rng=0), Doubled(), LSTM(H, 4, rng=1), Activation("softmax"))
    x = normal(T, 3, D)
    stream = model.stream(3)
    assert isinstance(stream, PiecewiseStream)
    output, state_n = model.run(x)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), output)
    assert_same_state(stream.state, state_n)
    snapshot = stream.snapshot()
    stream.reset([2])
    assert not stream.state[0][:, 2].any() and stream.state[0][:, 1].any()
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), output)
    twin = pickle.loads(pickle.dumps(stream))
    stream.restore(snapshot)
    assert_same_state(stream.state, state_n)
    np.testing.assert_array_equal(twin.run(x), stream.run(x))


class Wide(fastrnn.Cell):
    """Sums of what it read, in states of one and of two axes."""

    state_size = (D, (2, D))

    def step(self, x_t, state):
        one, two = state[0] + x_t, state[1] + x_t[:, None]
        return one, (one, two), None


@pytest.mark.parametrize("batch_first", [False, True])
def test_pieces_take_a_single_sequence_without_a_batch_axis(batch_first):
    model = Sequential(fastrnn.Recurrent(Wide(), batch_first=batch_first), GRU(D, H, batch_first=batch_first, rng=0))
    x = normal(T, D)
    stream = model.stream()
    output = model(x)
    np.testing.assert_array_equal(stream.run(x), output)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), output)
    stream.reset()
    whole = output[None] if batch_first else output[:, None]
    np.testing.assert_array_equal(stream.run(x[None] if batch_first else x[:, None]), whole)


def test_pieces_reset_rows_of_states_with_more_axes():
    stream = fastrnn.Recurrent(Wide()).stream(4)
    stream.run(normal(T, 4, D))
    one, two = stream.state
    stream.reset([1, 3])
    one[:, [1, 3]] = two[:, [1, 3]] = 0
    assert_same_state(stream.state, (one, two))


def test_pieces_end_in_a_last_step_too():
    model = Sequential(fastrnn.Recurrent(Wide()), LastStep(), Linear(D, 2, rng=0))
    x = normal(T, 3, D)
    stream = model.stream(3)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(x[t]), model(x[: t + 1]))


def test_pieces_refuse_another_batch():
    stream = fastrnn.Recurrent(Wide()).stream(2)
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, D\), or tokens \(N\), N = 2, got \(3, 5\)$"):
        stream.step(normal(3, D))
    with pytest.raises(
        ValueError, match=r"^x: expected shape \(T, N, D\), or tokens \(T, N\), N = 2, got \(2, 3, 5\)$"
    ):
        stream.run(normal(2, 3, D))


def test_a_sequential_within_is_part_of_the_chain():
    model = Sequential(Sequential(LAYERS["learned"](), Linear(H, 4, rng=0)), GRU(4, 3, rng=1))
    x = normal(T, 2, D)
    stream = model.stream(2)
    assert isinstance(stream, CompiledStream)
    output, state_n = model.run(x)
    np.testing.assert_allclose(stream.run(x), output, rtol=0, atol=1e-6)
    assert_same_state(stream.state, state_n)
    stream.reset([0])
    assert_same_state(stream.state[0][0][0][:, 0], model[0][0].params["initial_h"])
    stream.state = state_n
    assert_same_state(stream.state, state_n)
    with pytest.raises(ValueError, match="^GRU: expected one direction for a stream"):
        Sequential(Sequential(GRU(D, H, bidirectional=True)), Linear(2 * H, 1)).stream()


def test_dropout_before_the_first_link_is_part_of_the_chain():
    layers = (Embedding(20, 6, rng=0), Dropout(0.5), GRU(6, 9, rng=1), Dropout(0.5), Linear(9, 20, rng=2))
    stream = Sequential(*layers).stream(2)
    assert isinstance(stream, CompiledStream) and len(stream.state) == 5
    tokens = np.random.default_rng(0).integers(0, 20, (T, 2))
    np.testing.assert_array_equal(stream.run(tokens), Sequential(*layers)(tokens))
    model = Sequential(layers[0], layers[1], Doubled(), Dropout(0.5), Activation("identity"), layers[2])
    stream = model.stream(2)
    np.testing.assert_array_equal(stream.run(tokens), model(tokens))
    assert_same_state(stream.state, model.run(tokens)[1])


def test_resetting_no_rows_changes_nothing():
    stream = GRU(D, H, rng=0).stream(2)
    stream.run(normal(T, 2, D))
    before = stream.state
    stream.reset([])
    assert_same_state(stream.state, before)


def test_streams_of_one_layer_in_several_threads():
    layer = LSTM(D, H, rng=0)
    inputs = [normal(200, 1, D, seed=seed) for seed in range(8)]

    def follow(x):
        stream = layer.stream()
        return np.stack([stream.step(x_t) for x_t in x])

    with ThreadPoolExecutor(4) as pool:
        for x, result in zip(inputs, pool.map(follow, inputs)):
            np.testing.assert_array_equal(result, layer(x)[0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: LSTM(D, H, bidirectional=True),
            "^LSTM: expected one direction for a stream, got a bidirectional layer",
        ),
        (lambda: Sequential(GRU(D, H, bidirectional=True)), "^GRU: expected one direction for a stream"),
        (lambda: Sequential(GRU(D, H), MeanPool()), "^MeanPool: expected a layer with an output at every step"),
        (lambda: fastrnn.TreeLSTM(D, H), "^TreeLSTM: expected a layer with an output at every step"),
    ],
)
def test_what_cannot_stream_says_so(model, message):
    with pytest.raises(ValueError, match=message):
        model().stream()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda s: s.step(np.zeros((2, D + 1), "f")),
            ValueError,
            r"^x: expected shape \(2, 5\) = \(N, D\), got \(2, 6\)$",
        ),
        (lambda s: s.step(np.zeros(D, "f")), ValueError, r"^x: expected shape \(2, 5\)"),
        (lambda s: s.step(np.zeros((2, D))), TypeError, "^x: expected float32"),
        (lambda s: s.step([1.0]), TypeError, "^x: expected a NumPy array, got list$"),
        (lambda s: s.step(np.zeros((2, D), "f"), np.zeros((2, H))), TypeError, "^out: expected float32, got float64$"),
        (lambda s: s.step(np.zeros((2, D), "f"), np.zeros((2, D), "f")), ValueError, r"^out: expected shape \(2, 7\)"),
        (lambda s: s.run(np.zeros((4, 3, D), "f")), ValueError, r"^x: expected shape \(T, 2, 5\)"),
        (lambda s: setattr(s, "state", np.zeros((1, 2, H), "f")), ValueError, r"^state: expected h \(1, 2, ...\), c"),
        (
            lambda s: setattr(s, "state", (np.zeros((1, 2, H), "f"), np.zeros((1, 2, D), "f"))),
            ValueError,
            "^c of state: ",
        ),
        (lambda s: s.reset([5]), IndexError, r"^rows: expected indices 0..1, got 5$"),
    ],
)
def test_errors(call, error, message):
    stream = LSTM(D, H, rng=0).stream(2)
    before = stream.run(normal(3, 2, D)) is not None and stream.state
    with pytest.raises(error, match=message):
        call(stream)
    assert_same_state(stream.state, before)


def test_tokens_of_any_integers_and_strides_take_the_same_step():
    streams = [character_model().stream(2) for _ in range(4)]
    tokens = np.array([19, 0])
    given = tokens, tokens.astype(np.uint8), np.array([19, 5, 0])[::2], [19, 0]
    for _ in range(2):
        steps = [stream.step(x) for stream, x in zip(streams, given)]
        for step in steps[1:]:
            np.testing.assert_array_equal(step, steps[0])


def test_token_errors():
    stream = character_model().stream(2)
    with pytest.raises(IndexError, match=r"^x: expected tokens 0\.\.19, got values from -1 to 3$"):
        stream.step(np.array([3, -1]))
    for tokens, error, message in (
        (np.array([0.0, 1.0]), TypeError, "^x: expected integer tokens, got float64$"),
        (np.array([1, 20]), IndexError, r"^x: expected tokens 0\.\.19, got values from 1 to 20$"),
        (np.array([1]), ValueError, r"^x: expected shape \(2,\), got \(1,\)$"),
    ):
        with pytest.raises(error, match=message):
            stream.step(tokens)
    with pytest.raises(ValueError, match="^batch_size: expected a whole number of at least 1, got 0$"):
        character_model().stream(0)
    with pytest.raises(TypeError, match="^batch_size: expected a whole number, got '2'$"):
        character_model().stream("2")


def test_a_stream_refuses_a_second_thread():
    stream, x, refused = GRU(16, 64, rng=0).stream(), normal(20000, 1, 16), []

    def step():
        for _ in range(100):
            try:
                stream.step(x[0])
            except RuntimeError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            running = pool.submit(step)
            try:
                stream.run(x)
            except RuntimeError as error:
                refused.append(str(error))
            running.result()
    assert set(refused) == {"stream: expected one thread at a time, got a call while another one runs"}
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), GRU(16, 64, rng=0).stream().step(x[0]))


def test_a_block_too_long_for_memory_leaves_the_stream_as_it_was():
    """The second layer's output would be 2**48 bytes; by then the first one has been prepared for a block."""
    model = Sequential(GRU(3000, 1, rng=0), Linear(1, 2**21, rng=1), Linear(2**21, 1, rng=2))
    stream, twin = model.stream(), model.stream()
    x = normal(2, 1, 3000)
    with pytest.raises(MemoryError):
        stream.run(np.broadcast_to(x[:1], (2**25, 1, 3000)))
    np.testing.assert_array_equal(stream.step(x[0]), twin.step(x[0]))
    np.testing.assert_array_equal(stream.run(x), twin.run(x))


def test_steps_do_not_grow_memory():
    """A hundred thousand steps; a leak of one small array each would be 10 MB and more."""
    resource = pytest.importorskip("resource")
    stream = fastrnn.LSTM(4, 8, rng=0).stream()
    x, out = normal(1, 4), np.empty((1, 8), np.float32)

    def steps(count):
        for _ in range(count):
            stream.step(x, out)
            stream.step(x)

    steps(2_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps(50_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000
