"""LastStep, MeanPool and MaxPool.

Letters: T time steps, N batch, H features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_reference import assert_gradients_match_differences

from fastrnn.layers import LastStep, MaxPool, MeanPool

T, N, H = 6, 4, 5

every_lengths = pytest.mark.parametrize("lengths", [None, [T, T, T, T], [1, T, 2, 3], [3, 0, T, 0], [0, 0, 0, 0]])
every_layout = pytest.mark.parametrize("batch_first", [False, True], ids=["time-major", "batch-first"])
every_pool = pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def as_lengths(lengths: list[int] | None) -> np.ndarray | None:
    return None if lengths is None else np.array(lengths)


@pytest.mark.parametrize("lengths", [None, [1, T, 2, 3], [3, 0, T, 0]])
@every_layout
@every_pool
def test_gradients(pool, batch_first, lengths):
    layer = pool(batch_first=batch_first)
    x, dy, lengths = normal(*((N, T, H) if batch_first else (T, N, H))), normal(N, H), as_lengths(lengths)
    layer(x, lengths=lengths, training=True)
    assert_gradients_match_differences(
        lambda inputs: (layer(inputs["x"], lengths=lengths) * dy).sum(), {"x": x}, {"x": layer.backward(dy)}
    )


@every_lengths
@every_layout
@every_dtype
def test_pools_agree_with_torch(dtype, batch_first, lengths):
    """Row by row: the mean and the maximum of the steps that count."""
    torch = pytest.importorskip("torch")
    x, dy = normal(T, N, H, dtype=dtype), normal(N, H, dtype=dtype)
    inputs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    for pool, twin in ((MeanPool, torch.mean), (MaxPool, torch.amax)):
        rows = [twin(inputs[:n, row], 0) if n else 0 * inputs[0, row] for row, n in enumerate(lengths or [T] * N)]
        expected = torch.stack(rows)
        (dx_expected,) = torch.autograd.grad(expected, inputs, torch.tensor(dy, dtype=torch.float64))
        layer = pool(batch_first=batch_first)
        y = layer(x.swapaxes(0, 1).copy() if batch_first else x, lengths=as_lengths(lengths), training=True)
        dx = layer.backward(dy)
        assert_output_close(y, expected.detach().numpy(), dtype)
        assert_gradient_close(dx.swapaxes(0, 1) if batch_first else dx, dx_expected.numpy(), dtype)


def test_means_of_long_sequences_keep_their_digits():
    x = np.full((100_000, 1, 2), 0.1, np.float32)
    for lengths in (None, np.array([99_999])):
        np.testing.assert_allclose(MeanPool()(x, lengths=lengths), np.float32(0.1), rtol=1e-7)


def test_the_first_of_equal_steps_gets_the_gradient():
    layer = MaxPool()
    layer(np.array([[1.0], [3.0], [3.0]]), training=True)
    np.testing.assert_array_equal(layer.backward(np.array([2.0])), [[0], [2], [0]])
    assert np.isnan(layer(np.array([[1.0], [np.nan], [3.0]]))).all()
    np.testing.assert_array_equal(layer(np.full((2, 1, 1), -np.inf), lengths=np.array([1])), [[-np.inf]])


@every_lengths
@every_layout
@every_dtype
def test_last_step(dtype, batch_first, lengths):
    x, dy = normal(T, N, H, dtype=dtype), normal(N, H, dtype=dtype)
    expected, dx_expected = np.zeros((N, H), dtype), np.zeros((T, N, H), dtype)
    for n, length in enumerate(lengths or [T] * N):
        if length:
            expected[n] = x[length - 1, n]
            dx_expected[length - 1, n] = dy[n]
    layer = LastStep(batch_first=batch_first)
    given = x.swapaxes(0, 1).copy() if batch_first else x
    y = layer(given, lengths=None if lengths is None else np.array(lengths), training=True)
    dx = layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx.swapaxes(0, 1) if batch_first else dx, dx_expected)


@every_pool
def test_nothing_is_read_past_the_end(pool):
    x = normal(T, N, H)
    x[2:, 0] = np.nan
    x[:, 1] = np.nan
    layer = pool()
    y = layer(x, lengths=np.array([2, 0, T, T]), training=True)
    assert np.isfinite(y).all() and not y[1].any()
    dx = layer.backward(np.full((N, H), np.nan))
    assert not dx[2:, 0].any() and not dx[:, 1].any()


@every_pool
def test_one_sequence_without_a_batch_axis(pool):
    x, layer, dy = normal(T, H), pool(batch_first=True), normal(H)
    y = layer(x, training=True)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(y, layer(x[None])[0])
    assert_gradients_match_differences(lambda inputs: (layer(inputs["x"]) * dy).sum(), {"x": x}, {"x": dx})


@every_pool
def test_without_steps(pool):
    layer = pool()
    y = layer(np.zeros((0, N, H)), lengths=np.zeros(N, int), training=True)
    np.testing.assert_array_equal(y, np.zeros((N, H)))
    assert layer.backward(y).shape == (0, N, H)
    assert layer(np.zeros((T, 0, H)), lengths=np.zeros(0, int)).shape == (0, H)


@pytest.mark.parametrize(
    "x, lengths, error, message",
    [
        (np.zeros((0, N, H)), None, ValueError, "x: expected at least one time step, got (0, 4, 5)"),
        (np.zeros(H), None, ValueError, "x: expected an array of shape (T, N, H) or (T, H), got (5,)"),
        ([1.0], None, ValueError, "x: expected an array of shape (T, N, H) or (T, H), got list"),
        (np.zeros((T, N, H)), np.array([1, 2, 3]), ValueError, "lengths: expected shape (4,), got (3,)"),
        (np.zeros((T, N, H)), np.array([1, 2, 7, 3]), ValueError, "lengths: expected values from 0 to 6, got 7"),
        (np.zeros((T, N, H)), np.array([1, 2, -1, 3]), ValueError, "lengths: expected values from 0 to 6, got -1"),
        (np.zeros((T, N, H)), np.ones(N), TypeError, "lengths: expected integers, got float64"),
        (np.zeros((T, N, H)), ["1", "2", "3", "4"], TypeError, "lengths: expected integers, got <U1"),
        (
            np.zeros((T, H)),
            np.array([2]),
            ValueError,
            "lengths: expected None for x without a batch axis, got array([2])",
        ),
    ],
)
@every_pool
def test_errors(pool, x, lengths, error, message):
    with pytest.raises(error) as caught:
        pool()(x, lengths=lengths)
    assert str(caught.value) == message


@every_pool
def test_backward_shape(pool):
    layer = pool()
    layer(np.zeros((T, N, H)), training=True)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(4, 5\), got \(6, 4, 5\)$"):
        layer.backward(np.zeros((T, N, H)))


@pytest.mark.parametrize("cls", [LastStep, MeanPool, MaxPool])
def test_segments_are_merged_and_split(cls):
    """What the segments of a sequence pool to makes what the whole does, and so do their gradients."""
    rng = np.random.default_rng(0)
    x, dy = (
        rng.integers(0, 4, (10, 4, 5)).astype(np.float64),
        rng.standard_normal((4, 5)),
    )  # integers, so some are equal
    lengths, pool = np.array([0, 3, 7, 10]), cls()
    whole = pool(x, lengths=lengths, training=True)
    dx = pool.backward(dy)
    cuts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    counts = [np.clip(lengths - cut.start, 0, cut.stop - cut.start) for cut in cuts]
    parts = [pool(x[cut], lengths=count) for cut, count in zip(cuts, counts)]
    merged, shares = pool.merge(parts, counts)
    np.testing.assert_allclose(merged, whole, rtol=1e-14)
    for cut, count, share in zip(cuts, counts, shares):
        pool(x[cut], lengths=count, training=True)
        np.testing.assert_allclose(pool.backward(pool.split(dy, share)), dx[cut], rtol=1e-14)
