"""Weights, smoothing, losses of real numbers and quantiles: by hand, by finite differences, against PyTorch and
scikit-learn.

Letters: T time steps, N batch, M classes, Q quantiles.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype

from fastrnn import losses, set_num_threads
from fastrnn.losses import binary_cross_entropy_with_logits, cross_entropy, huber, mae, mse, quantile

torch_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
ELEMENTWISE = {
    "bce": binary_cross_entropy_with_logits,
    "mse": mse,
    "mae": mae,
    "huber": functools.partial(huber, delta=0.7),
    "quantile": functools.partial(quantile, quantiles=0.3),
}


def make(dtype, shape=(4, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(dtype) * 2, rng.random(shape).astype(dtype), rng.random(shape[:2]) + 0.1


def against_torch(ours, theirs, logits, dtype):
    """Loss and gradient: ours(logits) against theirs(tensor)."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(logits, requires_grad=True)
    expected = theirs(x)
    expected.sum().backward()
    loss, dlogits = ours(logits)
    assert_output_close(np.asarray(loss, dtype), expected.detach().numpy().astype("float64"), dtype)
    assert_gradient_close(dlogits, x.grad.numpy().astype("float64"), dtype)


# against PyTorch and scikit-learn ----------------------------------------------------------------------------


@every_dtype
@torch_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("M", [3, 17, 40])
def test_cross_entropy_like_torch(M, weighted, smoothing, reduction, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(M)
    logits, targets = (3 * rng.standard_normal((9, M))).astype(dtype), rng.integers(0, M, 9)
    targets[[2, 5]] = -100
    weight = (rng.random(M) + 0.1).astype(dtype) if weighted else None
    against_torch(
        lambda x: cross_entropy(x, targets, reduction=reduction, class_weight=weight, label_smoothing=smoothing),
        lambda x: torch.nn.functional.cross_entropy(
            x,
            torch.tensor(targets),
            weight=None if weight is None else torch.tensor(weight),
            reduction=reduction,
            label_smoothing=smoothing,
        ),
        logits,
        dtype,
    )


@every_dtype
@torch_reduction
@pytest.mark.parametrize("pos_weight", [2.5, [0.5, 1, 2, 4, 0]])
def test_pos_weight_like_torch(pos_weight, reduction, dtype):
    torch = pytest.importorskip("torch")
    logits, targets, _ = make(dtype)
    against_torch(
        lambda x: binary_cross_entropy_with_logits(x, targets, reduction=reduction, pos_weight=pos_weight),
        lambda x: torch.nn.functional.binary_cross_entropy_with_logits(
            x, torch.tensor(targets), reduction=reduction, pos_weight=torch.tensor(pos_weight, dtype=x.dtype)
        ),
        logits,
        dtype,
    )


@every_dtype
@torch_reduction
@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber_and_mae_like_torch(delta, reduction, dtype):
    torch = pytest.importorskip("torch")
    prediction, targets, _ = make(dtype)
    targets[0, 0, 0] = prediction[0, 0, 0]
    there = torch.tensor(targets)
    against_torch(
        lambda x: huber(x, targets, delta=delta, reduction=reduction),
        lambda x: torch.nn.functional.huber_loss(x, there, delta=delta, reduction=reduction),
        prediction,
        dtype,
    )
    against_torch(
        lambda x: mae(x, targets, reduction=reduction),
        lambda x: torch.nn.functional.l1_loss(x, there, reduction=reduction),
        prediction,
        dtype,
    )


def test_losses_like_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    prediction, targets, weights = rng.standard_normal(30), rng.standard_normal(30), rng.random(30)
    for q in (0.1, 0.5, 0.9):
        expected = metrics.mean_pinball_loss(targets, prediction, alpha=q, sample_weight=weights)
        loss, _ = quantile(prediction, targets, quantiles=q, sample_weight=weights)
        assert loss == pytest.approx(expected, rel=1e-12)
    assert mse(prediction, targets, sample_weight=weights)[0] == pytest.approx(
        metrics.mean_squared_error(targets, prediction, sample_weight=weights), rel=1e-12
    )
    logits, classes = rng.standard_normal((30, 4)), rng.integers(0, 4, 30)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert cross_entropy(logits, classes, sample_weight=weights)[0] == pytest.approx(
        metrics.log_loss(classes, p, sample_weight=weights, labels=range(4)), rel=1e-12
    )


# weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy", "smoothed"])
def test_a_whole_weight_is_so_many_samples_and_no_weight_is_no_sample(name, reduction):
    logits, targets, _ = make("float64", (6, 5))
    function = ELEMENTWISE.get(name, functools.partial(cross_entropy, label_smoothing=0.1 * (name == "smoothed")))
    if name not in ELEMENTWISE:
        targets = np.arange(6) % 5
    weights = np.array([1, 0, 3, 2, 0, 1])
    rows = np.repeat(np.arange(6), weights)
    expected, dexpected = function(logits[rows], targets[rows], reduction=reduction)
    logits[1] = np.nan  # nobody looks there
    loss, dlogits = function(logits, targets, reduction=reduction, sample_weight=weights)
    assert loss == pytest.approx(expected, rel=1e-12)
    summed = np.zeros_like(logits)
    np.add.at(summed, rows, dexpected)
    assert_gradient_close(dlogits, summed, "float64")
    assert not dlogits[[1, 4]].any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "sequence"])
