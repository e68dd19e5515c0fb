"""CTC: the reference against all paths and finite differences, the kernel against the reference and PyTorch.

Letters: T time steps, N batch, M classes, U labels.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype

from fastrnn import _native, set_num_threads
from fastrnn.losses import ctc
from fastrnn.reference.ctc import ctc as reference


def make(T=9, N=4, M=5, U=3, seed=0, dtype="float64", scale=2.0):
    rng = np.random.default_rng([seed, T, N, M, U])
    logits = (scale * rng.standard_normal((T, N, M))).astype(dtype)
    counts = rng.integers(0, U + 1, N)
    labels = [rng.integers(1, M, count) for count in counts]
    lengths = np.array([rng.integers(min(T, 2 * count), T + 1) for count in counts])
    return logits, labels, lengths


def padded(labels, value=-1):
    rows = np.full((len(labels), max(map(len, labels), default=0)), value)
    for row, given in zip(rows, labels):
        row[: len(given)] = given
    return rows


def expected(logits, labels, lengths, blank=0):
    """Losses (N,) and the gradient of their sum, by the reference in float64."""
    losses, gradient = [], np.zeros(logits.shape)
    for n, row in enumerate(labels):
        loss, gradient[: lengths[n], n] = reference(logits[: lengths[n], n].astype("float64"), row, blank)
        losses.append(loss)
    return np.array(losses), gradient


# the reference -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[], [1], [1, 2], [1, 1], [2, 1, 2]])
@pytest.mark.parametrize("T", [1, 3, 5])
def test_reference_is_the_sum_over_all_paths(labels, T):
    logits = np.random.default_rng(T).standard_normal((T, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(3), repeat=T):
        said = [m for m, _ in itertools.groupby(path) if m != 0]
        if said == labels:
            total += math.prod(p[t, m] for t, m in enumerate(path))
    loss, _ = reference(logits, labels)
    assert loss == (pytest.approx(-math.log(total), rel=1e-12) if total else math.inf)


def test_reference_gradient_is_that_of_the_loss():
    logits, labels = np.random.default_rng(0).standard_normal((7, 4)), [1, 1, 3]
    _, gradient = reference(logits, labels, blank=2)
    for index in np.ndindex(logits.shape):
        there = logits.copy()
        there[index] += 1e-5
        above = reference(there, labels, blank=2)[0]
        there[index] -= 2e-5
        assert gradient[index] == pytest.approx((above - reference(there, labels, blank=2)[0]) / 2e-5, abs=1e-8)


# the kernel --------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize(
    "T, N, M, U", [(1, 1, 2, 1), (9, 4, 5, 3), (30, 3, 33, 8), (17, 5, 16, 9), (64, 2, 7, 20), (12, 3, 200, 4)]
)
def test_kernel_agrees_with_the_reference(T, N, M, U, dtype, isa):
    logits, labels, lengths = make(T, N, M, U, dtype=dtype)
    want, dwant = expected(logits, labels, lengths)
    possible = np.isfinite(want)
    losses, gradient = ctc(logits, labels, lengths=lengths, reduction="none")
    assert_output_close(losses, want, dtype)
    assert_gradient_close(gradient[:, possible], dwant[:, possible], dtype)
    assert not any(gradient[lengths[n] :, n].any() for n in range(N))


def test_long_sequences_and_improbable_labels_keep_their_digits():
    """Paths of probability e^-3000 and less: nothing underflows, and float32 logits lose nothing on the way."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((700, 2, 30)).astype("float32")
    logits[..., 0] += 40  # a network that says blank only
    labels = [rng.integers(1, 30, 300), rng.integers(1, 30, 100)]
    want, dwant = expected(logits, labels, [700, 700])
    losses, gradient = ctc(logits, labels, reduction="none")
    assert losses.min() > 3000
    np.testing.assert_allclose(losses, want, rtol=1e-6)
    assert_gradient_close(gradient, dwant, "float32")


@every_dtype
@pytest.mark.parametrize("blank", [0, 3])
def test_layouts_and_ways_to_give_labels(dtype, blank):
    logits, labels, lengths = make(dtype=dtype)
    labels = [np.where(row == blank, (blank + 1) % 5, row) for row in labels]
    labels = [row[row != blank] for row in labels]
    counts = np.array([len(row) for row in labels])
    loss, gradient = ctc(logits, labels, lengths=lengths, blank=blank)
    options = {"lengths": lengths, "blank": blank}
    for other, dother in (
        ctc(logits, padded(labels), **options),
        ctc(logits, padded(labels, 99).astype("uint8"), target_lengths=counts, **options),
        ctc(logits.swapaxes(0, 1), labels, time_axis=1, **options),
        ctc(np.ascontiguousarray(logits.swapaxes(0, 1)).swapaxes(0, 1), labels, **options),
    ):
        assert other == loss
        np.testing.assert_array_equal(dother if dother.shape == gradient.shape else dother.swapaxes(0, 1), gradient)


def test_bits_do_not_depend_on_threads():
    logits, labels, lengths = make(60, 13, 40, 15, dtype="float32")
    results = []
    for threads in (1, 2, 3, 8):
        set_num_threads(threads)
        results.append(ctc(logits, labels, lengths=lengths))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(gradient, results[0][1])


