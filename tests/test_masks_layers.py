"""Masked steps in layers beside the kernels' own: pooling, Jordan, Recurrent, and what stands in front of them.

Letters: T time steps, N batch, D input features, H hidden_size, M outputs.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_custom import ElmanCell, LSTMCell
from test_reference import assert_gradients_match_differences

import fastrnn
from fastrnn import GRU, LSTM, Embedding, Jordan, LastStep, Linear, MaxPool, MeanPool, Module, Sequential
from fastrnn.layers.protocol import NOTHING, Time

T, N, D, H, M = 7, 5, 3, 5, 2

every_layout = pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
every_pool = pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def made_mask(seed: int = 1) -> np.ndarray:
    """(T, N), with a row of masked steps only, and one without."""
    mask = np.random.default_rng(seed).random((T, N)) < 0.5
    mask[:, 1], mask[:, 2] = False, True
    return mask


def turned(a: np.ndarray, batch_first: bool) -> np.ndarray:
    return a.swapaxes(0, 1).copy() if batch_first else a


# --- Pooling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [3, 2, 6, 0, 7]])
@every_layout
@every_pool
def test_pools_look_at_real_steps_only(pool, batch_first, lengths):
    mask, x, dy = made_mask(), normal(T, N, H), normal(N, H)
    real = mask if lengths is None else mask & (np.arange(T)[:, None] < np.array(lengths))
    x[~real] = np.nan
    layer, alone = pool(batch_first=batch_first), pool()
    lengths = None if lengths is None else np.array(lengths)
    y = layer(turned(x, batch_first), lengths=lengths, mask=turned(mask, batch_first), training=True)
    dx = turned(layer.backward(dy), batch_first)
    for n in range(N):
        rows = np.flatnonzero(real[:, n])
        expected = np.zeros((T, H))
        if rows.size:
            np.testing.assert_array_equal(y[n], alone(x[rows, n], training=True))
            expected[rows] = alone.backward(dy[n])
        else:
            assert not y[n].any()
        np.testing.assert_array_equal(dx[:, n], expected)


@every_pool
def test_gradients_of_pools(pool):
    layer, mask, x, dy = pool(), made_mask(), normal(T, N, H, seed=2), normal(N, H)
    layer(x, mask=mask, training=True)
    assert_gradients_match_differences(
        lambda inputs: (layer(inputs["x"], mask=mask) * dy).sum(), {"x": x}, {"x": layer.backward(dy)}
    )


@every_pool
def test_pools_without_a_batch_axis(pool):
    layer, x, mask = pool(), normal(T, H), made_mask()[:, 0]
    y = layer(x, mask=mask, training=True)
    np.testing.assert_array_equal(y, pool()(x[mask]))
    assert layer.backward(np.ones(H)).shape == (T, H)
    np.testing.assert_array_equal(layer(x, mask=np.ones(T, bool)), layer(x))


def test_wrong_masks_of_pools():
    for mask, error in (
        (np.ones((N, T), bool), f"mask: expected shape ({T}, {N}) = (T, N), got ({N}, {T})"),
        (np.ones((T, N), int), "mask: expected a NumPy array of bool, got int64"),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(error)):
            MeanPool()(normal(T, N, H), mask=mask)


def test_a_pool_of_ones_own_that_takes_no_mask_is_refused():
    class Median(Module):
        time = Time.REDUCES
        batch_first = False

        def forward(self, x, state=None, *, context=NOTHING, training=False):
            return np.median(x, axis=0), None

    model = Sequential(GRU(D, H, rng=0), Median())
    model(normal(T, N, D, dtype=np.float32))
    with pytest.raises(ValueError, match="mask: expected None, as Median takes no mask"):
        model(normal(T, N, D, dtype=np.float32), mask=made_mask())


# --- Recurrent --------------------------------------------------------------------------------------------------------


@every_layout
@every_dtype
def test_recurrent_agrees_with_the_built_in_lstm(dtype, batch_first):
    ours, theirs = (
        fastrnn.Recurrent(LSTMCell(dtype), batch_first=batch_first),
        LSTM(D, H, batch_first=batch_first, dtype=dtype),
    )
    theirs.load_state_dict(ours.params)
    rng = np.random.default_rng(0)
    for trial in range(12):
        lengths = rng.integers(0, T + 1, N) if trial % 3 else None
        reset_mask = rng.random((T, N)) < 0.3 if trial % 2 else None
        mask = rng.random((T, N)) < (0.2, 0.8)[trial % 4 > 1]
        x, dy, dstate = (
            normal(T, N, D, dtype=dtype),
            normal(T, N, H, dtype=dtype),
            [normal(1, N, H, dtype=dtype, seed=k) for k in (1, 2)],
        )
        past = np.zeros((T, N), bool) if lengths is None else np.arange(T)[:, None] >= lengths
        x[~mask | past] = np.nan
        dy[past] = np.nan
        started = np.zeros(N, bool)
        for t in range(T):  # Recurrent has zeros before the first real step, not the state
            started = (started if reset_mask is None else started & ~reset_mask[t]) | mask[t]
            dy[t, ~started & ~past[t]] = 0
        results = []
        for layer in (ours, theirs):
            layer.zero_grad()
            options = {
                "lengths": lengths,
                "reset_mask": reset_mask,
                "mask": turned(mask, batch_first),
                "training": True,
            }
            y, (h_n, c_n) = layer(turned(x, batch_first), **options)
            dx, (dh, dc) = layer.backward(turned(dy, batch_first), tuple(dstate))
            results.append({"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh": dh, "dc": dc} | layer.grads)
        for name, value in results[1].items():
            check = assert_output_close if name in ("y", "h_n", "c_n") else assert_gradient_close
            check(results[0][name], value, dtype, *((name,) if check is assert_gradient_close else ()))


@pytest.mark.parametrize("resets", [False, True])
def test_gradients_of_recurrent(resets):
    """Outputs that are no states are carried too."""

    class Doubled(ElmanCell):
        def step(self, x_t, state):
            y, state, cache = super().step(x_t, state)
            return 2 * y, state, cache

        def step_backward(self, dy_t, dstate, cache):
            return super().step_backward(2 * dy_t, dstate, cache)

    reset_mask = np.random.default_rng(0).random((T, N)) < 0.3 if resets else None
    lengths = np.array([7, 3, 0, 6, 1])
    report = fastrnn.check_gradients(
        fastrnn.Recurrent(Doubled()),
        normal(T, N, D),
        normal(1, N, H),
        lengths=lengths,
        reset_mask=reset_mask,
        mask=made_mask(),
    )
    assert max(report.errors.values()) < 1e-6


def test_a_reset_past_the_length_leaves_the_state():
    """It used to zero the final state of a row that had ended while others went on."""
    layer, x = fastrnn.Recurrent(ElmanCell()), normal(T, N, D)
    lengths, reset_mask = np.array([2, 5, 7, 1, 3]), np.zeros((T, N), bool)
    expected = layer(x, lengths=lengths)[1]
    reset_mask[4, 0] = reset_mask[6, 1] = True
    np.testing.assert_array_equal(layer(x, lengths=lengths, reset_mask=reset_mask)[1], expected)
    layer(x, lengths=lengths, reset_mask=reset_mask, training=True)
    dx, _ = layer.backward(None, np.ones((1, N, H)))
    assert dx[1, 0].any() and dx[4, 1].any()


# --- Jordan -----------------------------------------------------------------------------------------------------------


def by_hand(layer: Jordan, x, y0, targets, forced, lengths, reset_mask, mask):
    """One step after the other: output, and what the step after the last would be fed of own outputs and of targets."""
    p, own, fed = layer.params, y0.copy(), y0.copy()
    known = np.zeros(N, bool)  # rows with a target to be fed
    y = np.zeros((T, N, M))
    shown = y0.copy()
    for t in range(T):
        within = t < lengths
        reset = reset_mask[t] & within
        own[reset] = fed[reset] = shown[reset] = 0
        known[reset] = False
        real = mask[t] & within
        read = np.where((forced[t] & known)[:, None], fed, own)
        h = np.tanh(x[t] @ p["weight_ih"].T + read @ p["weight_yh"].T + p["bias_h"])
        out = h @ p["weight_hy"].T + p["bias_y"]
        shown[real] = own[real] = out[real]
        fed[real] = targets[t][real]
        known |= real
        y[t, within] = shown[within]
    return y, own, fed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("teacher_forcing", [0.0, 0.5, 1.0])
def test_jordan_step_by_step(teacher_forcing, seed):
    layer = Jordan(D, H, M, teacher_forcing=teacher_forcing, dtype=np.float64, rng=0)
    rng = np.random.default_rng(seed)
    mask, reset_mask = made_mask(seed), rng.random((T, N)) < 0.25
    lengths = rng.integers(0, T + 1, N) if seed % 2 else np.full(N, T)
    x, targets, y0 = normal(T, N, D), normal(T, N, M), normal(1, N, M)
    layer._rng = np.random.default_rng(5)
    forced = np.random.default_rng(5).random((T, N)) < teacher_forcing
    y, own, fed = by_hand(layer, x, y0[0], targets, forced, lengths, reset_mask, mask)
    hidden = x.copy()
    hidden[~mask] = np.nan
    given = {"targets": targets, "lengths": lengths, "reset_mask": reset_mask, "mask": mask}
    output, y_n = layer(hidden, y0, **given, training=True)
    expected = fed if teacher_forcing == 1 else own
    np.testing.assert_allclose(y_n[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(output, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"targets": True}, {"targets": True, "teacher_forcing": 0.5}], ids=["free", "forced", "sampled"]
)
def test_gradients_of_jordan(options, resets):
    layer = Jordan(D, H, M, dtype=np.float64, rng=0)
    mask, lengths = made_mask(), np.array([7, 3, 5, 6, 1])
    reset_mask = np.random.default_rng(0).random((T, N)) < 0.25 if resets else None
    given: dict[str, Any] = {"mask": mask, "lengths": lengths, "reset_mask": reset_mask}
    given |= {"targets": normal(T, N, M)} if options else {}
    given |= {"teacher_forcing": 0.5} if len(options) == 2 else {}
    x, y0, dy, dy_n = normal(T, N, D), normal(1, N, M), normal(T, N, M), normal(1, N, M)

    def run(inputs, training=False):
        layer._rng = np.random.default_rng(3)
        layer.load_state_dict({name: inputs[name] for name in layer.params})
        return layer(inputs["x"], inputs["y0"], **given, training=training)

    def loss(inputs):
        y, y_n = run(inputs)
        return (y * dy).sum() + (y_n * dy_n).sum()

    inputs = {"x": x, "y0": y0} | {name: value.copy() for name, value in layer.params.items()}
    run(inputs, training=True)
    dx, dy0 = layer.backward(dy, dy_n)
    assert_gradients_match_differences(
        loss, inputs, {"x": dx, "y0": dy0} | {k: v.copy() for k, v in layer.grads.items()}
    )
    assert not dx[~mask].any()


@every_layout
def test_jordan_in_either_layout_and_without_a_batch_axis(batch_first):
    layer, mask, x = Jordan(D, H, M, batch_first=batch_first, rng=0), made_mask(), normal(T, N, D, dtype=np.float32)
    y, _ = layer(turned(x, batch_first), mask=turned(mask, batch_first))
    one, _ = layer(x[:, 0], mask=mask[:, 0])
    np.testing.assert_allclose(turned(y, batch_first)[:, 0], one, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="mask: expected shape"):
        layer(turned(x, batch_first), mask=turned(mask, not batch_first))


# --- Layers in front, and behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_what_stands_at_masked_steps_does_not_reach_layers_in_front(batched):
    mask, x = made_mask(), normal(T, N, 2, dtype=np.float32)
    model = Sequential(Linear(2, D, rng=0), GRU(D, H, rng=1), Linear(H, 1, rng=2))
    if not batched:
        mask, x = mask[:, 0], x[:, 0]
    results = []
    for filler in (0.0, np.nan):
        x[~mask] = filler
        model.zero_grad()
        y = model(x, mask=mask, training=True)
        model.backward(np.ones_like(y))
        results.append([y, *(g.copy() for g in model.grads.values())])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_tokens_at_masked_steps_may_be_anything():
    mask, tokens = made_mask(), np.random.default_rng(0).integers(0, 9, (T, N))
    model = Sequential(Embedding(9, D, rng=0), GRU(D, H, rng=1), MeanPool())
    expected = model(tokens, mask=mask)
    np.testing.assert_array_equal(model(np.where(mask, tokens, -1), mask=mask), expected)