@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy"])
def test_gradient_with_weights_and_lengths_is_that_of_the_loss(name, reduction):
    logits, targets, weights = make("float64")  # (T, N, M)
    options = {"reduction": reduction, "sample_weight": weights, "lengths": np.array([4, 1, 3])}
    function = ELEMENTWISE.get(name, cross_entropy)
    if name == "cross_entropy":
        targets = np.arange(12).reshape(4, 3) % 5
        options |= {"class_weight": [1, 2, 0.5, 1, 3], "label_smoothing": 0.2}
    elif name == "bce":
        options |= {"pos_weight": [1, 2, 0.5, 1, 3], "label_smoothing": 0.2}
    _, dlogits = function(logits, targets, **options)
    numeric, step = np.empty_like(logits), 1e-5
    for index in np.ndindex(logits.shape):
        there = logits.copy()
        there[index] += step
        above = np.sum(function(there, targets, **options)[0])
        there[index] -= 2 * step
        numeric[index] = (above - np.sum(function(there, targets, **options)[0])) / (2 * step)
    np.testing.assert_allclose(dlogits, numeric, rtol=0, atol=1e-8)


def test_weights_follow_time_axis_and_lengths():
    logits, targets, weights = make("float64")
    lengths = np.array([4, 0, 2])
    loss, dlogits = mse(logits, targets, lengths=lengths, sample_weight=weights)
    swapped = mse(logits.swapaxes(0, 1), targets.swapaxes(0, 1), lengths=lengths, sample_weight=weights.T, time_axis=1)
    assert swapped[0] == pytest.approx(loss, rel=1e-14)
    np.testing.assert_allclose(swapped[1], dlogits.swapaxes(0, 1), rtol=1e-14)
    within = (np.arange(4)[:, None] < lengths) * weights
    assert loss == pytest.approx((np.square(logits - targets).sum(2) * within).sum() / within.sum() / 5, rel=1e-12)


@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy"])
def test_no_weight_at_all(name):
    logits, targets, _ = make("float32")
    function = ELEMENTWISE.get(name, cross_entropy)
    if name == "cross_entropy":
        targets = np.zeros((4, 3), int)
    loss, dlogits = function(logits, targets, sample_weight=np.zeros(4))
    assert math.isnan(loss)
    np.testing.assert_array_equal(dlogits, np.zeros_like(logits))


def test_threads_give_the_same_bits_with_smoothing():
    rng = np.random.default_rng(0)
    logits, targets, weights = rng.standard_normal((600, 50)), rng.integers(0, 50, 600), rng.random(600)
    results = []
    for threads in (1, 2, 3, 8):
        set_num_threads(threads)
        results.append(
            cross_entropy(
                logits, targets, sample_weight=weights, class_weight=np.linspace(1, 2, 50), label_smoothing=0.1
            )
        )
    for loss, dlogits in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dlogits, results[0][1])


# quantiles ---------------------------------------------------------------------------------------------------


def test_several_quantiles_are_one_after_another():
    prediction, _, weights = make("float64")
    targets = np.random.default_rng(1).standard_normal((4, 3))
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    loss, gradient = quantile(prediction, targets, quantiles=levels, sample_weight=weights)
    single = [quantile(prediction[..., k], targets, quantiles=q, sample_weight=weights) for k, q in enumerate(levels)]
    assert loss == pytest.approx(np.mean([one for one, _ in single]), rel=1e-12)
    np.testing.assert_allclose(gradient, np.stack([dy for _, dy in single], -1) / 5, rtol=1e-12)


def test_quantiles_by_hand_and_their_minimum():
    loss, gradient = quantile(np.array([0.0, 2.0, 1.0]), np.array([1.0, 1.0, 1.0]), quantiles=0.9, reduction="none")
    np.testing.assert_allclose(loss, [0.9, 0.1, 0])
    np.testing.assert_allclose(gradient, [-0.9, 0.1, 0])
    sample, guesses = np.arange(101.0), np.arange(0, 100, 0.5)
    expected = [quantile(np.full(101, guess), sample, quantiles=0.9)[0] for guess in guesses]
    assert guesses[int(np.argmin(expected))] == 90


# errors and NumPy's state ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, options, message",
    [
        (cross_entropy, {"sample_weight": [-1.0, 1]}, "sample_weight: expected finite numbers of at least 0, got -1.0"),
        (
            cross_entropy,
            {"sample_weight": [1.0]},
            r"sample_weight: expected the first axes of \(2,\), got shape \(1,\)",
        ),
        (cross_entropy, {"class_weight": [1.0]}, r"class_weight: expected shape \(2,\), got \(1,\)"),
        (cross_entropy, {"label_smoothing": 1.5}, r"label_smoothing: expected a number in \[0, 1\], got 1.5"),
        (huber, {"delta": 0}, "delta: expected a positive number, got 0"),
        (quantile, {"quantiles": 1.0}, r"quantiles: expected a number in \(0, 1\) or a list of them, got 1.0"),
        (quantile, {"quantiles": [0.1, 0.9]}, r"targets: expected shape \(2,\) for predictions \(2, 2\) of 2"),
        (binary_cross_entropy_with_logits, {"pos_weight": [1, 2, 3]}, r"pos_weight: expected a number or shape \(2,\)"),
    ],
)
def test_errors(function, options, message):
    targets = np.zeros(2, int) if function is cross_entropy else np.zeros((2, 2))
    with pytest.raises(ValueError, match=message):
        function(np.zeros((2, 2)), targets, **options)


@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy"])
def test_the_callers_numpy_state_does_not_matter(name):
    logits, targets, _ = make("float32")
    logits *= 60  # exp underflows
    if name == "cross_entropy":
        targets = np.zeros((4, 3), int)
    expected = losses.get(name)(logits, targets)
    with np.errstate(all="raise"):
        loss, dlogits = losses.get(name)(logits, targets)
    assert loss == expected[0]
    np.testing.assert_array_equal(dlogits, expected[1])
