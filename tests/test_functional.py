"""The compiled core against the float64 reference, and what it promises beyond numbers.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, M outputs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import (
    CELLS,
    STATES,
    Case,
    assert_gradient_close,
    assert_output_close,
    assert_results_close,
    every_cell,
    every_dtype,
    expect,
    make_case,
)

from fastrnn import functional, reference

SHAPES = [(1, 1, 1, 1), (2, 1, 3, 5), (7, 3, 5, 17), (5, 33, 19, 50)]  # T, N, D, H
OUTPUT_ACTIVATIONS = ["identity", "softmax", "sigmoid", "tanh", "relu"]
SATURATING = [(cell, options) for cell, options in CELLS if options.get("nonlinearity") not in ("relu", "identity")]


@cache
def case_and_expected(index: int, shape: tuple[int, ...], dtype: str) -> tuple[Case, dict[str, Any]]:
    """Cached, as every instruction set meets the same cases; `index` is into CELLS."""
    case = make_case(*CELLS[index], shape, dtype)
    return case, expect(case)


# --- Values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_dtype
@every_cell
def test_matches_reference(cell, options, dtype, shape, isa):
    case, expected = case_and_expected(CELLS.index((cell, options)), shape, dtype)
    assert_results_close(case.run(functional), expected, dtype)


@every_dtype
@every_cell
def test_every_tile_edge(cell, options, dtype, isa):
    """Every row remainder against hidden sizes around every vector width, D cycling through its own."""
    k = 0
    for H in (1, 7, 8, 16, 33, 64, 100):
        for N in range(1, 14):
            shape = (2, N, (1, 16, 28, 70)[k % 4], H)
            k += 1
            case = make_case(cell, options, shape, dtype)
            try:
                assert_results_close(case.run(functional), expect(case), dtype)
            except AssertionError as error:
                raise AssertionError(f"(T, N, D, H) = {shape}") from error


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_random_configurations(cell, isa):
    """Sixty configurations at once of sizes, options, dtypes, missing arguments and layouts."""
    rng = np.random.default_rng(2024)
    forms = [options for name, options in CELLS if name == cell]
    for trial in range(60):
        shape = (int(rng.integers(0, 9)), *(int(rng.integers(1, 41)) for _ in range(3)))
        dtype = str(rng.choice(["float32", "float64"]))
        case = make_case(cell, forms[rng.integers(len(forms))], shape, dtype, seed=trial)

        def some(arrays, chance):
            return tuple(None if rng.random() < chance else a for a in arrays)

        case = replace(
            case,
            state=some(case.state, 0.2),
            dstate=some(case.dstate, 0.3),
            doutput=None if rng.random() < 0.15 else case.doutput,
            weights=case.weights[:2] + some(case.weights[2:], 0.25),
        )
        if rng.random() < 0.3:
            case = replace(case, x=case.x[::-1])
        if rng.random() < 0.3:
            case = replace(case, x=np.ascontiguousarray(case.x.swapaxes(0, 1)).swapaxes(0, 1))
        if rng.random() < 0.3 and case.doutput is not None:
            case = replace(case, doutput=np.concatenate([case.doutput, case.doutput], axis=2)[:, :, : shape[3]])
        try:
            assert_results_close(case.run(functional), expect(case), dtype)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {case.options} {shape} {dtype}") from error


@every_dtype
@every_cell
def test_no_time_steps(cell, options, dtype, isa):
    case = make_case(cell, options, (0, 2, 3, 4), dtype)
    results = case.run(functional)
    assert_results_close(results, expect(case), dtype)
    for s, state, dstate in zip(STATES[cell], case.state, case.dstate):
        assert not np.shares_memory(results[s + "_n"], state) and not np.shares_memory(results[f"d{s}0"], dstate)


@pytest.mark.parametrize("output_activation", [None, *OUTPUT_ACTIVATIONS])
@every_dtype
@every_cell
def test_cells_match_reference(cell, options, dtype, output_activation, isa):
    case = make_case(cell, options, (1, 5, 6, 9), dtype)
    rng = np.random.default_rng(4)
    weight_hy, bias_y, dy = (rng.standard_normal(size).astype(dtype) for size in [(3, 9), 3, (5, 3)])

    def run(module, case, head):
        *outputs, cache = getattr(module, cell + "_cell_forward")(
            case.x[0], *case.state, *case.weights, **options, **head
        )
        grads = getattr(module, cell + "_cell_backward")(
            *case.dstate, cache, dy=dy.astype(case.x.dtype) if head else None
        )
        names = [s + "_next" for s in STATES[cell]] + ["y"] * bool(head)
        return dict(zip(names, outputs, strict=True)) | {"d" + name: grad for name, grad in grads.items()}

    for bias in (bias_y, None):
        head = (
            {}
            if output_activation is None
            else {"weight_hy": weight_hy, "bias_y": bias, "output_activation": output_activation}
        )
        head64 = {k: v.astype(np.float64) if isinstance(v, np.ndarray) else v for k, v in head.items()}
        expected = run(reference, case.astype(np.float64), head64)
        assert_results_close(run(functional, case, head), expected, dtype)


@every_dtype
@every_cell
def test_cell_arguments_may_be_none(cell, options, dtype, isa):
    """Zero states and zero incoming gradients, by None; dy alone must reach every gradient."""
    case = make_case(cell, options, (1, 2, 3, 4), dtype, bias=False)
    weight_hy = np.random.default_rng(4).standard_normal((3, 4)).astype(dtype)
    dy = np.random.default_rng(5).standard_normal((2, 3)).astype(dtype)
    nothing = (None,) * len(STATES[cell])

    def run(module, cast):
        weights = (*map(cast, case.weights[:2]), None, None)
        *outputs, cache = getattr(module, cell + "_cell_forward")(
            cast(case.x[0]), *nothing, *weights, weight_hy=cast(weight_hy), **options
        )
        grads = getattr(module, cell + "_cell_backward")(*nothing, cache, dy=cast(dy))
        return {f"{k}": a for k, a in enumerate(outputs)} | {"d" + name: grad for name, grad in grads.items()}

    assert_results_close(run(functional, lambda a: a), run(reference, lambda a: a.astype(np.float64)), dtype)


@pytest.mark.parametrize("leading", [(), (3,), (0, 2), (7, 5), (2, 3, 33)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@every_dtype
def test_linear_matches_reference(dtype, bias, leading, isa):
    rng = np.random.default_rng(8)
    sizes = [(*leading, 19), (10, 19), (10,), (*leading, 10)]
    x, weight, b, dy = (rng.standard_normal(size).astype(dtype) for size in sizes)

    def run(module, *arrays):
        x, weight, b, dy = arrays
        y, cache = module.linear_forward(x, weight, b if bias else None)
        return {"y": y} | {"d" + name: grad for name, grad in module.linear_backward(dy, cache).items()}

    expected = run(reference, *(a.astype(np.float64) for a in (x, weight, b, dy)))
    assert_results_close(run(functional, x, weight, b, dy), expected, dtype)


@every_dtype
def test_linear_into_accumulates(dtype, isa):
    """Also into an x that is a strided view, as the columns of a wider buffer are."""
    rng = np.random.default_rng(8)
    x, weight, bias, dy = (rng.standard_normal(size).astype(dtype) for size in [(3, 2, 6), (4, 6), (4,), (3, 2, 4)])
    _, cache = functional.linear_forward(x, weight, bias)
    expected = functional.linear_backward(dy, cache)
    wide = np.ones((2, 3, 9), dtype)
    into = {"x": wide.swapaxes(0, 1)[..., 2:8], "weight": np.ones((4, 6), dtype), "bias": np.ones(4, dtype)}
    for chosen in (["x"], ["weight"], ["x", "weight", "bias"]):
        wide[...], into["weight"][...], into["bias"][...] = 1, 1, 1
        _, cache = functional.linear_forward(x, weight, bias)
        grads = functional.linear_backward(dy, cache, into={name: into[name] for name in chosen})
        for name in ("x", "weight", "bias"):
            assert (grads[name] is into[name]) == (name in chosen)
            assert_output_close(grads[name], expected[name] + (1 if name in chosen else 0), dtype, name)
    assert (wide[..., :2] == 1).all() and (wide[..., 8:] == 1).all(), "wrote beside into"


# --- Arguments that may be missing, strided, or given to write into ---------------------------------------------------


@every_dtype
@every_cell
def test_none_means_zeros(cell, options, dtype, isa):
    case = make_case(cell, options, (3, 2, 5, 6), dtype)
    nothing = (None,) * len(STATES[cell])
    for missing in ({"state": nothing}, {"dstate": nothing}, {"doutput": None}, {"doutput": None, "dstate": nothing}):
        results = replace(case, **missing).run(functional)
        assert_results_close(results, expect(replace(case, **missing)), dtype)
    assert not any(results[name].any() for name in results if name.startswith("d"))


@pytest.mark.parametrize("missing", [(2,), (3,), (2, 3)], ids=["bias_ih", "bias_hh", "both"])
@every_dtype
@every_cell
def test_bias_may_be_none(cell, options, dtype, missing, isa):
    case = make_case(cell, options, (3, 2, 5, 6), dtype)
    case = replace(case, weights=tuple(None if k in missing else w for k, w in enumerate(case.weights)))
    assert_results_close(case.run(functional), expect(case), dtype)


def assert_inference_close(case: Case, expected: dict[str, Any], dtype: str) -> None:
    """Without gates to keep, an LSTM is calculated in other words."""
    *outputs, cache = case.forward(functional, training=False)
    assert cache is None
    for array, name in zip(outputs, ["output", *(s + "_n" for s in STATES[case.cell])], strict=True):
        assert_output_close(array, expected[name], dtype, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_dtype
@every_cell
def test_inference_keeps_no_cache(cell, options, dtype, shape, isa):
    case, expected = case_and_expected(CELLS.index((cell, options)), shape, dtype)
    assert_inference_close(case, expected, dtype)


@pytest.mark.parametrize("layout", ["reversed", "batch_first", "columns", "batch_first_reversed"])
@every_dtype
@every_cell
def test_strided_views(cell, options, dtype, layout, isa):
    """x, doutput and out as layers hand them over: one direction of two, reversed in time, batch first."""
    T, N, D, H = 5, 4, 6, 9
    case, expected = case_and_expected(CELLS.index((cell, options)), (T, N, D, H), dtype)

    def buffer(width):
        """A view of shape (T, N, width) in this layout, in the middle of a buffer of sevens."""
        wide = np.full((N, T, width + 5) if "batch_first" in layout else (T, N, width + 5), 7, dtype)
        view = wide.swapaxes(0, 1) if "batch_first" in layout else wide
        view = view[::-1] if "reversed" in layout else view
        return wide, view[:, :, 2 : width + 2]

    x, doutput = buffer(D)[1], buffer(H)[1]
    x[...], doutput[...] = case.x, case.doutput
    wide, out = buffer(H)
    strided = replace(case, x=x, doutput=doutput)
    output, *state_n, cache = strided.forward(functional, out=out)
    assert output is out
    assert (wide[..., :2] == 7).all() and (wide[..., H + 2 :] == 7).all(), "wrote beside out"
    results = {"output": output} | {s + "_n": a for s, a in zip(STATES[cell], state_n, strict=True)}
    grads = strided.backward(functional, cache)
    assert_results_close(results | {"d" + name: grad for name, grad in grads.items()}, expected, dtype)
    output, *_, cache = strided.forward(functional, out=out, training=False)
    assert output is out and cache is None
    assert_output_close(out, expected["output"], dtype)


@every_cell
def test_other_layouts_are_right_or_refused(cell, options, isa):
    """An argument whose last axis is strided (as a transposed weight is) gives right results or an error naming it."""
    case, expected = case_and_expected(CELLS.index((cell, options)), (4, 3, 5, 6), "float64")

    def spread(a):
        """The same values with a gap after every entry."""
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 7.0)
        wide[..., ::2] = a
        return wide[..., ::2]

    variants = {"x": replace(case, x=spread(case.x)), "doutput": replace(case, doutput=spread(case.doutput))}
    for k, s in enumerate(STATES[cell]):
        state, dstate = list(case.state), list(case.dstate)
        state[k], dstate[k] = spread(state[k]), spread(dstate[k])
        variants[s + "0"] = replace(case, state=tuple(state))
        variants[f"d{s}_n"] = replace(case, dstate=tuple(dstate))
    for k, name in enumerate(["weight_ih", "weight_hh", "bias_ih", "bias_hh"]):
        weights = tuple(spread(w) if i == k else w for i, w in enumerate(case.weights))
        variants[name] = replace(case, weights=weights)
    for name, variant in variants.items():
        try:
            results = variant.run(functional)
        except ValueError as error:
            assert str(error).startswith(name + ":"), error
        else:
            assert_results_close(results, expected, "float64")


@every_dtype
@every_cell
def test_into_accumulates(cell, options, dtype, isa):
    case, expected = case_and_expected(CELLS.index((cell, options)), (7, 3, 5, 17), dtype)
    names = [name[1:] for name in expected if name.startswith("d")]
    for chosen in (names, ["weight_hh", "bias_ih"], ["x"]):
        rng = np.random.default_rng(1)
        into = {name: rng.standard_normal(expected["d" + name].shape).astype(dtype) for name in chosen}
        before = {name: array.copy() for name, array in into.items()}
        grads = case.backward(functional, case.forward(functional)[-1], into=into)
        assert list(grads) == names
        for name in names:
            if name in chosen:
                assert grads[name] is into[name]
                assert_output_close(grads[name], before[name] + expected["d" + name], dtype, name)
            else:
                assert_gradient_close(grads[name], expected["d" + name], dtype, name)


@every_cell
def test_into_a_strided_view(cell, options, isa):
    """Right or refused, never added to a copy that is thrown away."""
    case, expected = case_and_expected(CELLS.index((cell, options)), (4, 3, 5, 6), "float64")
    for name in [name[1:] for name in expected if name.startswith("d")]:
        shape = expected["d" + name].shape
        wide = np.ones((*shape[:-1], 2 * shape[-1]))
        for view in (wide[..., : shape[-1]], wide[..., ::2], wide[..., : shape[-1]][::-1]):
            wide[...] = 1
            try:
                grads = case.backward(functional, case.forward(functional)[-1], into={name: view})
            except ValueError as error:
                assert name in str(error)
            else:
                assert grads[name] is view
                assert_output_close(view, 1 + expected["d" + name], "float64", name)


@every_cell
def test_arguments_are_left_alone(cell, options, isa):
    case = make_case(cell, options, (4, 3, 5, 6), "float32")
    copy = case.astype(np.float32)
    case.run(functional)
    for ours, theirs in [
        (case.x, copy.x),
        (case.doutput, copy.doutput),
        *zip(case.state, copy.state),
        *zip(case.dstate, copy.dstate),
        *zip(case.weights, copy.weights),
    ]:
        np.testing.assert_array_equal(ours, theirs)


@every_cell
def test_read_only_arguments(cell, options, isa):
    """Arrays from safetensors or a memory map may be read-only."""
    case, expected = case_and_expected(CELLS.index((cell, options)), (7, 3, 5, 17), "float32")
    case = case.astype(np.float32)
    for array in (case.x, case.doutput, *case.state, *case.dstate, *case.weights):
        array.flags.writeable = False
    assert_results_close(case.run(functional), expected, "float32")


# --- Extremes ---------------------------------------------------------------------------------------------------------


def activation_sweep(dtype: str) -> np.ndarray:
    """Pre-activations of every size, through the places where an exponential over- or underflows."""
    edges = [0.0, 1e-30, 1e-4, 0.3, 9.01, 17.0, 20.0, 44.0, 87.3, 88.7, 89.0, 103.9, 104.5, 354.0, 709.7, 710.5, 745.2]
    sizes = np.concatenate([edges, np.geomspace(1e-3, 120, 120), [20000.0, 1e30, np.finfo(dtype).max, np.inf]])
    return np.concatenate([-sizes, sizes]).astype(dtype)


def sweep_case(cell: str, options: dict, x: np.ndarray, dtype: str, T: int = 1) -> Case:
    """N = len(x) rows whose pre-activations are +-x, every gate's sign with every other's among the units."""
    case = make_case(cell, options, (T, len(x), 1, 16), dtype)
    weight_ih, weight_hh, *_ = case.weights
    gates = len(weight_ih) // 16
    signs = np.array([[1 - 2 * (unit >> gate & 1) for unit in range(16)] for gate in range(gates)], dtype)
    weights = (signs.reshape(-1, 1), weight_hh * 0 if T == 1 else weight_hh, None, None)
    return replace(case, x=np.tile(x[None, :, None], (T, 1, 1)), weights=weights)


@every_dtype
@every_cell
def test_saturation(cell, options, dtype, isa):
    """Against the reference at every pre-activation, infinite ones too: outputs, states and gradients."""
    case = sweep_case(cell, options, activation_sweep(dtype), dtype)
    expected, results = expect(case), case.run(functional)
    if options.get("nonlinearity") not in ("relu", "identity"):
        assert np.isfinite(expected["output"]).all()
    for name in ["output", *(s + "_n" for s in STATES[cell]), "dx", *(f"d{s}0" for s in STATES[cell])]:
        assert_output_close(results[name], expected[name], dtype, name)
    assert_inference_close(case, expected, dtype)


@pytest.mark.parametrize("output_activation", OUTPUT_ACTIVATIONS)
@every_dtype
def test_extreme_cell_outputs(dtype, output_activation, isa):
    """h = x through the identity, y = g2(+-h): saturation, infinities and NaN, without a warning."""
    x = np.array([0.5, 90, 20000, np.inf, -np.inf, np.nan], dtype)[:, None]
    one, weight_hy, dy = np.ones((1, 1), dtype), np.array([[1], [-1]], dtype), np.tile(np.array([1, 3], dtype), (6, 1))
    head = {"nonlinearity": "identity", "weight_hy": weight_hy, "output_activation": output_activation}
    results = []
    for module, cast in ((functional, lambda a: a), (reference, lambda a: a.astype(np.float64))):
        head["weight_hy"] = cast(weight_hy)
        h, y, cache = module.rnn_cell_forward(cast(x), None, cast(one), cast(one), None, None, **head)
        results.append((h, y, module.rnn_cell_backward(None, cache, dy=cast(dy))["x"]))
    for actual, expected, name in zip(*results, ["h_next", "y", "dx"]):
        assert_output_close(actual, expected, dtype, name)


@pytest.mark.parametrize("cell, options", SATURATING, ids=str)
@every_dtype
def test_huge_inputs_over_time(cell, options, dtype, isa):
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (6, 9, 1))
    case = sweep_case(cell, options, np.ones(9, dtype), dtype, T=6)
    for size in (20000.0, np.inf):
        huge = replace(case, x=(size * signs).astype(dtype))
        expected, results = expect(huge), huge.run(functional)
        assert np.isfinite(expected["output"]).all()
        for name in ["output", *(s + "_n" for s in STATES[cell]), "dx", *(f"d{s}0" for s in STATES[cell])]:
            assert_output_close(results[name], expected[name], dtype, name)
        assert_inference_close(huge, expected, dtype)


@pytest.mark.parametrize("shape", [(5, 3, 4, 7), (4, 14, 6, 33), (3, 2, 5, 300)], ids=str)
@every_dtype
@every_cell
def test_nan_stays_in_its_row(cell, options, dtype, shape, isa):
    """A NaN in x, a state or doutput of one row: that row is NaN from there on, the others are bitwise untouched."""
    _T, N, D, _H = shape
    case = make_case(cell, options, shape, dtype)
    clean = case.run(functional)
    row, t0 = N // 2, 1
    others = np.arange(N) != row

    def poisoned(a, where):
        a = a.copy()
        a[where] = np.nan
        return a

    def same(results, name, index):
        np.testing.assert_array_equal(results[name][index], clean[name][index], err_msg=name)

    by_row = {name: clean[name].ndim == 3 for name in ["output", "dx", *(f"d{s}0" for s in STATES[cell])]}
    by_row |= {s + "_n": False for s in STATES[cell]}
    variants = [(t0, replace(case, x=poisoned(case.x, (t0, row, D // 2))))]
    for k in range(len(STATES[cell])):
        state = tuple(poisoned(a, row) if i == k else a for i, a in enumerate(case.state))
        variants.append((0, replace(case, state=state)))
    for start, variant in variants:
        results = variant.run(functional)
        for name, in_time in by_row.items():
            same(results, name, np.s_[:, others] if in_time else others)
        same(results, "output", np.s_[:start, row])
        assert np.isnan(results["output"][start:, row]).all(), "swallowed"
        assert all(np.isnan(results[s + "_n"][row]).all() for s in STATES[cell]), "swallowed"
        output, *states = variant.forward(functional, training=False)[:-1]
        assert all(np.isnan(a).all() for a in (output[start:, row], *(state[row] for state in states))), "swallowed"
        assert not any(np.isnan(a).any() for a in (output[:, others], *(state[others] for state in states)))
        if (cell, options) in SATURATING:  # the derivatives of relu and identity need not know their argument
            assert np.isnan(results["dx"][start:, row]).all(), "swallowed"
            assert np.isnan(results["dweight_hh"]).any() and np.isnan(results["dbias_ih"]).all()

    results = replace(case, doutput=poisoned(case.doutput, (t0, row))).run(functional)
    for name, in_time in by_row.items():
        same(results, name, np.s_[:, others] if in_time else others)
    same(results, "output", np.s_[:])
    same(results, "dx", np.s_[t0 + 1 :, row])
    assert np.isnan(results["dx"][: t0 + 1, row]).all(), "swallowed"
    assert np.isnan(results["dh0"][row]).all(), "swallowed"
    assert np.isnan(results["dweight_ih"]).any()


@every_cell
def test_denormals(cell, options, isa):
    """Denormal inputs are harmless inside, and the caller's arithmetic still has them afterwards."""
    case = make_case(cell, options, (3, 40, 5, 33), "float32")
    case = replace(case, x=case.x * np.float32(1e-40), doutput=case.doutput * np.float32(1e-40))
    results = case.run(functional)
    tiny = np.full(100, 1e-40, np.float32)
    assert np.float32(1e-40) * np.float32(1) > 0 and (tiny * np.float32(1) > 0).all()
    assert (np.full(100, 1e-310) * 0.5 > 0).all()
    for name, expected in expect(case).items():  # absolutely: a flushed 1e-40 is as good as any
        assert_output_close(results[name], expected, "float32", name)
    with ThreadPoolExecutor(1) as pool:  # a thread of the caller's, too
        pool.submit(case.run, functional).result()
        assert (pool.submit(np.multiply, tiny, np.float32(1)).result() > 0).all()


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, options",
    [
        ("rnn", {"nonlinearity": "tanh"}),
        ("rnn", {"nonlinearity": "relu"}),
        ("gru", {"reset_after": True}),
        ("lstm", {}),
    ],
    ids=str,
)
@every_dtype
def test_matches_pytorch(cell, options, dtype):
    torch = pytest.importorskip("torch")
    T, N, D, H = 9, 5, 6, 21
    case = make_case(cell, options, (T, N, D, H), dtype, seed=2)
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    nonlinearity = {key: value for key, value in options.items() if key == "nonlinearity"}
    layer = kind(D, H, dtype=torch.float64, **nonlinearity)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    with torch.no_grad():
        for name, weight in zip(names, case.weights):
            getattr(layer, name + "_l0").copy_(torch.from_numpy(weight))
    x, *state = (torch.from_numpy(a).double().requires_grad_() for a in (case.x, *case.state))
    batched = [s[None] for s in state]
    output, state_n = layer(x, batched[0] if len(batched) == 1 else tuple(batched))
    state_n = [s[0] for s in (state_n if isinstance(state_n, tuple) else (state_n,))]
    loss = (output * torch.from_numpy(case.doutput)).sum()
    for s, ds in zip(state_n, case.dstate):
        loss = loss + (s * torch.from_numpy(ds)).sum()
    loss.backward()

    expected = {"output": output} | {s + "_n": value for s, value in zip(STATES[cell], state_n)}
    expected |= {"dx": x.grad} | {f"d{s}0": value.grad for s, value in zip(STATES[cell], state)}
    expected |= {"d" + name: getattr(layer, name + "_l0").grad for name in names}
    assert_results_close(case.run(functional), {k: v.detach().numpy() for k, v in expected.items()}, dtype)
