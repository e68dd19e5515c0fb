"""Sequential, and layers of one's own in it.

Letters: T time steps, N batch, D input features, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close
from test_basic_layers import D, H, M, N, T, V, check_differences, normal

from fastrnn.layers import GRU, LSTM, RNN, Activation, Dropout, Embedding, LastStep, Linear, Module, Sequential, build


@pytest.mark.parametrize(
    "model, x",
    [
        (
            Sequential(
                LSTM(D, H, bidirectional=True, init="orthogonal", dtype=np.float64, rng=0),
                Activation("sigmoid"),
                GRU(2 * H, H, init="orthogonal", dtype=np.float64, rng=1),
                LastStep(),
                Linear(H, M, dtype=np.float64, rng=2),
                Activation("tanh"),
            ),
            normal(T, N, D),
        ),
        (
            Sequential(
                Linear(D, 4, dtype=np.float64, rng=0),
                Activation("tanh"),
                GRU(4, H, batch_first=True, dtype=np.float64, rng=1),
                RNN(H, 3, batch_first=True, dtype=np.float64, rng=2),
                Linear(3, M, dtype=np.float64, rng=3),
            ),
            normal(N, T, D),
        ),
        (
            Sequential(
                Embedding(V, D, dtype=np.float64, rng=0),
                Sequential(GRU(D, H, reset_after=False, dtype=np.float64, rng=1), LastStep()),
                Linear(H, M, dtype=np.float64, rng=2),
            ),
            np.random.default_rng(0).integers(0, V, (5 * T, N)),
        ),
    ],
    ids=["time major", "sequence out", "tokens"],
)
def test_sequential_gradients(model, x):
    y = model(x)
    check_differences(model, x, normal(*y.shape))


def test_sequential_gradients_with_lengths():
    model = Sequential(LSTM(D, H, 2, dtype=np.float64, rng=0), LastStep(), Linear(H, M, dtype=np.float64, rng=1))
    lengths = np.array([2, T, 3, 4])
    check_differences(model, normal(T, N, D), normal(N, M), lengths=lengths)
    x = normal(T, N, D)
    y = model(x, lengths=lengths)
    for n, length in enumerate(lengths):  # as if each sequence had been given alone
        np.testing.assert_allclose(y[n], model(x[:length, n]), rtol=0, atol=1e-12)


def test_sequential_agrees_with_torch():
    torch = pytest.importorskip("torch")

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(V, D)
            self.lstm = torch.nn.LSTM(D, H, 2, batch_first=True)
            self.head = torch.nn.Linear(H, M)

        def forward(self, x):
            return self.head(self.lstm(self.embed(x))[0][:, -1])

    torch.manual_seed(0)
    twin = Twin().double()
    model = Sequential(
        Embedding(V, D, dtype="f8"),
        LSTM(D, H, 2, batch_first=True, dtype="f8"),
        LastStep(batch_first=True),
        Linear(H, M, dtype="f8"),
    )
    places = {"embed": 0, "lstm": 1, "head": 3}

    def ours(name: str) -> str:
        room, _, rest = name.partition(".")
        return f"{places[room]}.{rest}"

    model.load_state_dict({ours(name): value.numpy() for name, value in twin.state_dict().items()})
    x, dy = np.random.default_rng(0).integers(0, V, (N, T)), normal(N, M)
    y = model(x, training=True)
    assert model.backward(dy) is None
    expected = twin(torch.tensor(x))
    expected.backward(torch.tensor(dy))
    assert_output_close(y, expected.detach().numpy(), "float64")
    for name, param in twin.named_parameters():
        assert_gradient_close(model.grads[ours(name)], param.grad.numpy(), "float64", name)


def test_sequential_names_and_parts():
    inner = Sequential(Linear(H, H, bias=False), Activation("relu"))
    model = Sequential(Embedding(V, D), LSTM(D, H), LastStep(), inner)
    assert list(model.params) == [
        "0.weight",
        "1.weight_ih_l0",
        "1.weight_hh_l0",
        "1.bias_ih_l0",
        "1.bias_hh_l0",
        "3.0.weight",
    ]
    assert list(model.grads) == list(model.params)
    assert model.params["3.0.weight"] is inner[0].params["weight"]
    assert len(model) == 4 and model[1].hidden_size == H and [type(layer).__name__ for layer in model][2] == "LastStep"
    state = {name: np.full_like(value, k) for k, (name, value) in enumerate(model.state_dict().items())}
    model.load_state_dict(state)
    assert (inner[0].params["weight"] == 5).all()
    model[1].grads["bias_ih_l0"][...] = 1
    model.zero_grad()
    assert not model[1].grads["bias_ih_l0"].any()
    with pytest.raises(ValueError, match="^mapping: .* got missing 0.weight$"):
        model.load_state_dict({name: value for name, value in state.items() if name != "0.weight"})


def test_sequential_config_copies_and_generators():
    model = Sequential(Embedding(V, D), Dropout(0.2), Sequential(GRU(D, H, 2, dropout=0.1), LastStep()), Linear(H, M))
    again = build(json.loads(json.dumps(model.config())))
    assert repr(again) == repr(model)
    assert [name for name, _ in model.generators()] == ["1", "2.0"]
    x = np.arange(V)[:, None]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), model(x))
        np.testing.assert_array_equal(other(x, training=True), copy.deepcopy(model)(x, training=True))


@pytest.mark.parametrize(
    "layers, batch_first, keeps_time",
    [
        ((Linear(2, 2), Activation("relu")), None, True),
        ((Embedding(3, 2), LSTM(2, 2, batch_first=True)), True, True),
        ((GRU(2, 2), LSTM(2, 2), LastStep(), Linear(2, 2)), False, False),
        ((Sequential(Dropout()), Sequential(RNN(2, 2, batch_first=True), LastStep(batch_first=True))), True, False),
    ],
)
def test_sequential_knows_its_layout(layers, batch_first, keeps_time):
    model = Sequential(*layers)
    assert model.batch_first is batch_first and model.time.in_y is keeps_time


SHARED = Linear(2, 2)


@pytest.mark.parametrize(
    "layers, error, message",
    [
        ((), ValueError, "layers: expected at least one layer, got none"),
        ((Linear(2, 2), np.tanh), TypeError, "layers: expected layers, got ufunc at 1"),
        (
            (SHARED, Dropout(), SHARED),
            ValueError,
            "layers: expected each layer once, got the same layer 2 (Linear) twice",
        ),
        (
            (Linear(2, 2), LSTM(2, 2, batch_first=True), LastStep()),
            ValueError,
            "layers: expected one layout, got batch_first=True in layer 1 (LSTM) and batch_first=False in layer 2 "
            "(LastStep)",
        ),
        (
            (LSTM(2, 2), Sequential(Linear(2, 2), GRU(2, 2, batch_first=True))),
            ValueError,
            "layers: expected one layout, got batch_first=False in layer 0 (LSTM) and batch_first=True in "
            "layer 1 (Sequential)",
        ),
        (
            (LSTM(2, 2), LastStep(), Linear(2, 2), LSTM(2, 2)),
            ValueError,
            "layers: expected no layer that reads time after layer 1 (LastStep), got layer 3 (LSTM)",
        ),
    ],
)
def test_sequential_refuses(layers, error, message):
    with pytest.raises(error) as caught:
        Sequential(*layers)
    assert str(caught.value) == message


def test_sequential_lengths_errors():
    x, lengths = np.zeros((T, N, D), np.float32), np.full(N, 2)
    with pytest.raises(ValueError, match="^lengths: expected None, as no layer of this Sequential takes lengths$"):
        Sequential(Linear(D, H))(x, lengths=lengths)
    with pytest.raises(ValueError, match="^lengths: expected values from 0 to 6, got 8$"):
        Sequential(LSTM(D, H), LastStep())(x, lengths=lengths * 4)


def test_sequential_second_backward():
    model = Sequential(LSTM(D, H), LastStep(), Linear(H, M))
    x, dy = np.zeros((T, N, D), np.float32), np.zeros((N, M), np.float32)
    model(x, training=True)
    model.backward(dy)
    with pytest.raises(RuntimeError, match="^Linear.backward: expected a call with training=True before each backward"):
        model.backward(dy)


class Scale(Module):
    """A user's layer: y = k x with a learned k."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.add_param("k", np.array([start]))

    def arguments(self) -> dict[str, Any]:
        return {"start": 1.0}

    def __call__(self, x, *, training=False):
        self._cache = x if training else self._cache
        return x * self.params["k"]

    def backward(self, dy):
        self.grads["k"] += (dy * self._kept()).sum()
        return dy * self.params["k"]


def test_a_layer_of_ones_own():
    model = Sequential(GRU(D, H, dtype=np.float64, rng=0), Scale(3.0), LastStep())
    assert list(model.params)[-1] == "1.k"
    check_differences(model, normal(T, N, D), normal(N, H))
    config = json.loads(json.dumps(model.config()))
    assert isinstance(build(config)[1], Scale)


def test_an_unfinished_layer_says_what_is_missing():
    class Empty(Module):
        pass

    calls = {"forward": lambda e: e(1), "backpropagate": lambda e: e.backward(1), "arguments": lambda e: e.config()}
    for what, call in calls.items():
        with pytest.raises(NotImplementedError, match=f"^Empty defines no {what}$"):
            call(Empty())


def test_relu_backward_is_zero_at_and_below_zero_whatever_arrives():
    """As in the kernels and in PyTorch: a gradient that is not finite does not turn the zeros into NaN."""
    layer = Activation("relu")
    layer(np.array([-1.0, 0.0, 2.0], np.float32), training=True)
    np.testing.assert_array_equal(layer.backward(np.array([np.inf, np.nan, np.inf], np.float32)), [0, 0, np.inf])
