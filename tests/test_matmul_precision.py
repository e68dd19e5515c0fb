"""set_matmul_precision: what it takes and says, and the kernels on bfloat16 tiles, emulated where there is no AMX.

Letters: T time steps, N batch, D input_size, H hidden_size, M columns of a linear layer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CANCELLED, CELLS, Case, cell_id, every_cell, every_cell_and_variant, expect, make_case, over_time

import fastrnn
from fastrnn import _native, functional

# How far results may be from the float64 reference: outputs by tol * (1 + |value|), gradients by tol * (their largest
# entry); with weights as PyTorch initialises them.
TOLERANCE = {"high": 2e-5, "medium": 1e-2}
EVERY_PRECISION = pytest.mark.parametrize("precision", TOLERANCE)


@pytest.fixture(autouse=True)
def highest_afterwards() -> Iterator[None]:
    yield
    fastrnn.set_matmul_precision("highest")
    _native.emulate_amx(False)
    _native.force_plan()


def on_tiles(precision: str, **options: bool) -> None:
    _native.emulate_amx(True, **options)
    fastrnn.set_matmul_precision(precision)


def tame(case: Case) -> Case:
    """The case with weights of the size that PyTorch draws, U(-1, 1) / sqrt(H): a variance of 1/3 over the inputs."""
    weights = tuple(None if w is None else (0.6 * w).astype(w.dtype) for w in case.weights)
    return replace(case, weights=weights)


def assert_within(actual: dict, expected: dict, tolerance: float) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        if value is None:
            assert actual[name] is None, name
            continue
        largest = max(float(np.abs(value).max(initial=0)), CANCELLED) if name.startswith("d") else 1 + np.abs(value)
        error = np.abs(actual[name] - value) / largest
        assert error.max(initial=0) <= tolerance, f"{name}: {error.max():.1e}"


# ---- The setting -----------------------------------------------------------------------------------------------------


def test_highest_whatever_the_environment():
    code = "import fastrnn; print(fastrnn.get_matmul_precision(), fastrnn.show_config()['matmul_precision'])"
    folder = Path(fastrnn.__file__).parents[1]
    environment = {"FASTRNN_MATMUL_PRECISION": "medium", "NVIDIA_TF32_OVERRIDE": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd="/")
    assert done.stdout.splitlines()[-1:] == ["highest highest: float32"], done.stderr


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_setting_is_kept(precision):
    assert fastrnn.set_matmul_precision(precision) is None
    assert fastrnn.get_matmul_precision() == precision


def test_another_word_changes_nothing():
    fastrnn.set_matmul_precision("medium")
    for word in ("High", "low", "", "highest "):
        with pytest.raises(ValueError, match=r"^precision: expected 'highest', 'high' or 'medium', got"):
            fastrnn.set_matmul_precision(word)
    for thing in (None, 2, b"high", ["high"]):
        with pytest.raises(TypeError, match=r"^precision: expected a str, got"):
            fastrnn.set_matmul_precision(thing)
    assert fastrnn.get_matmul_precision() == "medium"


@EVERY_PRECISION
def test_without_amx_it_is_float32_and_says_so(precision):
    missing = _native.why_no_amx()
    if missing is None:
        pytest.skip("this CPU has AMX")
    case = make_case("lstm", {}, (3, 40, 20, 64), "float32")
    expected = case.run(functional)
    fastrnn.set_matmul_precision(precision)
    words = fastrnn.show_config()["matmul_precision"]
    assert words == f"{precision} asked for; float32 used, as {missing}"
    assert missing.startswith(("this CPU", "this build", "the operating system", "the instruction set"))
    for name, array in case.run(functional).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_amx_goes_with_avx512():
    """Who asks for another instruction set gets that alone."""
    before = _native.isa()
    try:
        _native.use_isa("baseline")
        assert _native.why_no_amx() is not None
    finally:
        _native.use_isa(before)


def test_config_says_what_runs():
    on_tiles("high")
    assert fastrnn.show_config()["matmul_precision"] == "high: bf16x3 on AMX"
    fastrnn.set_matmul_precision("medium")
    assert fastrnn.show_config()["matmul_precision"] == "medium: bf16 on AMX"


# ---- What it does not touch ------------------------------------------------------------------------------------------


@EVERY_PRECISION
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_float64_is_never_touched(cell, precision):
    case = make_case(cell, {}, (3, 20, 9, 33), "float64")
    expected = case.run(functional)
    on_tiles(precision)
    for name, array in case.run(functional).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("precision", "N", "H", "tiles"),
    [
        ("high", 15, 64, False),
        ("high", 64, 63, False),
        ("high", 16, 64, True),
        ("medium", 15, 64, False),
        ("medium", 64, 47, False),
        ("medium", 16, 48, True),
    ],
)
def test_small_batches_and_layers_stay_with_float32(precision, N, H, tiles):
    case = make_case("gru", {}, (2, N, 40, H), "float32")
    expected = case.forward(functional, training=False)[0]
    on_tiles(precision, at_any_size=False)
    assert np.array_equal(case.forward(functional, training=False)[0], expected) is not tiles


def test_streams_stay_with_float32():
    layer = fastrnn.LSTM(5, 33, rng=0)
    x = np.random.default_rng(1).standard_normal((4, 20, 5)).astype(np.float32)
    expected, _ = layer(x)
    on_tiles("medium")
    stream = layer.stream(batch_size=20)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), expected)
    assert not np.array_equal(layer(x)[0], expected)


# ---- Numbers ---------------------------------------------------------------------------------------------------------

# One tile and less; a part of a second row tile; beside whole blocks of units, rows, and 32 terms of a sum.
SHAPES = [(3, 5, 7, 9), (2, 16, 32, 64), (3, 37, 40, 50), (2, 70, 1, 33)]


@EVERY_PRECISION
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_cell
def test_against_the_reference(cell, options, shape, precision):
    case = tame(make_case(cell, options, shape, "float32"))
    expected = expect(case)
    in_float32 = case.run(functional)
    on_tiles(precision)
    actual = case.run(functional)
    if options == {"nonlinearity": "relu"} and precision == "medium":  # of some units it rounds to the other side of 0,
        expected = {name: expected[name] for name in ("output", "h_n")}  # and the derivative there is another one
        actual = {name: actual[name] for name in expected}
    assert_within(actual, expected, TOLERANCE[precision])
    assert not np.array_equal(actual["output"], in_float32["output"]), "float32 ran instead"


@every_cell_and_variant
def test_variants_over_time(cell, options):
    """With lengths in any order, resets and reversed time; more rows than a packed panel of a weight's gradient spans.

    The seed is one with which no unit rounds to the other side of a kink of its hard sigmoid or clip.
    """
    case = tame(make_case(cell, options, (14, 38, 20, 35), "float32", seed=1))
    case = replace(case, **over_time(case), reverse=True)
    expected = expect(case)
    on_tiles("high")
    assert_within(case.run(functional), expected, TOLERANCE["high"])


MEETING = [*CELLS[-3:], ("lstm", {"peephole": True, "projection": True})]


# The second: units whose last pair of blocks two threads share, gradients of weights in several packed panels.
@pytest.mark.parametrize("shape", [(7, 41, 20, 100), (16, 41, 32, 24)], ids=str)
@pytest.mark.parametrize("by_units", [False, True])
@EVERY_PRECISION
@pytest.mark.parametrize(("cell", "options"), MEETING, ids=[cell_id(*c) for c in MEETING])
def test_bitwise_equal_for_every_thread_count(cell, options, precision, by_units, shape):
    case = tame(make_case(cell, options, shape, "float32"))
    case = replace(case, **over_time(case))
    on_tiles(precision)
    _native.force_plan(threads=1)
    expected = case.run(functional)
    assert_within(expected, expect(case), TOLERANCE[precision])
    for plan in ({"threads": 2}, {"threads": 3}, {"threads": 3, "chunk": 2, "partitions": 2}):
        _native.force_plan(by_units=by_units, **plan)
        for name, array in case.run(functional).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} with {plan}")


@EVERY_PRECISION
@pytest.mark.parametrize(("T", "N", "D", "M"), [(1, 3, 5, 7), (3, 37, 65, 33), (9, 50, 40, 64)])
def test_numbers_of_eight_bits_are_exact(T, N, D, M, precision):
    """bfloat16 holds integers up to 256, float32 their sums of products: not a bit may be missing or misplaced."""
    rng = np.random.default_rng([T, N, D, M])
    x, weight, bias, dy = (
        rng.integers(-128, 129, shape).astype(np.float32) for shape in ((T, N, D), (M, D), (M,), (T, N, M))
    )
    on_tiles(precision)
    y, cache = functional.linear_forward(x, weight, bias, training=True)
    np.testing.assert_array_equal(y, x @ weight.T + bias)
    grads = functional.linear_backward(dy, cache)
    np.testing.assert_array_equal(grads["x"], dy @ weight)
    np.testing.assert_array_equal(grads["weight"], np.einsum("tnm,tnd->md", dy, x))
    np.testing.assert_array_equal(grads["bias"], dy.sum((0, 1)))


def test_high_keeps_sixteen_bits():
    """One term per sum: its relative error is that of two factors of 8 or 16 bits, and for 16 of lo * lo, left out."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 500, 1)).astype(np.float32), rng.standard_normal((40, 1)).astype(np.float32)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    for precision, bits in (("high", 16), ("medium", 8)):
        on_tiles(precision)
        error = np.abs(functional.linear_forward(x, weight, None)[0] / exact - 1).max()
        assert 2.0 ** -(bits + 1) < error < 2.0 ** -(bits - 1)


