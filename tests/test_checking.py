"""check_gradients: passes every layer that is right, in float32 too, finds each planted error, leaves no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_custom import D, ElmanCell, H, LSTMCell, N, T, normal

import fastrnn
from fastrnn.layers import Linear, Module


class Wrong(Linear):
    """Right forward; the backward has the error that a test plants."""

    plant: Any = staticmethod(lambda layer, dx: dx)

    def backward(self, dy):
        return self.plant(self, super().backward(dy))


def planted(plant) -> Wrong:
    layer = Wrong(D, 4, dtype="float64", rng=0)
    layer.plant = plant
    return layer


def off_by_one_entry(layer, dx):
    layer.grads["weight"][2, 1] += 1e-3
    return dx


def nan(layer, dx):
    layer.grads["bias"][0] = np.nan
    return dx


def late(layer, dx):
    layer.grads["bias"] *= 2
    return dx


PLANTS = {
    "sign of dx": (lambda layer, dx: -dx, "x"),
    "one entry": (off_by_one_entry, "weight"),
    "twice": (late, "bias"),
    "nan": (nan, "bias"),
}


@pytest.mark.parametrize("plant, name", PLANTS.values(), ids=PLANTS)
def test_finds_each_planted_error_and_nothing_else(plant, name):
    report = fastrnn.check_gradients(planted(plant), normal(T, N, D), raise_exception=False)
    assert not report and not report.ok
    assert [key for key, check in report.checks.items() if not check.ok] == [name]
    assert f"gradients of {name} differ" in str(report)
    with pytest.raises(fastrnn.GradientError, match=f"gradients of {name} differ") as caught:
        fastrnn.check_gradients(planted(plant), normal(T, N, D))
    assert not caught.value.report.ok


def test_the_direction_finds_what_single_entries_miss():
    layer, x = planted(off_by_one_entry), normal(T, N, D)
    report = fastrnn.check_gradients(layer, x, max_entries=1, rng=1, raise_exception=False)
    check = report.checks["weight"]
    assert check.checked == 1 and check.index != (2, 1) and not check.ok and check.along > 1e-5


LAYERS = {
    "linear": (lambda: fastrnn.Linear(D, 4), (T, N, D)),
    "rnn": (lambda: fastrnn.RNN(D, H, 2, bidirectional=True), (T, N, D)),
    "gru": (lambda: fastrnn.GRU(D, H, 2, dropout=0.3, batch_first=True, dtype="float64"), (N, T, D)),
    "lstm": (lambda: fastrnn.LSTM(D, H), (T, D)),
    "softmax": (lambda: fastrnn.Activation("softmax"), (N, D)),
    "dropout": (lambda: fastrnn.Dropout(0.4), (N, D)),
    "last step": (lambda: fastrnn.LastStep(), (T, N, D)),
    "repeat": (lambda: fastrnn.Repeat(3), (N, D)),
    "custom": (lambda: fastrnn.Recurrent(ElmanCell(dtype="float32")), (T, N, D)),
    "sequential": (lambda: fastrnn.Sequential(fastrnn.LSTM(D, H), fastrnn.LastStep(), fastrnn.Linear(H, 2)), (T, N, D)),
}


@pytest.mark.parametrize("make, shape", LAYERS.values(), ids=LAYERS)
def test_passes_what_is_right_and_leaves_it_as_it_was(make, shape):
    layer = make()
    before = layer.state_dict()
    draws = [generator.bit_generator.state for _, generator in layer.generators()]
    report = fastrnn.check_gradients(layer, normal(*shape, dtype=np.float32), max_entries=20)
    assert report and list(report.checks) == ["x", *layer.params]
    assert max(report.errors.values()) < 1e-6
    assert not any(grad.any() for grad in layer.grads.values())
    for name, param in layer.params.items():
        np.testing.assert_array_equal(param, before[name])
    assert draws == [generator.bit_generator.state for _, generator in layer.generators()]


def test_states_lengths_and_tokens():
    report = fastrnn.check_gradients(
        fastrnn.Recurrent(LSTMCell("float64")),
        normal(T, N, D),
        (normal(1, N, H), normal(1, N, H)),
        lengths=np.array([1, 6, 0, 3]),
    )
    assert {"x", "state0", "state1"} < set(report.checks)
    model = fastrnn.Sequential(fastrnn.Embedding(7, D), fastrnn.GRU(D, H))
    report = fastrnn.check_gradients(model, np.arange(6).reshape(3, 2))
    assert list(report.checks) == list(model.params)


@pytest.mark.parametrize("kind", [fastrnn.TreeRNN, fastrnn.TreeLSTM])
def test_trees(kind):
    trees = fastrnn.Trees([[-1, 0, 0, 1, 1], [-1, 0, 1]])
    x = normal(8, D)
    report = fastrnn.check_gradients(kind(D, H, rng=0), x, trees=trees, max_entries=20)
    assert report and "x" in report.checks and max(report.errors.values()) < 1e-6


def test_refuses_float32_where_it_cannot_make_float64():
    class Silent(Module):
        def __init__(self):
            super().__init__()
            self.add_param("w", np.ones(2, np.float32))

    with pytest.raises(TypeError, match="layer: expected a float64 layer.*Silent defines no arguments"):
        fastrnn.check_gradients(Silent(), normal(3, 2))
    with pytest.raises(TypeError, match="layer: expected a float64 layer.*LSTMCell defines no arguments"):
        fastrnn.check_gradients(fastrnn.Recurrent(LSTMCell("float32")), normal(T, N, D))

    class Fixed(Silent):
        def arguments(self):
            return {}

    with pytest.raises(TypeError, match="have no dtype"):
        fastrnn.check_gradients(Fixed(), normal(3, 2))


def test_float32_targets_are_converted_as_x_is():
    layer = fastrnn.Jordan(D, H, 2, rng=0)
    assert fastrnn.check_gradients(layer, normal(T, N, D), targets=normal(T, N, 2).astype(np.float32))


def test_wrong_arguments():
    layer = fastrnn.Linear(D, 4, dtype="float64")
    with pytest.raises(TypeError, match="layer: expected a layer, got function"):
        fastrnn.check_gradients(lambda x: x, normal(N, D))
    with pytest.raises(ValueError, match="eps: expected a number above 0"):
        fastrnn.check_gradients(layer, normal(N, D), eps=0)
    with pytest.raises(ValueError, match="max_entries"):
        fastrnn.check_gradients(layer, normal(N, D), max_entries=0)
    with pytest.raises(ValueError, match="gradient of x: expected shape"):
        fastrnn.check_gradients(planted(lambda layer, dx: None), normal(N, D))
