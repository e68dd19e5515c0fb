"""Backward without the gradient of x, where nobody reads it: the same parameters' gradients, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import every_cell, make_case

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    LastStep,
    Linear,
    Module,
    Sequential,
    Trainer,
    functional,
    reference,
)

T, N, D, H = 5, 3, 4, 6


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


@every_cell
@pytest.mark.parametrize("module", [functional, reference])
def test_functional(cell, options, module):
    case = make_case(cell, options, (T, N, D, H), "float32")
    expected = case.backward(module, case.forward(module)[-1])
    grads = case.backward(module, case.forward(module)[-1], into={"x": None})
    assert list(grads) == list(expected) and grads.pop("x") is None
    assert expected.pop("x") is not None
    np.testing.assert_equal(grads, expected)


@pytest.mark.parametrize("module", [functional, reference])
def test_linear(module):
    x, weight, bias, dy = normal(T, N, D), normal(H, D), normal(H), normal(T, N, H)
    expected = module.linear_backward(dy, module.linear_forward(x, weight, bias)[1])
    grads = module.linear_backward(dy, module.linear_forward(x, weight, bias)[1], into={"x": None})
    assert grads.pop("x") is None and expected.pop("x").shape == x.shape
    np.testing.assert_equal(grads, expected)


@pytest.mark.parametrize("cls", [RNN, GRU, LSTM])
@pytest.mark.parametrize("num_layers, bidirectional", [(1, False), (1, True), (2, False), (2, True)])
def test_recurrent_layers(cls, num_layers, bidirectional):
    layers = [cls(D, H, num_layers, bidirectional=bidirectional, rng=0) for _ in range(2)]
    x, doutput = normal(T, N, D), normal(T, N, (1 + bidirectional) * H)
    results = []
    for layer, need_dx in zip(layers, (True, False)):
        layer(x, training=True)
        results.append(layer.backward(doutput, need_dx=need_dx))
    (dx, dstate), (none, same) = results
    assert dx.shape == x.shape and none is None
    np.testing.assert_equal(same, dstate)
    np.testing.assert_equal(layers[1].grads, layers[0].grads)
    with pytest.raises(RuntimeError, match="before each backward"):
        layers[1].backward(doutput, need_dx=False)


class Spy(Module):
    """Passes all on, and notes the gradients that arrive."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, x, *, training=False):
        return x

    def backward(self, dy):
        self.seen.append(dy)
        return dy


def stacks():
    return {
        "recurrent first": lambda: [LSTM(D, H, rng=0), Linear(H, 2, rng=1)],
        "linear first": lambda: [Linear(D, 3, rng=0), GRU(3, H, rng=1), LastStep()],
        "dropout first": lambda: [Dropout(0.5, rng=0), RNN(D, H, rng=1), Dropout(0.5, rng=2), Linear(H, 2, rng=3)],
        "nested": lambda: [Sequential(Dropout(0.5, rng=0), GRU(D, H, rng=1)), Linear(H, 2, rng=3)],
        "nothing to learn in front": lambda: [Sequential(Dropout(0.5, rng=0)), Dropout(0.5, rng=1), GRU(D, H, rng=1)],
        "one of the user's in front": lambda: [Spy(), LSTM(D, H, rng=0)],
        "one of the user's behind dropout": lambda: [Dropout(0.5, rng=0), Spy(), LSTM(D, H, rng=0)],
    }


@pytest.mark.parametrize("name", stacks())
def test_sequential(name):
    models = [Sequential(*stacks()[name]()) for _ in range(2)]
    x = normal(T, N, D)
    gradients = []
    for model, need_dx in zip(models, (True, False)):
        y = model(x, training=True)
        gradients.append(model.backward(normal(*y.shape, seed=1), need_dx=need_dx))
    np.testing.assert_equal(models[1].grads, models[0].grads)
    assert gradients[0].shape == x.shape
    for spies in zip(*([layer for layer in model if isinstance(layer, Spy)] for model in models)):
        np.testing.assert_array_equal(spies[1].seen, spies[0].seen)
    for layer in models[1]:
        if not isinstance(layer, Spy):
            with pytest.raises(RuntimeError, match="before each backward"):  # the skipped ones are used up too
                layer.backward(gradients[0])


@pytest.mark.parametrize("options", [{}, {"tbptt": 2}, {"checkpoint_every": 2}], ids=repr)
def test_trainer_asks_for_no_dx(options, monkeypatch):
    asked, backward = [], GRU.backpropagate
    monkeypatch.setattr(
        GRU,
        "backpropagate",
        lambda self, *args, **kw: asked.append(kw.get("need_dx", True)) or backward(self, *args, **kw),
    )
    x, y = normal(N, T, D), np.zeros((N, T), int)
    model = Sequential(GRU(D, H, rng=0), GRU(H, H, rng=0), Linear(H, 2, rng=1))
    Trainer(model, **options).fit(x, y, progress=False)
    assert asked and asked == [True, False] * (len(asked) // 2)


def test_embedding_in_front_still_learns():
    model = Sequential(Embedding(5, D, rng=0), GRU(D, H, rng=1), Linear(H, 2, rng=2))
    before = model.params["0.weight"].copy()
    Trainer(model).fit(np.arange(10).reshape(2, 5) % 5, np.zeros((2, 5), int), progress=False)
    assert (model.params["0.weight"] != before).all()