@EVERY_PRECISION
def test_nan_stays_in_its_row_and_infinity_saturates(precision):
    case = make_case("lstm", {}, (2, 40, 33, 34), "float32")
    case.x[:, 20, 5] = np.nan
    case.x.view(np.uint32)[:, 21, 5] = 0x7F800001  # a NaN whose upper half alone, a bfloat16, is infinity
    case.x[0, 3, 7], case.x[1, 30, 32] = np.inf, -np.inf
    case.x[0, 10, :] = 1e30
    on_tiles(precision)
    output = case.forward(functional, training=False)[0]
    assert np.isnan(output[:, 20:22]).all()
    assert np.isfinite(np.delete(output, [20, 21], axis=1)).all()
    _native.emulate_amx(False)
    saturated = case.forward(functional, training=False)[0]
    np.testing.assert_allclose(output[0, [3, 10]], saturated[0, [3, 10]], rtol=0, atol=2e-2)


@EVERY_PRECISION
def test_backward_runs_as_forward_did(precision):
    """A cache knows its kernels: the setting may change in between."""
    case = tame(make_case("gru", {}, (3, 20, 10, 33), "float32"))
    on_tiles(precision)
    expected = case.run(functional)
    cache = case.forward(functional)[-1]
    fastrnn.set_matmul_precision("highest")
    _native.emulate_amx(False)
    for name, gradient in case.backward(functional, cache).items():
        np.testing.assert_array_equal(gradient, expected["d" + name])


def test_layers_with_strided_arrays_train():
    """A stacked, bidirectional, batch-first layer: halves of outputs and gradients are views."""
    rng = np.random.default_rng(3)
    x, doutput = rng.standard_normal((20, 6, 9)), rng.standard_normal((20, 6, 70))
    results = []
    for dtype in (np.float64, np.float32):
        layer = fastrnn.LSTM(9, 35, 2, batch_first=True, bidirectional=True, rng=1, dtype=np.float64)
        layer = (
            fastrnn.LSTM(9, 35, 2, batch_first=True, bidirectional=True, dtype=dtype) if dtype is np.float32 else layer
        )
        if results:
            layer.load_state_dict({name: value.astype(dtype) for name, value in results[0][0].items()})
            on_tiles("high")
        output, _ = layer(x.astype(dtype), training=True)
        dx, _ = layer.backward(doutput.astype(dtype))
        results.append(
            (layer.state_dict(), {"output": output, "dx": dx, **{"d" + k: v for k, v in layer.grads.items()}})
        )
    assert_within(results[1][1], results[0][1], TOLERANCE["high"])
