"""Recurrent(cell): cells written here against the built-in layers and finite differences; layouts, lengths, errors.

Letters: T time steps, N batch, D input size, H hidden size.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype

import fastrnn
from fastrnn.layers import build

T, N, D, H = 6, 4, 3, 5


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


class ElmanCell(fastrnn.Cell):
    """tanh RNN, one array of state."""

    def __init__(self, input_size: int = D, hidden_size: int = H, dtype: str = "float64", rng: int = 0) -> None:
        self.input_size, self.state_size, self.dtype = input_size, hidden_size, dtype
        rng = np.random.default_rng(rng)
        shapes = {"W": (hidden_size, input_size), "U": (hidden_size, hidden_size), "b": (hidden_size,)}
        self.params = {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}

    def arguments(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "hidden_size": self.state_size, "dtype": self.dtype}

    def step(self, x_t, h):
        h_next = np.tanh(x_t @ self.params["W"].T + h @ self.params["U"].T + self.params["b"])
        return h_next, h_next, (x_t, h, h_next)

    def step_backward(self, dy_t, dh, cache):
        x_t, h, h_next = cache
        da = (dy_t + dh) * (1 - h_next * h_next)
        return da @ self.params["W"], da @ self.params["U"], {"W": da.T @ x_t, "U": da.T @ h, "b": da.sum(0)}


class LSTMCell:
    """An LSTM with two arrays of state, in a class that derives from nothing."""

    def __init__(self, dtype: str) -> None:
        layer = fastrnn.LSTM(D, H, dtype=dtype, rng=1)
        self.params = layer.params
        self.state_size = (H, H)

    def step(self, x_t, state):
        h, c = state
        p = self.params
        a = x_t @ p["weight_ih_l0"].T + h @ p["weight_hh_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c_next = f * c + i * g
        return o * np.tanh(c_next), (o * np.tanh(c_next), c_next), (x_t, h, c, i, f, g, o, np.tanh(c_next))

    def step_backward(self, dy_t, dstate, cache):
        x_t, h, c, i, f, g, o, tanh_c = cache
        dh = dy_t + dstate[0]
        dc = dstate[1] + dh * o * (1 - tanh_c**2)
        da = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)]
        da = np.concatenate(da, axis=1)
        p, db = self.params, da.sum(0)
        dparams = {"weight_ih_l0": da.T @ x_t, "weight_hh_l0": da.T @ h, "bias_ih_l0": db, "bias_hh_l0": db}
        return da @ p["weight_ih_l0"], (da @ p["weight_hh_l0"], dc * f), dparams


class PowerCell(fastrnn.Cell):
    """s_t = A s_{t-1} with a matrix (K, K) per row and y_t its first row: no input, a state of two axes."""

    state_size = ((2, 2),)

    def __init__(self) -> None:
        self.params = {"A": np.array([[0.9, 0.2], [-0.3, 0.8]])}

    def step(self, x_t, state):
        (s,) = state
        s_next = self.params["A"] @ s
        return s_next[:, 0].copy(), (s_next,), s

    def step_backward(self, dy_t, dstate, s):
        (ds,) = (d.copy() for d in dstate)
        ds[:, 0] += dy_t
        return None, (self.params["A"].T @ ds,), {"A": np.einsum("nij,nkj->ik", ds, s)}


def normal(*shape: int, dtype: Any = np.float64, seed: int = 3) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


# --- Against the built-in layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@every_dtype
def test_agrees_with_the_built_in_lstm(dtype, batched, batch_first):
    ours = fastrnn.Recurrent(LSTMCell(dtype), batch_first=batch_first)
    theirs = fastrnn.LSTM(D, H, batch_first=batch_first, dtype=dtype)
    theirs.load_state_dict(ours.params)
    rows = (N,) if batched else ()
    lead = ((N, T) if batch_first else (T, N)) if batched else (T,)
    x, doutput = normal(*lead, D, dtype=dtype), normal(*lead, H, dtype=dtype)
    state, dstate = ((normal(1, *rows, H, dtype=dtype), normal(1, *rows, H, dtype=dtype, seed=k)) for k in (4, 5))
    (output, state_n), (expected, expected_n) = (layer(x, state, training=True) for layer in (ours, theirs))
    assert_output_close(output, expected, dtype)
    for a, b in zip(state_n, expected_n):
        assert_output_close(a, b, dtype)
    (dx, dstate0), (dx_expected, dstate0_expected) = (layer.backward(doutput, dstate) for layer in (ours, theirs))
    assert_gradient_close(dx, dx_expected, dtype)
    for a, b in zip(dstate0, dstate0_expected):
        assert_gradient_close(a, b, dtype)
    assert ours.grads.keys() == theirs.grads.keys()
    for name, grad in theirs.grads.items():
        assert_gradient_close(ours.grads[name], grad, dtype, name)


# --- Finite differences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [3, 0, 6, 1]])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("make", [ElmanCell, lambda: LSTMCell("float64")], ids=["elman", "lstm"])
def test_gradients(make, resets, lengths):
    layer = fastrnn.Recurrent(make())
    lengths = None if lengths is None else np.array(lengths)
    reset_mask = np.random.default_rng(0).random((T, N)) < 0.3 if resets else None
    state = normal(1, N, H) if make is ElmanCell else (normal(1, N, H), normal(1, N, H, seed=4))
    report = fastrnn.check_gradients(layer, normal(T, N, D), state, lengths=lengths, reset_mask=reset_mask)
    assert set(report.checks) > {"x", "state0"} and max(report.errors.values()) < 1e-6


# --- Lengths and resets -----------------------------------------------------------------------------------------------


def test_lengths_are_each_sequence_by_itself():
    layer = fastrnn.Recurrent(ElmanCell())
    x, state, doutput, dstate = normal(T, N, D), normal(1, N, H), normal(T, N, H), normal(1, N, H, seed=9)
    lengths = np.array([4, 0, 6, 2])
    x[lengths[0] :, 0] = np.nan  # what lies past the end is not read
    output, h_n = layer(x, state, lengths=lengths, training=True)
    dx, dstate0 = layer.backward(doutput, dstate)
    together = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    for n, length in enumerate(lengths):
        assert not output[length:, n].any() and not dx[length:, n].any()
        if not length:
            np.testing.assert_array_equal(h_n[:, n], state[:, n])
            np.testing.assert_array_equal(dstate0[:, n], dstate[:, n])
            continue
        y, h = layer(x[:length, n], state[:, n], training=True)
        d, dh = layer.backward(doutput[:length, n], dstate[:, n])
        for a, b in [(output[:length, n], y), (h_n[:, n], h), (dx[:length, n], d), (dstate0[:, n], dh)]:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(together[name], grad, rtol=1e-12, atol=1e-12)


def test_a_reset_starts_again():
    layer = fastrnn.Recurrent(ElmanCell())
    x, state = normal(T, N, D), normal(1, N, H)
    reset_mask = np.zeros((T, N), bool)
    reset_mask[2] = True
    output, h_n = layer(x, state, reset_mask=reset_mask, training=True)
    dx, dstate0 = layer.backward(None, np.ones_like(h_n))
    again, again_n = layer(x[2:])
    np.testing.assert_array_equal(output[2:], again)
    np.testing.assert_array_equal(h_n, again_n)
    assert not dx[:2].any() and not dstate0.any() and dx[2:].any()


@pytest.mark.parametrize("steps", [0, T])
def test_no_step_at_all_still_has_a_shape(steps):
    layer = fastrnn.Recurrent(ElmanCell())
    output, h_n = layer(normal(steps, N, D), lengths=np.zeros(N, int), training=True)
    assert output.shape == (steps, N, H) and not output.any() and not h_n.any()
    dx, dstate0 = layer.backward(output, np.ones_like(h_n))
    assert dx.shape == (steps, N, D) and (dstate0 == 1).all()


# --- Autonomous -------------------------------------------------------------------------------------------------------


def test_autonomous_recurrence_is_powers_of_its_matrix():
    layer = fastrnn.Recurrent(PowerCell())
    s0 = normal(1, N, 2, 2)
    output, (s_n,) = layer(None, (s0,), steps=4, training=True)
    A = layer.params["A"]
    np.testing.assert_allclose(s_n[0], np.linalg.matrix_power(A, 4) @ s0[0], rtol=1e-12)
    np.testing.assert_allclose(output[1], (A @ A @ s0[0])[:, 0], rtol=1e-12)
    dx, _ = layer.backward(np.ones_like(output))
    assert dx is None
    alone, (alone_n,) = layer(None, (s0[:, 1],), steps=4)
    np.testing.assert_allclose(alone, output[:, 1], rtol=1e-14)
    np.testing.assert_allclose(alone_n, s_n[:, 1], rtol=1e-14)


def test_autonomous_gradients():
    assert fastrnn.check_gradients(fastrnn.Recurrent(PowerCell()), None, (normal(1, N, 2, 2),), steps=5)


# --- As a layer among others ------------------------------------------------------------------------------------------


def test_trains_saves_and_loads(tmp_path):
    """The sign of the first input, five steps later: above 0.95 is learnt, 0.5 is chance."""
    x = normal(400, 5, D, dtype=np.float32)
    y = (x[:, 0, 0] > 0).astype(int)
    model = fastrnn.Sequential(
        fastrnn.Recurrent(ElmanCell(D, 12, "float32"), batch_first=True),
        fastrnn.LastStep(batch_first=True),
        fastrnn.Linear(12, 2, rng=0),
    )
    trainer = fastrnn.Trainer(model, optimizer=fastrnn.Adam(lr=1e-2), clip_norm=1.0)
    trainer.fit(x, y, epochs=25, batch_size=50, progress=False)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95
    trainer.save(tmp_path / "own.safetensors")
    np.testing.assert_array_equal(fastrnn.Trainer.load(tmp_path / "own.safetensors").predict(x), trainer.predict(x))


def test_state_is_carried_by_run():
    model = fastrnn.Sequential(fastrnn.Recurrent(ElmanCell()), fastrnn.Linear(H, 2, dtype="float64"))
    x = normal(T, N, D)
    first, state = model.run(x[:2])
    second, _ = model.run(x[2:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), model(x), rtol=1e-13)


def test_the_layer_computes_with_the_cells_arrays():
    layer = fastrnn.Recurrent(ElmanCell())
    assert layer.params["W"] is layer.cell.params["W"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.params["W"] is twin.cell.params["W"] and twin.params["W"] is not layer.params["W"]
    rebuilt = build(layer.config())
    rebuilt.load_state_dict(layer.state_dict())
    x = normal(T, N, D)
    np.testing.assert_array_equal(rebuilt(x)[0], layer(x)[0])


def test_a_cell_without_parameters_runs_in_the_dtype_given():
    class Sum(fastrnn.Cell):
        state_size = D

        def step(self, x_t, state):
            return x_t + state, x_t + state, None

        def step_backward(self, dy_t, dstate, cache):
            return dy_t + dstate, dy_t + dstate, None

    x = normal(T, N, D, dtype=np.float32)
    np.testing.assert_allclose(fastrnn.Recurrent(Sum())(x)[0], np.cumsum(x, axis=0), rtol=1e-5, atol=1e-5)
    assert fastrnn.check_gradients(fastrnn.Recurrent(Sum(), dtype="float64"), x.astype(float))


# --- Errors -----------------------------------------------------------------------------------------------------------


def returning(**methods: Any) -> fastrnn.Recurrent:
    cell = ElmanCell()
    for name, value in methods.items():
        setattr(cell, name, lambda *_, value=value: value)
    return fastrnn.Recurrent(cell)


CALLS = {
    "no array": (TypeError, "x: expected a NumPy array", lambda layer: layer([1.0])),
    "dtype": (TypeError, "x: expected float64", lambda layer: layer(normal(T, N, D, dtype=np.float32))),
    "axes": (ValueError, "x: expected shape", lambda layer: layer(normal(T, N, D, 1))),
    "state": (ValueError, "state: expected shape", lambda layer: layer(normal(T, N, D), normal(N, H))),
    "no steps": (ValueError, "steps: expected a number", lambda layer: layer(None, normal(1, N, H))),
    "steps and x": (ValueError, "steps: expected a number", lambda layer: layer(normal(T, N, D), steps=3)),
    "lengths": (
        ValueError,
        "lengths: expected values from 0 to 6",
        lambda layer: layer(normal(T, N, D), lengths=np.full(N, 7)),
    ),
    "mask": (ValueError, "reset_mask: ", lambda layer: layer(normal(T, N, D), reset_mask=np.ones((N, T), bool))),
    "mask dtype": (TypeError, "reset_mask: ", lambda layer: layer(normal(T, N, D), reset_mask=np.ones((T, N)))),
    "no call": (RuntimeError, "training=True", lambda layer: layer.backward(normal(T, N, H))),
}


@pytest.mark.parametrize("error, message, call", CALLS.values(), ids=CALLS)
def test_wrong_arguments(error, message, call):
    with pytest.raises(error, match=message):
        call(fastrnn.Recurrent(ElmanCell()))


STEPS = {
    "no tuple": (normal(N, H), TypeError, r"cell.step: expected a tuple \(y_t, state, cache\)"),
    "y shape": ((normal(N), normal(N, H), None), ValueError, "cell.step: expected y_t of shape"),
    "y dtype": ((normal(N, H, dtype="f4"), normal(N, H), None), TypeError, "cell.step: expected y_t in float64"),
    "state": ((normal(N, H), normal(N, 2), None), ValueError, "cell.step: expected state of shape"),
}


@pytest.mark.parametrize("value, error, message", STEPS.values(), ids=STEPS)
def test_wrong_returns_of_step(value, error, message):
    with pytest.raises(error, match=message):
        returning(step=value)(normal(T, N, D))


BACKWARDS = {
    "no tuple": (None, TypeError, "cell.step_backward: expected a tuple"),
    "name": ((None, None, {"V": 1}), ValueError, "cell.step_backward: expected dparams of W, U, b, got 'V'"),
    "shape": ((None, None, {"W": np.ones(3)}), ValueError, r"cell.step_backward: expected dparams\['W'\] of shape"),
    "state": ((None, normal(2, 2), {}), ValueError, "cell.step_backward: expected dstate_prev of shape"),
}


@pytest.mark.parametrize("value, error, message", BACKWARDS.values(), ids=BACKWARDS)
def test_wrong_returns_of_step_backward(value, error, message):
    layer = returning(step_backward=value)
    output, _ = layer(normal(T, N, D), training=True)
    with pytest.raises(error, match=message):
        layer.backward(output)


def test_wrong_cells():
    with pytest.raises(TypeError, match="cell: expected an object with step and step_backward, got int"):
        fastrnn.Recurrent(3)
    cell = ElmanCell()
    cell.state_size = None
    with pytest.raises(TypeError, match="state_size"):
        fastrnn.Recurrent(cell)
    cell = ElmanCell()
    cell.params["W"] = np.asfortranarray(cell.params["W"])
    with pytest.raises(ValueError, match="C-contiguous"):
        fastrnn.Recurrent(cell)
    with pytest.raises(TypeError, match="dtype"):
        fastrnn.Recurrent(ElmanCell(), dtype="float32")