def test_weights_and_reductions():
    logits, labels, _ = make()
    each, gradient = ctc(logits, labels, reduction="none")
    counts, weights = np.array([max(len(row), 1) for row in labels]), np.array([1, 0, 2, 0.5])
    mean, dmean = ctc(logits, labels, sample_weight=weights)
    assert mean == pytest.approx((each / counts * weights).sum() / 3.5, rel=1e-12)
    np.testing.assert_allclose(dmean, gradient * (weights / counts / 3.5)[:, None], rtol=1e-12)
    assert ctc(logits, labels, reduction="sequence")[0] == pytest.approx(each.mean(), rel=1e-12)
    assert ctc(logits, labels, reduction="sum")[0] == pytest.approx(each.sum(), rel=1e-12)
    logits[:, 1] = np.nan
    assert ctc(logits, labels, sample_weight=weights)[0] == mean


# PyTorch -----------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("blank", [0, 4])
def test_like_torch(blank, zero_infinity, reduction, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits = (2 * rng.standard_normal((12, 5, 5))).astype(dtype)
    targets = (blank + 1 + rng.integers(0, 4, (5, 6))) % 5
    targets[2, :3] = targets[2, 0]  # repeated labels
    counts, lengths = np.array([6, 0, 4, 1, 6]), np.array([12, 7, 10, 1, 4 if zero_infinity else 12])
    x = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.ctc_loss(
        x.log_softmax(-1),
        torch.tensor(targets),
        torch.tensor(lengths),
        torch.tensor(counts),
        blank=blank,
        reduction=reduction,
        zero_infinity=zero_infinity,
    )
    theirs.sum().backward()
    loss, gradient = ctc(
        logits,
        targets,
        lengths=lengths,
        target_lengths=counts,
        blank=blank,
        reduction=reduction,
        zero_infinity=zero_infinity,
    )
    assert_output_close(np.asarray(loss, dtype), theirs.detach().numpy().astype("float64"), dtype)
    tolerance = {"float32": 5e-5, "float64": 1e-11}[dtype]  # theirs takes logarithms in the dtype of the logits
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=0, atol=tolerance)


# edges -------------------------------------------------------------------------------------------------------


def test_no_path():
    logits = np.zeros((2, 2, 3), "float32")
    losses, gradient = ctc(logits, [[1, 1], [1, 2]], reduction="none")  # the first needs a blank between
    np.testing.assert_allclose(losses, [math.inf, math.log(9)], rtol=1e-6)
    assert np.isnan(gradient[:, 0]).all() and np.isfinite(gradient[:, 1]).all()
    losses, gradient = ctc(logits, [[1, 1], [1, 2]], reduction="none", zero_infinity=True)
    assert losses[0] == 0 and not gradient[:, 0].any() and gradient[:, 1].any()
    loss, gradient = ctc(logits, [[], [1]], lengths=np.array([0, 0]), reduction="none")
    np.testing.assert_array_equal(loss, [0, math.inf])
    assert not gradient.any()


def test_impossible_classes_and_nan():
    logits, _, _ = make(N=3)
    logits[:, 0, 1:] = -np.inf  # says blank for sure
    logits[4, 1, 2] = np.nan
    losses, gradient = ctc(logits, [[1], [1, 2], [3]], reduction="none")
    assert losses[0] == math.inf and math.isnan(losses[1]) and np.isfinite(losses[2])
    assert np.isfinite(gradient[:, 2]).all() and np.isnan(gradient[4, 1]).any()
    loss, gradient = ctc(logits[:, :1], [[]])
    assert loss == pytest.approx(0, abs=1e-12) and np.abs(gradient).max() < 1e-12


def test_nothing():
    loss, gradient = ctc(np.zeros((3, 0, 2)), [])
    assert math.isnan(loss) and gradient.shape == (3, 0, 2)
    loss, gradient = ctc(np.zeros((0, 2, 2)), [[], []], reduction="sum")
    assert loss == 0 and gradient.shape == (0, 2, 2)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.zeros((2, 3)), [[1]]), {}, ValueError, r"logits: expected shape \(T, N, M\)"),
        ((np.zeros((2, 1, 3), int), [[1]]), {}, TypeError, "logits: expected float32 or float64, got int64"),
        ((np.zeros((2, 1, 3)), [[3]]), {}, ValueError, "targets: expected labels 0..2 other than the blank 0, got 3"),
        ((np.zeros((2, 1, 3)), [[0]]), {}, ValueError, "other than the blank 0, got 0"),
        ((np.zeros((2, 1, 3)), [[1], [1]]), {}, ValueError, "targets: expected 1 sequences of labels, got 2"),
        ((np.zeros((2, 1, 3)), [[1.5]]), {}, TypeError, "targets: expected sequences of integers, got float64"),
        ((np.zeros((2, 1, 3)), np.ones(1, int)), {}, ValueError, r"targets: expected shape \(N, U\)"),
        ((np.zeros((2, 1, 3)), [[1]]), {"blank": 3}, ValueError, "blank: expected a class 0..2, got 3"),
        ((np.zeros((2, 1, 3)), [[1]]), {"lengths": [3]}, ValueError, "lengths: expected values from 0 to 2, got 3"),
        ((np.zeros((2, 1, 3)), [[1]]), {"reduction": "max"}, ValueError, "reduction: expected one of"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ctc(*arguments, **options)


def test_the_compiled_function_checks_what_it_is_given():
    x, one = np.zeros((2, 1, 3)), np.array([1])
    with pytest.raises(ValueError, match="labels: expected classes"):
        _native.ctc(x, np.zeros_like(x), np.array([5]), one, one, 0, np.ones(1), False)
    with pytest.raises(ValueError, match="ends, lengths"):
        _native.ctc(x, np.zeros_like(x), one, one, np.array([5]), 0, np.ones(1), False)
