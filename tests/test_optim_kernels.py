"""The compiled steps of the optimisers, clipping and cross entropy, against plain NumPy on every instruction set.

Letters: N rows, M classes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close, every_dtype
from test_optim import every_variant

import fastrnn
from fastrnn import losses, optim

# Sizes around the vectors of all builds, the accumulators of a norm (8 vectors), and a block of 8192.
SIZES = (1, 3, 4, 7, 8, 9, 16, 31, 64, 65, 127, 8191, 8192, 8197)


def numpy_step(o, t, p, g, state):
    """The formulas in the classes' docstrings, word for word; `state` is a dict of arrays, empty at t = 1."""
    if isinstance(o, optim.AdamW):
        p = p - o.lr * o.weight_decay * p
    else:
        g = g + o.weight_decay * p
    zero = np.zeros_like(p)
    if isinstance(o, optim.SGD):
        b = state["b"] = o.momentum * state.get("b", zero) + g
        return p - o.lr * (g + o.momentum * b if o.nesterov else b)
    if isinstance(o, optim.RMSprop):
        v = state["v"] = o.alpha * state.get("v", zero) + (1 - o.alpha) * g**2
        b = state["b"] = o.momentum * state.get("b", zero) + g / (np.sqrt(v) + o.eps)
        return p - o.lr * b
    if isinstance(o, optim.Adagrad):
        s = state["s"] = state.get("s", zero + o.initial_accumulator_value) + g**2
        return p - o.lr / (1 + (t - 1) * o.lr_decay) * g / (np.sqrt(s) + o.eps)
    beta1, beta2 = o.betas
    m = state["m"] = beta1 * state.get("m", zero) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", zero) + (1 - beta2) * g**2
    return p - o.lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + o.eps)


def arrays(dtype, seed, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return {f"p{size}": rng.standard_normal(size).astype(dtype) for size in sizes}


@pytest.fixture
def any_threads():
    """Gives a function that sets their number; the number before comes back."""
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)


# --- Steps ------------------------------------------------------------------------------------------------------------


@every_dtype
@every_variant
def test_step_against_numpy(cls, options, dtype, isa):
    optimizer, params = cls(**options), arrays(dtype, 0)
    expected, states = {name: p.astype("f8") for name, p in params.items()}, {name: {} for name in params}
    for t in range(1, 5):
        grads = arrays(dtype, t)
        optimizer.step(params, grads)
        for name, g in grads.items():
            expected[name] = numpy_step(optimizer, t, expected[name], g.astype("f8"), states[name])
    for name, p in params.items():
        assert_output_close(p, expected[name], dtype, name)


