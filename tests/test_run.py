"""The stateful protocol: `Module.run` and `run_backward` of single layers and of Sequential.

Letters: T time steps, N batch, D input size, H hidden size, M outputs.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close

from fastrnn.layers import GRU, LSTM, RNN, Activation, Dropout, LastStep, Linear, Module, Repeat, Sequential, TreeLSTM
from fastrnn.layers.protocol import NOTHING, Layout, StateSpec, Time

T, N, D, H, M = 11, 3, 4, 5, 2


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def flat(state: Any) -> list[np.ndarray]:
    """The arrays of a nested state, in order."""
    if isinstance(state, tuple):
        return [array for entry in state for array in flat(entry)]
    return [] if state is None else [state]


def stack(batch_first: bool = False) -> Sequential:
    """Layers with and without a state, some of them in a Sequential of their own."""
    options = {"batch_first": batch_first, "dtype": np.float64}
    return Sequential(
        Linear(D, H, dtype="f8", rng=0),
        LSTM(H, H, 2, rng=1, **options),
        Sequential(GRU(H, H, rng=2, **options), Activation("tanh")),
        RNN(H, H, rng=3, **options),
        Linear(H, M, dtype="f8", rng=4),
    )


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
def test_pieces_of_a_sequence_give_what_the_whole_gives(batch_first):
    model, axis = stack(batch_first), int(batch_first)
    x, dy = normal(T, N, D), normal(T, N, M)
    if batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    _, start = model.run(normal(*x.shape, seed=1))
    expected, expected_n = model.run(x, start, training=True)
    dstate_n = tuple(map(as_gradient, expected_n))
    expected_dx, expected_d0 = model.run_backward(dy, dstate_n)
    expected_grads = {name: grad.copy() for name, grad in model.grads.items()}

    model.zero_grad()
    pieces = [slice(0, 4), slice(4, 5), slice(5, T)]
    cut = [(piece,) if axis == 0 else (slice(None), piece) for piece in pieces]
    states, outputs = [start], []
    for piece in cut:
        y, state = model.run(x[piece], states[-1])
        outputs.append(y)
        states.append(state)
    assert_output_close(np.concatenate(outputs, axis), expected, "float64")
    dxs, dstate = [], dstate_n
    for piece, state in zip(reversed(cut), reversed(states[:-1])):  # each run again, from the last to the first
        model.run(x[piece], state, training=True)
        dx, dstate = model.run_backward(dy[piece], dstate)
        dxs.insert(0, dx)
    assert_gradient_close(np.concatenate(dxs, axis), expected_dx, "float64")
    for name, grad in expected_grads.items():
        assert_gradient_close(model.grads[name], grad, "float64", name)
    for got, wanted in [(states[-1], expected_n), (dstate, expected_d0)]:
        assert [type(entry) for entry in got] == [type(entry) for entry in wanted]
        for a, b in zip(flat(got), flat(wanted), strict=True):
            assert_gradient_close(a, b, "float64")


def as_gradient(entry: Any) -> Any:
    """Random numbers in the shape of a state."""
    if isinstance(entry, tuple):
        return tuple(map(as_gradient, entry))
    return None if entry is None else normal(*entry.shape, seed=2)


def test_the_state_of_sequential_has_an_entry_per_layer():
    model, x = stack(), normal(T, N, D)
    y, state = model.run(x)
    np.testing.assert_array_equal(y, model(x))
    none, (h, c), (gru, inner), rnn, last = state
    assert none is inner is last is None
    assert h.shape == c.shape == (2, N, H) and gru.shape == rnn.shape == (1, N, H)
    np.testing.assert_array_equal(model.run(x, (None,) * 5)[0], y)
    assert Sequential(Linear(D, M, dtype="f8")).run(x)[1] == (None,)


def test_a_recurrent_layer_runs_as_it_is_called():
    layer = LSTM(D, H, dtype="f8", rng=0)
    x, dy = normal(T, N, D), normal(T, N, H)
    _, start = layer(x)
    for run, back in ((layer.run, layer.run_backward), (layer, layer.backward)):
        layer.zero_grad()
        y, state_n = run(x, start, training=True)
        dx, dstate0 = back(dy, state_n)
        results = [y, dx, *flat(state_n), *flat(dstate0), *(grad.copy() for grad in layer.grads.values())]
        if run == layer.run:
            first = results
    for a, b in zip(first, results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layer", [Linear(D, M, dtype="f8"), Activation("tanh"), Dropout(0.5, rng=0), LastStep()], ids=repr
)
def test_a_layer_without_a_state_has_none(layer):
    x = normal(T, N, D)
    y, state_n = layer.run(x, training=True)
    dx, dstate0 = layer.run_backward(np.ones_like(y))
    assert state_n is dstate0 is None and dx.shape == x.shape
    with pytest.raises(
        ValueError, match=f"^state: expected None, as {type(layer).__name__} has no state, got ndarray$"
    ):
        layer.run(x, np.zeros((1, N, H)))
    with pytest.raises(
        ValueError, match=f"^dstate_n: expected None, as {type(layer).__name__} has no state, got ndarray"
    ):
        layer.run_backward(y, np.zeros((1, N, H)))


def test_lengths_reach_the_layers_that_take_them():
    lengths = np.array([2, 0, T])
    x = normal(T, N, D)
    np.testing.assert_array_equal(LastStep().run(x, lengths=lengths)[0], LastStep()(x, lengths=lengths))
    np.testing.assert_array_equal(Activation("tanh").run(x, lengths=lengths)[0], np.tanh(x))  # looks at no time


class Counter(Module):
    """A layer of one's own with a state, that knows neither lengths nor resets."""

    takes_state = True

    def __call__(self, x, state=None, *, training=False):
        state_n = (0 if state is None else state) + len(x)
        return x + state_n, state_n

    def backward(self, dy, dstate_n=None):
        return dy, dstate_n


