"""Losses against numbers worked out by hand, finite differences and PyTorch.

Letters: T time steps, N batch, M classes.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype

from fastrnn import losses
from fastrnn.losses import binary_cross_entropy_with_logits, cross_entropy, mse

every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none", "sequence"])
torch_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

FUNCTIONS = {"cross_entropy": cross_entropy, "bce": binary_cross_entropy_with_logits, "mse": mse}
every_loss = pytest.mark.parametrize("name", FUNCTIONS)


def make(name: str, dtype: str, shape: tuple[int, ...] = (4, 3, 5), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits and targets for a loss; for cross entropy the last axis is that of the classes."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal(shape)
    if name == "cross_entropy":
        return logits.astype(dtype), rng.integers(0, shape[-1], shape[:-1])
    targets = rng.random(shape) if name == "bce" else rng.standard_normal(shape)
    return logits.astype(dtype), targets.astype(dtype)


# by hand -----------------------------------------------------------------------------------------------------


@every_dtype
def test_cross_entropy_by_hand(dtype):
    logits = np.log(np.array([[1, 3], [1, 1]])).astype(dtype)  # softmax 1/4, 3/4 and 1/2, 1/2
    targets = np.array([1, 0])
    loss, dlogits = cross_entropy(logits, targets, reduction="none")
    assert_output_close(loss, np.log([4 / 3, 2]), dtype)
    assert_gradient_close(dlogits, np.array([[0.25, -0.25], [-0.5, 0.5]]), dtype)
    loss, dlogits = cross_entropy(logits, targets)
    assert isinstance(loss, float)
    assert loss == pytest.approx(math.log(8 / 3) / 2, rel=1e-6)
    assert_gradient_close(dlogits, np.array([[0.125, -0.125], [-0.25, 0.25]]), dtype)


def test_cross_entropy_of_a_sequence_by_hand():
    probabilities = np.array([[[0.5, 0.5], [0.2, 0.8]], [[0.1, 0.9], [0.4, 0.6]]])  # (T, N, M)
    targets = np.array([[0, 1], [0, 0]])
    loss, dlogits = cross_entropy(np.log(probabilities), targets, reduction="sequence")
    first = -(math.log(0.5) + math.log(0.8)) / 2
    second = -(math.log(0.1) + math.log(0.4)) / 2
    assert loss == pytest.approx(first + second, rel=1e-12)
    expected = np.array([[[-0.5, 0.5], [0.2, -0.2]], [[-0.9, 0.9], [-0.6, 0.6]]]) / 2
    assert_gradient_close(dlogits, expected, "float64")


def test_binary_cross_entropy_by_hand():
    logits = np.array([math.log(3.0), 0.0])  # sigmoid 3/4, 1/2
    loss, dlogits = binary_cross_entropy_with_logits(logits, np.array([0, 1]), reduction="sum")
    assert loss == pytest.approx(math.log(4) + math.log(2), rel=1e-12)
    assert_gradient_close(dlogits, np.array([0.75, -0.5]), "float64")


def test_mse_by_hand():
    loss, dprediction = mse(np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1, 1], [0, 1]]))
    assert loss == (0 + 1 + 9 + 16) / 4
    np.testing.assert_array_equal(dprediction, np.array([[0, 0.5], [1.5, 2]]))


# gradients ---------------------------------------------------------------------------------------------------


@every_reduction
@every_loss
def test_gradient_is_that_of_the_loss(name, reduction):
    logits, targets = make(name, "float64")
    options = {"reduction": reduction, "time_axis": 1}
    if name == "cross_entropy":
        targets[1, 2] = targets[3, 0] = 9
        options["ignore_index"] = 9
    _, dlogits = FUNCTIONS[name](logits, targets, **options)
    numeric = np.empty_like(logits)
    step = 1e-5
    for index in np.ndindex(logits.shape):
        moved = []
        for sign in (1, -1):
            there = logits.copy()
            there[index] += sign * step
            moved.append(np.sum(FUNCTIONS[name](there, targets, **options)[0]))
        numeric[index] = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(dlogits, numeric, rtol=0, atol=1e-8)


# lengths -----------------------------------------------------------------------------------------------------


@every_reduction
@every_loss
@every_dtype
@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("lengths", [[4, 0, 2], [4, 4, 4], [0, 0, 0]])
def test_steps_past_a_length_count_nothing(name, reduction, dtype, time_axis, lengths):
    """The loss of the steps that count, by themselves, and a gradient of zero for the others, whatever they hold."""
    logits, targets = make(name, dtype)  # (T, N, M)
    keep = np.arange(4)[:, None] < lengths
    loss, dlogits = FUNCTIONS[name](logits[keep], targets[keep], reduction="sum")
    elements = dlogits.size // 5 if name == "cross_entropy" else dlogits.size
    whole = targets[0].size  # L_t stays a mean over the whole batch
    divisor = {"mean": max(elements, 1), "sequence": whole}.get(reduction, 1)
    expected = np.zeros_like(logits)
    expected[keep] = dlogits / divisor

    logits[~keep] = np.nan
    targets = np.where(keep if name == "cross_entropy" else keep[..., None], targets, 77).astype(
        "uint8" if name == "cross_entropy" else dtype
    )
    if time_axis:
        logits, targets = logits.swapaxes(0, 1), targets.swapaxes(0, 1)
    value, gradient = FUNCTIONS[name](
        logits, targets, reduction=reduction, time_axis=time_axis, lengths=np.array(lengths)
    )
    if time_axis:
        gradient = gradient.swapaxes(0, 1)
    assert_gradient_close(gradient, expected, dtype)
    assert not gradient[~keep].any()
    if reduction == "none":
        assert value.dtype == dtype and value.shape == targets.shape
        value = value.sum()
    if reduction == "mean" and not elements:
        assert math.isnan(value)
    else:
        assert value == pytest.approx(loss / divisor, rel=1e-5)


def test_lengths_and_ignored_targets_go_together():
    logits, targets = make("cross_entropy", "float64")
    targets[0, 0] = targets[3, 1] = -100
    lengths = np.array([4, 2, 0])
    ignored = np.where(np.arange(4)[:, None] < lengths, targets, -100)
    loss, dlogits = cross_entropy(logits, targets, lengths=lengths)
    expected, dexpected = cross_entropy(logits, ignored)
    assert loss == expected
    np.testing.assert_array_equal(dlogits, dexpected)


# PyTorch -----------------------------------------------------------------------------------------------------


def check_against_torch(name, function, dtype, logits, targets, **options):
    torch = pytest.importorskip("torch")
    peer = {
        "cross_entropy": torch.nn.functional.cross_entropy,
        "bce": torch.nn.functional.binary_cross_entropy_with_logits,
        "mse": torch.nn.functional.mse_loss,
    }[name]
    theirs = torch.tensor(logits, requires_grad=True)
    targets_there = torch.tensor(targets)
    if name == "cross_entropy":  # PyTorch has the classes on axis 1
        expected = peer(theirs.movedim(-1, 1), targets_there, **options)
    else:
        expected = peer(theirs, targets_there, **options)
    expected.sum().backward()
    loss, dlogits = function(logits, targets, **options)
    if options["reduction"] != "none":
        assert isinstance(loss, float)
        loss = np.asarray(loss, dtype)
    assert_output_close(loss, expected.detach().numpy().astype("float64"), dtype)
    assert_gradient_close(dlogits, theirs.grad.numpy().astype("float64"), dtype)


@every_dtype
@torch_reduction
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 5), (2, 3, 4, 7)])
@every_loss
def test_like_torch(name, shape, reduction, dtype):
    logits, targets = make(name, dtype, shape)
    check_against_torch(name, FUNCTIONS[name], dtype, logits, targets, reduction=reduction)


@every_dtype
@torch_reduction
@pytest.mark.parametrize("ignore_index", [-100, 2])
def test_ignored_targets_like_torch(ignore_index, reduction, dtype):
    logits, targets = make("cross_entropy", dtype)
    targets[0, 1] = targets[2, 2] = targets[3, 0] = ignore_index
    check_against_torch(
        "cross_entropy", cross_entropy, dtype, logits, targets, reduction=reduction, ignore_index=ignore_index
    )


@torch_reduction
def test_all_ignored_like_torch(reduction):
    logits, targets = make("cross_entropy", "float32")
    check_against_torch(
        "cross_entropy", cross_entropy, "float32", logits, np.full_like(targets, -100), reduction=reduction
    )


# reductions --------------------------------------------------------------------------------------------------


@every_loss
def test_sequence_is_the_sum_over_time_of_batch_means(name):
    function = FUNCTIONS[name]
    logits, targets = make(name, "float64")
    steps = [function(logits[t], targets[t]) for t in range(len(logits))]
    loss, dlogits = function(logits, targets, reduction="sequence")
    assert loss == pytest.approx(sum(step[0] for step in steps), rel=1e-12)
    assert_gradient_close(dlogits, np.stack([step[1] for step in steps]), "float64")
    swapped = function(logits.swapaxes(0, 1), targets.swapaxes(0, 1), reduction="sequence", time_axis=1)
    assert swapped[0] == pytest.approx(loss, rel=1e-12)
    assert_gradient_close(swapped[1], dlogits.swapaxes(0, 1), "float64")


def test_ignored_steps_leave_the_other_sequences_weight_alone():
    logits, targets = make("cross_entropy", "float64")
    losses_, _ = cross_entropy(logits, targets, reduction="none")
    targets[2:, 1] = -100  # sequence 1 ends after two steps
    loss, dlogits = cross_entropy(logits, targets, reduction="sequence")
    losses_[2:, 1] = 0
    assert loss == pytest.approx(losses_.sum() / 3, rel=1e-12)
    assert not dlogits[2:, 1].any()
    assert dlogits[2:, 0].all()


def test_all_ignored():
    logits, targets = make("cross_entropy", "float32")
    targets[...] = -100
    loss, dlogits = cross_entropy(logits, targets)
    assert math.isnan(loss)
    np.testing.assert_array_equal(dlogits, np.zeros_like(logits))
    for reduction in ("sum", "sequence"):
        assert cross_entropy(logits, targets, reduction=reduction)[0] == 0


@every_loss
def test_no_elements(name):
    logits, targets = make(name, "float32", (0, 3, 5))
    loss, dlogits = FUNCTIONS[name](logits, targets)
    assert math.isnan(loss)
    assert dlogits.shape == (0, 3, 5) and dlogits.dtype == np.float32
    for reduction in ("sum", "sequence"):
        assert FUNCTIONS[name](logits, targets, reduction=reduction)[0] == 0


def test_one_unbatched_element():
    logits = np.array([0.5, -1.0, 2.0])
    loss, dlogits = cross_entropy(logits, 2)
    batched = cross_entropy(logits[None], np.array([2]))
    assert loss == batched[0]
    np.testing.assert_array_equal(dlogits, batched[1][0])


def test_scalar_losses_are_summed_in_float64():
    prediction = np.ones(1002, np.float32)
    prediction[0] = 1e4
    loss, _ = mse(prediction, np.zeros(1002), reduction="sum")
    assert loss == 1e8 + 1001  # no float32


# extremes ----------------------------------------------------------------------------------------------------


@every_dtype
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[2e4, -2e4, 0], [-2e4, 2e4, 2e4]], dtype)
    loss, dlogits = cross_entropy(logits, np.array([1, 2]), reduction="none")
    assert_output_close(loss, np.array([4e4, math.log(2)]), dtype)
    assert_gradient_close(dlogits, np.array([[1, -1, 0], [0, 0.5, -0.5]]), dtype)
    loss, dlogits = binary_cross_entropy_with_logits(
        np.array([2e4, -2e4, 2e4, -2e4], dtype), np.array([0, 1, 1, 0]), reduction="none"
    )
    assert_output_close(loss, np.array([2e4, 2e4, 0, 0]), dtype)
    assert_gradient_close(dlogits, np.array([1, -1, 0, 0]), dtype)


def test_small_probabilities_keep_their_digits():
    loss, _ = binary_cross_entropy_with_logits(np.array([-40.0]), np.array([0.0]))
    assert loss == pytest.approx(math.exp(-40), rel=1e-12)


def test_masked_classes():
    logits = np.array([[0.0, -np.inf, 0.0], [-np.inf, 1.0, 0.0]])
    loss, dlogits = cross_entropy(logits, np.array([0, 0]), reduction="none")
    assert loss[0] == pytest.approx(math.log(2)) and loss[1] == np.inf
    np.testing.assert_allclose(dlogits[0], [-0.5, 0, 0.5], rtol=1e-15)


# An infinite logit is no error to binary cross entropy, but a certain prediction.
@pytest.mark.parametrize(
    "name, bad",
    [("cross_entropy", np.nan), ("cross_entropy", np.inf), ("bce", np.nan), ("mse", np.nan), ("mse", np.inf)],
)
def test_nan_stays_in_its_row_and_is_not_swallowed(name, bad):
    logits, targets = make(name, "float32", (4, 5))
    _, clean = FUNCTIONS[name](logits, targets, reduction="sum")
    logits[2] = bad
    loss, dlogits = FUNCTIONS[name](logits, targets, reduction="sum")
    assert not math.isfinite(loss)
    assert not np.isfinite(dlogits[2]).any()
    np.testing.assert_array_equal(np.delete(dlogits, 2, 0), np.delete(clean, 2, 0))


def test_nan_under_an_ignored_target_is_ignored():
    logits, targets = make("cross_entropy", "float32", (4, 5))
    targets[2] = -100
    expected = cross_entropy(logits, targets)
    logits[2] = np.nan
    loss, dlogits = cross_entropy(logits, targets)
    assert loss == expected[0]
    np.testing.assert_array_equal(dlogits, expected[1])


# what comes in -----------------------------------------------------------------------------------------------


@every_reduction
@every_dtype
@every_loss
def test_dtype_is_kept_and_inputs_are_not_touched(name, dtype, reduction):
    logits, targets = make(name, dtype)
    before = logits.copy(), targets.copy()
    loss, dlogits = FUNCTIONS[name](logits, targets, reduction=reduction)
    assert dlogits.dtype == dtype and dlogits.shape == logits.shape
    assert isinstance(loss, np.ndarray if reduction == "none" else float)
    if reduction == "none":
        assert loss.dtype == dtype and loss.shape == targets.shape
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(targets, before[1])


@every_loss
def test_strided_logits(name):
    logits, targets = make(name, "float32")
    strided = np.repeat(logits, 2, axis=-1)[..., ::2]
    assert not strided.flags.c_contiguous
    loss, dlogits = FUNCTIONS[name](strided, targets)
    expected = FUNCTIONS[name](logits, targets)
    assert loss == expected[0]
    np.testing.assert_array_equal(dlogits, expected[1])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint64"])
def test_any_integer_targets(dtype):
    logits, targets = make("cross_entropy", "float32")
    assert cross_entropy(logits, targets.astype(dtype))[0] == cross_entropy(logits, targets)[0]


def test_targets_take_the_logits_dtype():
    logits, targets = make("mse", "float32")
    _, dprediction = mse(logits, targets.astype("float64"))
    assert dprediction.dtype == np.float32
    labels = np.arange(60).reshape(4, 3, 5) % 2
    expected = binary_cross_entropy_with_logits(logits, labels.astype("float32"))[0]
    assert binary_cross_entropy_with_logits(logits, labels)[0] == expected
    assert binary_cross_entropy_with_logits(logits, labels.astype(bool))[0] == expected


LOGITS = np.zeros((3, 4), np.float32)
TARGETS = np.array([0, 3, 1])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: cross_entropy(LOGITS.astype("float16"), TARGETS),
            TypeError,
            "logits: expected float32 or float64, got float16",
        ),
        (
            lambda: cross_entropy(np.float32(0), 0),
            ValueError,
            "logits: expected shape (..., M) with M >= 1 classes, got ()",
        ),
        (
            lambda: cross_entropy(LOGITS[:, :0], TARGETS),
            ValueError,
            "logits: expected shape (..., M) with M >= 1 classes, got (3, 0)",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS.astype("float32")),
            TypeError,
            "targets: expected integer classes, got float32",
        ),
        (lambda: cross_entropy(LOGITS, TARGETS > 1), TypeError, "targets: expected integer classes, got bool"),
        (
            lambda: cross_entropy(LOGITS, LOGITS.astype(int)),
            ValueError,
            "targets: expected shape (3,) for logits of shape (3, 4), got (3, 4)",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS[:2]),
            ValueError,
            "targets: expected shape (3,) for logits of shape (3, 4), got (2,)",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS + 1),
            ValueError,
            "targets: expected classes 0..3 (or ignore_index -100), got 4",
        ),
        (
            lambda: cross_entropy(LOGITS, -TARGETS),
            ValueError,
            "targets: expected classes 0..3 (or ignore_index -100), got -3",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS + 1, ignore_index=2),
            ValueError,
            "targets: expected classes 0..3 (or ignore_index 2), got 4",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS, reduction="avg"),
            ValueError,
            "reduction: expected one of mean, sum, none, sequence, got 'avg'",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS, reduction="sequence"),
            ValueError,
            'reduction: "sequence" needs a time and a batch axis, got elements of shape (3,)',
        ),
        (
            lambda: mse(LOGITS, LOGITS, reduction="sequence", time_axis=2),
            ValueError,
            "time_axis: expected an axis 0..1, got 2",
        ),
        (
            lambda: mse(LOGITS, LOGITS, reduction="sequence", time_axis=-1),
            ValueError,
            "time_axis: expected an axis 0..1, got -1",
        ),
        (lambda: mse(TARGETS, TARGETS), TypeError, "prediction: expected float32 or float64, got int64"),
        (lambda: mse(LOGITS, LOGITS[0]), ValueError, "targets: expected shape (3, 4) like prediction, got (4,)"),
        (lambda: mse(LOGITS, LOGITS + 0j), TypeError, "targets: expected real numbers like prediction, got complex64"),
        (
            lambda: mse(LOGITS, LOGITS, reduction=None),
            ValueError,
            "reduction: expected one of mean, sum, none, sequence, got None",
        ),
        (
            lambda: binary_cross_entropy_with_logits(TARGETS, TARGETS),
            TypeError,
            "logits: expected float32 or float64, got int64",
        ),
        (
            lambda: binary_cross_entropy_with_logits(LOGITS[:, :1], LOGITS[:, 0]),
            ValueError,
            "targets: expected shape (3, 1) like logits, got (3,)",
        ),
        (
            lambda: binary_cross_entropy_with_logits(LOGITS, LOGITS + 2),
            ValueError,
            "targets: expected probabilities in [0, 1], got values in [2.0, 2.0]",
        ),
        (
            lambda: binary_cross_entropy_with_logits(LOGITS, LOGITS * np.nan),
            ValueError,
            "targets: expected probabilities in [0, 1], got values in [nan, nan]",
        ),
        (lambda: mse(LOGITS, LOGITS, lengths=[1.0, 2, 3, 3]), TypeError, "lengths: expected integers, got float64"),
        (lambda: mse(LOGITS, LOGITS, lengths=np.ones(3, int)), ValueError, "lengths: expected shape (4,), got (3,)"),
        (
            lambda: mse(LOGITS, LOGITS, lengths=np.array([0, 1, 2, 4])),
            ValueError,
            "lengths: expected values from 0 to 3, got 4",
        ),
        (
            lambda: cross_entropy(LOGITS, TARGETS, lengths=np.array([1])),
            ValueError,
            "lengths: expected None without axes of time and batch in front, got elements of shape (3,) with "
            "time_axis=0",
        ),
        (
            lambda: losses.get("hinge"),
            ValueError,
            "loss: expected one of cross_entropy, bce, binary_cross_entropy_with_logits, mse, mae, huber, "
            "quantile, ctc, nll, got 'hinge'",
        ),
        (lambda: losses.get(None), TypeError, "loss: expected a name or a callable, got NoneType"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_get():
    assert losses.get("cross_entropy") is cross_entropy
    assert losses.get("bce") is losses.get("binary_cross_entropy_with_logits") is binary_cross_entropy_with_logits
    assert losses.get("mse") is mse
    assert losses.get(make) is make