@every_variant
def test_not_a_number_and_infinity_stay_in_their_entries(cls, options, isa):
    clean, params, (a, b) = arrays("float32", 0), arrays("float32", 0), (cls(**options), cls(**options))
    grads = arrays("float32", 1)
    a.step(clean, grads)
    for g in grads.values():
        g[-1], g[len(g) // 2] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        wanted = {name: numpy_step(b, 1, p.astype("f8"), grads[name].astype("f8"), {}) for name, p in params.items()}
    b.step(params, grads)
    for name, p in params.items():
        for i in (len(p) // 2, len(p) - 1):
            np.testing.assert_equal(p[i], np.float32(wanted[name][i]))
            clean[name][i] = p[i]
        np.testing.assert_array_equal(p, clean[name])


@every_dtype
@every_variant
@pytest.mark.parametrize(
    "limits", [{"clip_norm": 2.5}, {"clip_value": 0.5}, {"clip_norm": 90.0, "clip_value": 0.3}], ids=repr
)
def test_clipping_in_the_step_is_bitwise_clipping_before_it(cls, options, dtype, limits, isa):
    sizes = (5, 37, 130, 8197)
    together, apart, (a, b) = arrays(dtype, 0, sizes), arrays(dtype, 0, sizes), (cls(**options), cls(**options))
    for t in range(1, 3):
        grads = arrays(dtype, t, sizes)
        norm = a.step(together, grads, **limits)
        np.testing.assert_equal(grads, arrays(dtype, t, sizes))
        if "clip_norm" in limits:
            assert norm == optim.clip_grad_norm(grads, limits["clip_norm"]) > limits["clip_norm"]
        else:
            assert norm is None
        if "clip_value" in limits:
            optim.clip_grad_value(grads, limits["clip_value"])
        b.step(apart, grads)
    np.testing.assert_equal(together, apart)
    np.testing.assert_equal(a.state_dict(), b.state_dict())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_changes_nothing(bad):
    params, grads, optimizer = arrays("float32", 0), arrays("float32", 1), optim.Adam()
    optimizer.step(params, grads)
    before, state = {name: p.copy() for name, p in params.items()}, optimizer.state_dict()
    grads["p31"][30] = bad
    with pytest.raises(FloatingPointError, match=f"^gradient: expected a finite norm, got {abs(bad)}$"):
        optimizer.step(params, grads, clip_norm=1.0)
    np.testing.assert_equal(params, before)
    np.testing.assert_equal(optimizer.state_dict(), state)


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"clip_norm": -1}, "clip_norm: expected a number >= 0, got -1"),
        ({"clip_norm": math.nan}, "clip_norm: expected a number >= 0, got nan"),
        ({"clip_value": -0.5}, "clip_value: expected a number >= 0, got -0.5"),
    ],
)
def test_limits_that_are_none(limits, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        optim.SGD().step(arrays("float32", 0), arrays("float32", 1), **limits)


@every_dtype
@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam])
def test_threads_do_not_matter(cls, dtype, any_threads):
    sizes, ways = (3, 100_003, 8192, 70_000), []
    for threads in (1, 2, 3, 8):
        any_threads(threads)
        params, optimizer = arrays(dtype, 0, sizes), cls()
        norms = [optimizer.step(params, arrays(dtype, t, sizes), clip_norm=1.0) for t in range(1, 3)]
        grads = arrays(dtype, 9, sizes)
        optim.clip_grad_norm(grads, 1.0)
        ways.append((params, norms, grads, optimizer.state_dict()))
    for way in ways[1:]:
        np.testing.assert_equal(way, ways[0])


def test_one_array_under_two_names_is_updated_twice(any_threads):
    any_threads(4)
    p = np.zeros(200_000)
    optim.SGD(lr=1.0).step({"a": p, "b": p[1:]}, {"a": np.ones(p.size), "b": np.ones(p.size - 1)})
    np.testing.assert_array_equal(p, np.concatenate([[-1], np.full(p.size - 1, -2)]))
    optim.clip_grad_norm({"a": p, "b": p}, 0.0)
    np.testing.assert_array_equal(p, 0)


@pytest.mark.parametrize("layout", ["strided", "Fortran", "unaligned", "read-only"])
def test_gradients_of_any_layout(layout):
    g = np.arange(12.0).reshape(3, 4)
    given = {
        "strided": lambda: np.repeat(g, 2, axis=1)[:, ::2],
        "Fortran": lambda: np.asfortranarray(g),
        "unaligned": lambda: np.frombuffer(b"." + g.tobytes(), "u1")[1:].view("f8").reshape(3, 4),
        "read-only": lambda: np.frombuffer(g.tobytes()).reshape(3, 4),
    }[layout]()
    p = np.zeros((3, 4))
    optim.SGD(lr=1.0).step({"p": p}, {"p": given})
    np.testing.assert_array_equal(p, -g)


# --- Clipping ---------------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("size", SIZES)
def test_norm_is_exact_to_the_last_digits(size, dtype, isa):
    grads = arrays(dtype, 3, (size,)) | {"other": np.full(5, 1e-3, dtype)}
    exact = math.sqrt(math.fsum(float(v) ** 2 for g in grads.values() for v in g))
    assert optim.clip_grad_norm(grads, math.inf) == pytest.approx(exact, rel=1e-14)