def test_layers_of_ones_own_with_a_state():
    model, x = Sequential(Counter(), Activation("identity")), normal(T, N, D)
    y, state = model.run(x, (3, None))
    assert state == (3 + T, None)
    np.testing.assert_array_equal(y, x + (3 + T))
    np.testing.assert_array_equal(model(x), x + T)
    model.run(x, training=True)
    assert model.run_backward(x, (5, None))[1] == (5, None)


class Running(Module):
    """The same by the protocol: y = x + how many steps came before and now."""

    accepts = frozenset({"state"})

    def forward(self, x, state=None, *, context=NOTHING, training=False):
        state_n = (0 if state is None else state) + len(x)
        return x + state_n, state_n

    def backpropagate(self, dy, dstate_n=None, *, need_dx=True):
        return dy, dstate_n


def test_layers_of_ones_own_by_the_protocol():
    x = normal(T, N, D)
    for layer in (Running(), Counter()):
        model = Sequential(layer, Activation("identity"))
        y, state = model.run(x, (3, None))
        assert state == (3 + T, None) and model.state_spec is None and layer.state_spec == StateSpec(("h",), (None,))
        np.testing.assert_array_equal(y, x + (3 + T))
        np.testing.assert_array_equal(layer.forward(x, 3)[0], y)
        model.forward(x, training=True)
        assert model.backpropagate(x, (5, None))[1] == (5, None)
        assert layer.run_backward(x, 5)[1] == 5
        with pytest.raises(ValueError, match=r"^lengths: expected None, as \w+ takes no lengths$"):
            Sequential(layer, LSTM(D, H)).run(x, lengths=np.full(N, T))
    np.testing.assert_array_equal(Running()(x), x + T)
    np.testing.assert_array_equal(Running().backward(x), x)


def test_a_class_that_overrides_call_is_run_through_it():
    class Loud(LSTM):
        def __call__(self, x, state=None, **options):
            calls.append(sorted(options))
            return super().__call__(x, state, **options)

    class Louder(LSTM):
        def forward(self, x, state=None, *, context=NOTHING, training=False):
            calls.append("forward")
            return super().forward(x, state, context=context, training=training)

    calls: list[Any] = []
    x, lengths = normal(T, N, D), np.full(N, 4)
    expected = LSTM(D, H, dtype="f8", rng=0)(x, lengths=lengths)[0]
    for cls in (Loud, Louder):
        model = Sequential(cls(D, H, dtype="f8", rng=0))
        np.testing.assert_array_equal(model(x, lengths=lengths), expected)
        np.testing.assert_array_equal(model[0](x, lengths=lengths)[0], expected)
    assert calls == [["lengths", "training"], ["lengths"], "forward", "forward"]


def test_flags_of_earlier_versions_are_understood():
    class Summary(Module):
        takes_lengths = True
        keeps_time = False
        scores_with_targets = skips_dx = True

        def __call__(self, x, *, lengths=None, training=False):
            return x[-1] if lengths is None else lengths

    layer, lengths = Summary(), np.arange(N)
    assert layer.time is Time.REDUCES and layer.accepts == {"lengths"} and layer.needs_targets
    assert layer.optional_input_grad and layer.layout is Layout.ANY
    assert layer.run(normal(T, N, D), lengths=lengths)[0] is lengths


def test_time_of_models():
    for layers, time in [
        ([LSTM(D, H)], Time.PER_STEP),
        ([LSTM(D, H), LastStep()], Time.REDUCES),
        ([Repeat(3), LSTM(D, H)], Time.CREATES),
        ([Repeat(3), LSTM(D, H), LastStep()], Time.HIDDEN),
        ([LSTM(D, H), LastStep(), Repeat(3), LSTM(H, H)], Time.PER_STEP),
    ]:
        assert Sequential(*layers).time is time and Time.of(time.in_x, time.in_y) is time


def test_layers_say_whether_a_trainer_can_train_them():
    for layer, message in [
        (LSTM(D, H), "model: expected a layer that returns one array, got LSTM; put it in a Sequential"),
        (Sequential(Linear(D, D), Sequential(TreeLSTM(D, H))), "model: expected layers that read arrays, got TreeLSTM"),
    ]:
        with pytest.raises(TypeError, match=f"^{message}"):
            layer.check_trainable()
    Sequential(LSTM(D, H), Linear(H, M)).check_trainable()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: stack().run(x, 3), "state: expected None or a tuple with an entry per layer, 5, got int"),
        (lambda x: stack().run(x, (None,)), "state: expected None or a tuple with an entry per layer, 5, got one of 1"),
        (lambda x: stack().run(x, (x,) * 5), "state: expected None, as Linear has no state, got ndarray"),
        (
            lambda x: stack().run_backward(x, ()),
            "dstate_n: expected None or a tuple with an entry per layer, 5, got one of 0",
        ),
        (lambda x: Counter().run(x, lengths=np.array([1])), "lengths: expected None, as Counter takes no lengths"),
        (
            lambda x: Counter().run(x, reset_mask=np.array([1])),
            "reset_mask: expected None, as Counter takes no reset_mask",
        ),
        (
            lambda x: Sequential(Linear(D, M))(x, reset_mask=np.zeros((T, N), bool)),
            "reset_mask: expected None, as no layer of this Sequential takes resets",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(normal(T, N, D))
