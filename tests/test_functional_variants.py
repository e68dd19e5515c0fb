"""The compiled core against the float64 reference: the cells' variants, and lengths, resets and reversed time.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, M outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import (
    CELLS,
    CELLS_MORE,
    STATES,
    Case,
    assert_gradient_close,
    assert_output_close,
    assert_results_close,
    every_cell,
    every_cell_and_variant,
    every_dtype,
    every_variant,
    expect,
    make_case,
    over_time,
)

from fastrnn import functional, reference

SHAPES = [(1, 1, 1, 1), (2, 1, 3, 5), (7, 3, 5, 17), (2, 14, 6, 33), (4, 21, 19, 50)]  # T, N, D, H
OVER_TIME = ["lengths", "reset_mask", "reverse", "lengths-reverse", "all"]
every_way_over_time = pytest.mark.parametrize("ways", OVER_TIME)
ALL = CELLS + CELLS_MORE


def with_ways(case: Case, ways: str, seed: int = 0) -> Case:
    """`case` with the named of lengths, reset_mask and reverse."""
    random = over_time(case, seed)
    names = ["lengths", "reset_mask", "reverse"] if ways == "all" else ways.split("-")
    return replace(case, **{name: random.get(name, True) for name in names})


@cache
def case_and_expected(index: int, shape: tuple[int, ...], dtype: str, ways: str = "") -> tuple[Case, dict[str, Any]]:
    """Cached, as every instruction set meets the same cases; `index` is into ALL."""
    case = make_case(*ALL[index], shape, dtype)
    case = with_ways(case, ways) if ways else case
    return case, expect(case)


# --- Variants of the cells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_dtype
@every_variant
def test_variants_match_reference(cell, options, dtype, shape, isa):
    case, expected = case_and_expected(ALL.index((cell, options)), shape, dtype)
    assert_results_close(case.run(functional), expected, dtype)


@every_dtype
@every_variant
def test_variants_at_every_tile_edge(cell, options, dtype, isa):
    """Every row remainder, with hidden sizes around the vector widths; P follows H."""
    for k, N in enumerate((1, 2, 3, 4, 5, 6, 7, 13, 1, 9)):
        shape = (2, N, (1, 16, 28)[k % 3], (1, 7, 16, 33, 64)[k % 5])
        case, expected = case_and_expected(ALL.index((cell, options)), shape, dtype)
        try:
            assert_results_close(case.run(functional), expected, dtype)
        except AssertionError as error:
            raise AssertionError(f"(T, N, D, H) = {shape}") from error


@pytest.mark.parametrize("output_activation", [None, "softmax"])
@every_dtype
@every_variant
def test_variant_cells_match_reference(cell, options, dtype, output_activation, isa):
    case = make_case(cell, options, (1, 5, 6, 9), dtype)
    P = case.doutput.shape[-1]
    rng = np.random.default_rng(4)
    head = dict(zip(["weight_hy", "bias_y"], [rng.standard_normal(size).astype(dtype) for size in [(3, P), 3]]))
    dy = rng.standard_normal((5, 3)).astype(dtype)

    def run(module, case):
        cast = case.x.dtype.type
        extra = {} if output_activation is None else {k: v.astype(cast) for k, v in head.items()}
        extra |= {} if output_activation is None else {"output_activation": output_activation}
        *outputs, cache = getattr(module, cell + "_cell_forward")(
            case.x[0], *case.state, *case.weights, **case.options, **case.extra, **extra
        )
        grads = getattr(module, cell + "_cell_backward")(*case.dstate, cache, dy=dy.astype(cast) if extra else None)
        names = [s + "_next" for s in STATES[cell]] + ["y"] * bool(extra)
        return dict(zip(names, outputs, strict=True)) | {"d" + name: grad for name, grad in grads.items()}

    assert_results_close(run(functional, case), run(reference, case.astype(np.float64)), dtype)


@every_variant
def test_variant_arguments_may_be_missing(cell, options, isa):
    """None for states, gradients and biases, and `into` under every key."""
    case = make_case(cell, options, (3, 4, 5, 6), "float64")
    nothing = (None,) * len(STATES[cell])
    weights = (*case.weights[:2], None, case.weights[3])
    for missing in ({"state": nothing}, {"dstate": nothing}, {"doutput": None}, {"weights": weights}):
        variant = replace(case, **missing)
        assert_results_close(variant.run(functional), expect(variant), "float64")
    expected = expect(case)
    into = {name[1:]: np.ones_like(value) for name, value in expected.items() if name.startswith("d")}
    grads = case.backward(functional, case.forward(functional)[-1], into=into)
    for name, grad in grads.items():
        assert grad is into[name]
        assert_output_close(grad, 1 + expected["d" + name], "float64", name)


@every_dtype
@every_variant
def test_variants_keep_nan_in_its_row(cell, options, dtype, isa):
    case = make_case(cell, options, (5, 6, 4, 9), dtype)
    clean = case.run(functional)
    x = case.x.copy()
    x[1, 3, 0] = np.nan
    results = replace(case, x=x).run(functional)
    others = np.arange(6) != 3
    assert np.isnan(results["output"][1:, 3]).all(), "swallowed"
    np.testing.assert_array_equal(results["output"][:1], clean["output"][:1])
    for name in ("output", "dx"):
        np.testing.assert_array_equal(results[name][:, others], clean[name][:, others], err_msg=name)


@every_dtype
@every_variant
def test_variants_saturate(cell, options, dtype, isa):
    """Pre-activations of 20,000 and more, of either sign: as the reference, which has no NaN and no overflow there.

    relu and identity do not saturate: their cell states grow with the input, which the relative tolerance allows for.
    """
    size = np.array([3.0, 40, 100, 20000, 1e6], dtype)
    x = np.concatenate([size, -size])[:, None]
    case = make_case(cell, options, (1, len(x), 1, 5), dtype)
    weights = (np.ones_like(case.weights[0]), *case.weights[1:])
    case = replace(case, x=x[None], weights=weights)
    expected, results = expect(case), case.run(functional)
    assert all(np.isfinite(value).all() for value in expected.values())
    for name in ["output", *(s + "_n" for s in STATES[cell]), "dx", *(f"d{s}0" for s in STATES[cell])]:
        assert_output_close(results[name], expected[name], dtype, name)


@every_dtype
@every_cell_and_variant
def test_no_input_at_all(cell, options, dtype, isa):
    """D = 0, the autonomous recurrence."""
    case = make_case(cell, options, (4, 3, 0, 7), dtype)
    results = case.run(functional)
    assert results["dx"].shape == (4, 3, 0)
    assert_results_close(results, expect(case), dtype)


# --- Lengths, resets, reversed time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_way_over_time
@every_dtype
@every_cell
def test_over_time_matches_reference(cell, options, dtype, ways, shape, isa):
    case, expected = case_and_expected(ALL.index((cell, options)), shape, dtype, ways)
    assert_results_close(case.run(functional), expected, dtype)
    *outputs, cache = case.forward(functional, training=False)
    assert cache is None
    assert_output_close(outputs[0], expected["output"], dtype)


@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
@every_dtype
@every_variant
def test_variants_over_time_match_reference(cell, options, dtype, shape, isa):
    case, expected = case_and_expected(ALL.index((cell, options)), shape, dtype, "all")
    assert_results_close(case.run(functional), expected, dtype)


@every_cell_and_variant
def test_over_time_at_every_tile_edge(cell, options, isa):
    """Every number of rows, so that the active batch shrinks through every row remainder."""
    for N in range(1, 16):
        ways = ("lengths", "lengths-reverse", "all")[N % 3]
        case, expected = case_and_expected(ALL.index((cell, options)), (4, N, 3, 9), "float64", ways)
        try:
            assert_results_close(case.run(functional), expected, "float64")
        except AssertionError as error:
            raise AssertionError(f"N = {N}, {ways}") from error


@every_way_over_time
@every_cell
def test_strided_views_over_time(cell, options, ways, isa):
    """x, doutput and out as a bidirectional, batch-first layer hands them over: half of a wider output."""
    case, expected = case_and_expected(ALL.index((cell, options)), (7, 3, 5, 17), "float64", ways)
    T, N, H = case.doutput.shape
    wide = np.full((N, T, 2 * H), 7.0)
    out, doutput = wide.swapaxes(0, 1)[..., H:], np.zeros((N, T, 2 * H)).swapaxes(0, 1)[..., H:]
    doutput[...] = case.doutput
    x = np.ascontiguousarray(case.x.swapaxes(0, 1)).swapaxes(0, 1)
    strided = replace(case, x=x, doutput=doutput)
    output, *_, cache = strided.forward(functional, out=out)
    assert output is out and (wide[..., :H] == 7).all(), "wrote beside out"
    assert_output_close(out, expected["output"], "float64")
    for name, grad in strided.backward(functional, cache).items():
        assert_gradient_close(grad, expected["d" + name], "float64", name)


@every_dtype
@every_cell
def test_padding_is_never_looked_at(cell, options, dtype, isa):
    """NaN in x and doutput beyond the lengths, in either direction, changes no bit of any result."""
    for ways in ("lengths", "lengths-reverse", "all"):
        case, _ = case_and_expected(ALL.index((cell, options)), (7, 3, 5, 17), dtype, ways)
        clean = case.run(functional)
        beyond = np.arange(7)[:, None] >= case.lengths
        x, doutput = case.x.copy(), case.doutput.copy()
        x[beyond] = doutput[beyond] = np.nan
        for name, array in replace(case, x=x, doutput=doutput).run(functional).items():
            np.testing.assert_array_equal(array, clean[name], err_msg=name)


@every_cell
def test_reset_forgets_nan(cell, options, isa):
    """A state that is NaN is zeroed too, and what comes after is bitwise as if it had never been."""
    case = make_case(cell, options, (5, 4, 3, 8), "float32")
    mask = np.zeros((5, 4), bool)
    mask[2, 1] = True
    case = replace(case, reset_mask=mask)
    clean = case.run(functional)
    x = case.x.copy()
    x[1, 1] = np.nan
    results = replace(case, x=x).run(functional)
    assert np.isnan(results["output"][1, 1]).all()
    np.testing.assert_array_equal(results["output"][2:], clean["output"][2:])
    np.testing.assert_array_equal(results["dx"][2:], clean["dx"][2:])


@every_cell
def test_mask_may_change_after_the_forward(cell, options):
    case = make_case(cell, options, (5, 4, 3, 8), "float32")
    case = replace(case, **over_time(case))
    expected = case.run(functional)
    cache = case.forward(functional)[-1]
    case.reset_mask[...] = ~case.reset_mask
    for name, grad in case.backward(functional, cache).items():
        np.testing.assert_array_equal(grad, expected["d" + name], err_msg=name)


@every_cell
def test_lengths_of_any_kind(cell, options, isa):
    """Integers of any width, a list, a strided view; lengths that are all T or all 0."""
    case = make_case(cell, options, (4, 3, 5, 6), "float64")
    expected = expect(replace(case, lengths=np.array([2, 0, 4])))
    for lengths in (
        [2, 0, 4],
        *(np.array([2, 0, 4], kind) for kind in ("i1", "u2", "i4", "u8")),
        np.array([2, 9, 0, 9, 4, 9])[::2],
    ):
        assert_results_close(replace(case, lengths=lengths).run(functional), expected, "float64")
    same = replace(case, lengths=[4, 4, 4], reset_mask=np.zeros((4, 3), bool)).run(functional)
    for name, array in case.run(functional).items():
        np.testing.assert_array_equal(array, same[name], err_msg=name)
    nothing = replace(case, lengths=[0, 0, 0]).run(functional)
    assert not nothing["output"].any() and not nothing["dx"].any() and not nothing["dweight_hh"].any()
    for s, state, dstate in zip(STATES[cell], case.state, case.dstate):
        np.testing.assert_array_equal(nothing[s + "_n"], state)
        np.testing.assert_array_equal(nothing[f"d{s}0"], dstate)


# --- Everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_random_configurations(cell, isa):
    """Forty configurations of sizes, forms, dtypes, missing arguments and ways over time."""
    rng = np.random.default_rng(2025)
    forms = [options for name, options in ALL if name == cell]
    for trial in range(40):
        shape = (int(rng.integers(1, 9)), int(rng.integers(1, 41)), int(rng.integers(0, 30)), int(rng.integers(1, 41)))
        dtype = str(rng.choice(["float32", "float64"]))
        options = forms[rng.integers(len(forms))]
        case = make_case(cell, options, shape, dtype, seed=trial)

        def some(arrays, chance):
            return tuple(None if rng.random() < chance else a for a in arrays)

        case = replace(
            case,
            state=some(case.state, 0.2),
            dstate=some(case.dstate, 0.3),
            doutput=None if rng.random() < 0.15 else case.doutput,
            weights=case.weights[:2] + some(case.weights[2:], 0.25),
        )
        if rng.random() < 0.8:
            case = with_ways(case, OVER_TIME[rng.integers(len(OVER_TIME))], seed=trial)
        try:
            assert_results_close(case.run(functional), expect(case), dtype)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {options}, {shape}, {dtype}, {case.keywords()}") from error


@pytest.fixture
def plan() -> Iterator[Any]:
    """`_native.force_plan`: calls as small as these would choose one thread. Restored afterwards."""
    from fastrnn import _native

    yield _native.force_plan
    _native.force_plan()


# By batch; one row; few rows with weights beyond a core's cache; long and thin.
@pytest.mark.parametrize("shape", [(3, 70, 28, 64), (5, 1, 40, 96), (2, 3, 40, 320), (12, 17, 8, 12)], ids=str)
@every_cell_and_variant
def test_bitwise_equal_however_work_is_shared(cell, options, shape, plan):
    plans = [
        {"threads": 2},
        {"threads": 3, "by_units": True},
        {"threads": 3, "by_units": False, "partitions": 4, "chunk": 1},
    ]
    for ways in ("", "all"):
        case = make_case(cell, options, shape, "float32")
        case = with_ways(case, ways) if ways else case
        plan(threads=1)
        expected = case.run(functional)
        for forced in plans:
            plan(**forced)
            for name, array in case.run(functional).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} with {forced} {ways}")


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_inputs_ahead_of_rows_of_different_lengths(cell, plan):
    """Chunks of steps whose rows are fewer and fewer: no thread may project into what another still reads."""
    case = make_case(cell, {}, (700, 24, 8, 64), "float32")
    case = replace(case, lengths=np.linspace(1, 700, 24).astype(int))
    plan(threads=1, fused=False)
    expected = case.forward(functional, training=False)[0]
    for n in (2, 3, 4):
        plan(threads=n, by_units=False, fused=False)
        for _ in range(3):
            np.testing.assert_array_equal(case.forward(functional, training=False)[0], expected)


# --- Output feedback --------------------------------------------------------------------------------------------------

JORDANS = [("tanh", "identity"), ("relu", "tanh"), ("sigmoid", "relu"), ("identity", "sigmoid"), ("tanh", "softmax")]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (7, 3, 5, 17, 2), (2, 14, 0, 9, 33)], ids=str)  # T, N, D, H, M
@pytest.mark.parametrize("nonlinearity, output_activation", JORDANS)
@every_dtype
def test_jordan_matches_reference(dtype, nonlinearity, output_activation, shape, isa):
    T, N, D, H, M = shape
    rng = np.random.default_rng([6, *shape])
    sizes = [(T, N, D), (N, M), (H, D), (H, M), (H,), (M, H), (M,), (T, N, M), (N, M)]
    arrays = [(0.5 * rng.standard_normal(size)).astype(dtype) for size in sizes]
    lengths, reset_mask = rng.integers(0, T + 1, N), rng.random((T, N)) < 0.2

    def run(module, arrays, **keywords):
        *inputs, dy, dy_n = arrays
        y, y_n, cache = module.jordan_forward(
            *inputs, nonlinearity=nonlinearity, output_activation=output_activation, **keywords
        )
        grads = module.jordan_backward(dy, dy_n, cache)
        return {"y": y, "y_n": y_n} | {"d" + name: grad for name, grad in grads.items()}

    for keywords in ({}, {"lengths": lengths}, {"lengths": lengths, "reset_mask": reset_mask}):
        for given in (arrays, [None if k in (1, 4, 6) else a for k, a in enumerate(arrays)]):
            expected = run(reference, [None if a is None else a.astype(np.float64) for a in given], **keywords)
            assert_results_close(run(functional, given, **keywords), expected, dtype)


@pytest.mark.parametrize("H", [3, 90])  # what a step needs while it runs is on the stack, and elsewhere
def test_a_step_takes_words_that_are_equal_to_its_defaults_but_other_objects(H):
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal((2, width)).astype(np.float32) for width in (4, H, H))
    for cell, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        shapes = ((gates * H, 4), (gates * H, H), (gates * H,), (gates * H,))
        weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        state = (h, c) if cell == "lstm" else (h,)
        step = getattr(functional, f"{cell}_cell_forward")
        words = {"nonlinearity": "tanh"} if cell == "rnn" else {"activation": "tanh", "gate_activation": "sigmoid"}
        others = {name: "".join(list(word)) for name, word in words.items()}
        assert all(others[name] is not word for name, word in words.items())
        expected = step(x, *state, *weights)[: len(state)]
        for found in (
            step(x, *state, *weights, **others),
            step(x, *state, *weights, output_activation="".join("identity")),
        ):
            for a, b in zip(found, expected):
                assert np.array_equal(a, b)