@every_dtype
def test_clip_to_norm_and_value_against_numpy(dtype, isa):
    grads, expected = arrays(dtype, 4), arrays(dtype, 4)
    norm = optim.clip_grad_norm(grads, 1.5)
    for g in expected.values():
        np.multiply(g, g.dtype.type(1.5 / (norm + 1e-6)), out=g)
    np.testing.assert_equal(grads, expected)
    grads["p9"][8], grads["p7"][3] = np.nan, -np.inf
    expected["p9"][8], expected["p7"][3] = np.nan, -np.inf
    optim.clip_grad_value(grads, 0.01)
    np.testing.assert_equal(
        grads, {name: np.clip(g, g.dtype.type(-0.01), g.dtype.type(0.01)) for name, g in expected.items()}
    )


def test_float32_norms_do_not_overflow():
    assert optim.clip_grad_norm({"a": np.array([3e30, 4e30], "f4")}, math.inf) == pytest.approx(5e30, rel=1e-6)


def test_clip_dtypes_together():
    grads = {"a": np.array([3.0], "f4"), "b": np.array([4.0])}
    assert optim.clip_grad_norm(grads, 2.5) == 5.0
    np.testing.assert_allclose([grads["a"][0], grads["b"][0]], [1.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    "grad, error, message",
    [
        (np.zeros(2, int), TypeError, r"grads\['a'\]: expected float32 or float64, got int64"),
        ([1.0], TypeError, r"grads\['a'\]: expected a NumPy array, got list"),
        (np.frombuffer(b"12345678"), ValueError, r"grads\['a'\]: expected a writable array, got a read-only one"),
    ],
)
def test_gradients_that_cannot_be_clipped(grad, error, message):
    for call in (optim.clip_grad_norm, optim.clip_grad_value):
        with pytest.raises(error, match=f"^{message}$"):
            call({"a": grad}, 1.0)


# --- Cross entropy ----------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("M", [1, 2, 3, 4, 7, 8, 10, 16, 17, 33, 1000])
def test_cross_entropy_against_numpy(M, dtype, isa):
    rng = np.random.default_rng(M)
    logits, targets = (4 * rng.standard_normal((13, M))).astype(dtype), rng.integers(0, M, 13)
    targets[5] = -100
    wide = logits.astype("f8")
    p = np.exp(wide - wide.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    counted = targets != -100
    expected = np.where(counted, -np.log(p[np.arange(13), targets % M]), 0)
    dlogits = p - (np.arange(M) == targets[:, None])
    dlogits[~counted] = 0
    loss, d = losses.cross_entropy(logits, targets, reduction="none")
    assert_output_close(loss, expected, dtype)
    assert_gradient_close(d, dlogits, dtype)
    mean, d = losses.cross_entropy(logits, targets)
    assert mean == pytest.approx(expected.sum() / 12, rel=1e-5 if dtype == "float32" else 1e-12)
    assert_gradient_close(d * 12, dlogits, dtype)


@every_dtype
def test_cross_entropy_keeps_what_is_not_finite_in_its_row(dtype, isa):
    for bad, at in ((np.nan, 0), (np.nan, 8), (np.inf, 3), (np.inf, 8)):
        logits = np.random.default_rng(0).standard_normal((3, 9)).astype(dtype)
        clean, dclean = losses.cross_entropy(logits, np.array([0, 1, 2]), reduction="none")
        logits[1, at] = bad
        loss, d = losses.cross_entropy(logits, np.array([0, 1, 2]), reduction="none")
        assert np.isnan(loss[1]) and np.isnan(d[1]).any()
        np.testing.assert_array_equal(loss[[0, 2]], clean[[0, 2]])
        np.testing.assert_array_equal(d[[0, 2]], dclean[[0, 2]])


def test_cross_entropy_does_not_depend_on_threads(any_threads):
    logits = np.random.default_rng(0).standard_normal((301, 99)).astype("f4")
    targets, ways = np.arange(301) % 99, []
    for threads in (1, 2, 3, 8):
        any_threads(threads)
        ways.append(losses.cross_entropy(logits, targets))
    for way in ways[1:]:
        np.testing.assert_equal(way, ways[0])
