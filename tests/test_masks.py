"""Steps that are masked: a row keeps its state there. The reference, the kernels, layers, streams and the trainer.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import (
    CELLS,
    CELLS_MORE,
    Case,
    assert_results_close,
    assert_same_bits_however_shared_out,
    cell_id,
    every_cell,
    every_dtype,
    expect,
    make_case,
)
from test_recurrent_dropout import differences, masked

import fastrnn
from fastrnn import _native, _state, functional, reference


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@every_cell
def test_gradients_of_the_reference(cell: str, options: dict[str, Any], reverse: bool) -> None:
    case = make_case(cell, options, (6, 4, 2, 3), "float64", seed=3)
    differences(replace(masked(case), reverse=reverse))
    differences(replace(case, mask=masked(case).mask, reverse=reverse))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@every_cell
def test_the_reference_is_a_row_without_its_masked_steps(cell: str, options: dict[str, Any], reverse: bool) -> None:
    """Each row alone with its masked steps cut out; where none is real yet, output is h0."""
    T, N = 9, 5
    case = make_case(cell, options, (T, N, 3, 4), "float64", seed=1)
    mask = np.random.default_rng(2).random((T, N)) < 0.5
    mask[:, 0], mask[:, 1] = False, True
    case = replace(case, mask=mask, reverse=reverse)
    case.x[~mask] = np.nan
    output, *state_n, _ = case.forward(reference)
    for n in range(N):
        times = np.flatnonzero(mask[:, n])
        alone = replace(case, x=case.x[times, n : n + 1], state=tuple(s[n : n + 1] for s in case.state), mask=None)
        expected, *last, _ = alone.forward(reference)
        for s, t in zip(state_n, last):
            np.testing.assert_allclose(s[n], t[0], rtol=1e-13)
        h = case.state[0][n]
        for t in range(T)[:: -1 if reverse else 1]:
            if mask[t, n]:
                h = expected[np.searchsorted(times, t), 0]
            np.testing.assert_allclose(output[t, n], h, rtol=1e-13)


def test_a_reset_at_a_masked_step_is_applied_then_carried() -> None:
    case = make_case("lstm", {}, (4, 2, 3, 4), "float64")
    reset_mask, mask = np.zeros((4, 2), bool), np.ones((4, 2), bool)
    reset_mask[2, 0], mask[2:, 0] = True, False
    case = replace(case, reset_mask=reset_mask, mask=mask)
    results = case.run(reference)
    for name in ("output", "h_n", "c_n"):
        a = results[name]
        assert not (a[2:, 0] if a.ndim == 3 else a[0]).any(), name
    without = replace(case, dstate=tuple(np.where([[True], [False]], 0, d) for d in case.dstate)).run(reference)
    np.testing.assert_array_equal(without["dx"], results["dx"])
    assert results["output"][1, 0].any() and results["dx"][1, 0].any()


# --- Kernels against the reference ------------------------------------------------------------------------------------

FORMS = [*CELLS, *CELLS_MORE]
every_form = pytest.mark.parametrize("cell, options", FORMS, ids=[cell_id(*form) for form in FORMS])


def kernel_case(cell: str, options: dict[str, Any], shape: tuple[int, ...], dtype: str, seed: int = 0) -> Case:
    """Masked steps, lengths and resets; what x and doutput hold where nobody should look is NaN."""
    case = masked(make_case(cell, options, shape, dtype, seed=seed), seed)
    T = len(case.x)
    beyond = np.arange(T)[:, None] >= case.lengths
    case.x[beyond | ~case.mask] = np.nan
    case.doutput[beyond] = np.nan
    return replace(case, reverse=bool(seed % 2))


@pytest.mark.parametrize("seed", [0, 1], ids=["forward", "reverse"])
@every_dtype
@every_form
def test_kernels_are_the_reference(cell: str, options: dict[str, Any], dtype: str, seed: int) -> None:
    for shape in ((7, 5, 3, 9), (9, 13, 4, 18), (5, 1, 2, 3), (3, 40, 5, 33)):
        case = kernel_case(cell, options, shape, dtype, seed)
        assert_results_close(case.run(functional), expect(case), dtype)
        alone = replace(
            case, lengths=None, reset_mask=None, x=np.nan_to_num(case.x), doutput=np.nan_to_num(case.doutput)
        )
        assert_results_close(alone.run(functional), expect(alone), dtype)


def test_instruction_sets(isa: str) -> None:
    for cell, options in CELLS:
        case = kernel_case(cell, options, (6, 9, 5, 21), "float32", 1)
        assert_results_close(case.run(functional), expect(case), "float32")


@every_cell
def test_every_way_to_share_out_gives_the_same_bits(cell: str, options: dict[str, Any]) -> None:
    case = kernel_case(cell, options, (11, 14, 5, 40), "float32")
    assert_same_bits_however_shared_out(case)


@every_form
def test_a_mask_gives_the_bits_of_rows_without_its_steps(cell: str, options: dict[str, Any]) -> None:
    """All rows skip the same steps: then x without them is the same work."""
    case = make_case(cell, options, (12, 7, 3, 20), "float32")
    real = np.random.default_rng(4).random(12) < 0.5
    case = replace(case, doutput=np.where(real[:, None, None], case.doutput, 0))
    results = replace(case, mask=np.repeat(real[:, None], 7, axis=1)).run(functional)
    cut = replace(case, x=case.x[real], doutput=case.doutput[real]).run(functional)
    for key, value in cut.items():
        if value is not None:
            got = results[key][real] if key in ("output", "dx") else results[key]
            np.testing.assert_array_equal(got, value, err_msg=key)


@every_cell
def test_masks_that_say_little(cell: str, options: dict[str, Any]) -> None:
    """All real: as without. None real: output and the final state are the initial one, the gradients go there."""
    case = make_case(cell, options, (5, 4, 3, 6), "float32")
    plain = case.run(functional)
    for key, value in replace(case, mask=np.ones((5, 4), bool)).run(functional).items():
        np.testing.assert_array_equal(value, plain[key], err_msg=key)
    nothing = replace(case, mask=np.zeros((5, 4), bool))
    assert_results_close(nothing.run(functional), expect(nothing), "float32")
    assert not nothing.run(functional)["dweight_hh"].any()
    empty = replace(case, x=case.x[:0], doutput=case.doutput[:0])
    assert_results_close(replace(empty, mask=np.ones((0, 4), bool)).run(functional), expect(empty), "float32")
    for missing in (
        replace(case, mask=masked(case).mask, doutput=None),
        replace(case, dstate=(None,) * len(case.dstate)),
    ):
        assert_results_close(missing.run(functional), expect(missing), "float32")


def test_arguments_of_the_caller_are_added_to() -> None:
    case = kernel_case("lstm", {}, (7, 5, 3, 9), "float64")
    grads = {name[1:]: grad for name, grad in case.run(functional).items() if name[0] == "d"}
    into = {name: np.ones_like(grad) for name, grad in grads.items()}
    *_, cache = case.forward(functional)
    case.backward(functional, cache, into=into)
    for name, grad in grads.items():
        np.testing.assert_allclose(into[name], grad + 1, rtol=1e-13, err_msg=name)


@pytest.mark.parametrize("output_activation", ["tanh", "softmax"])
def test_jordan(output_activation: str) -> None:
    rng = np.random.default_rng(3)
    T, N, D, H, M = 8, 7, 3, 10, 5
    arrays = [rng.standard_normal(s) for s in ((T, N, D), (N, M), (H, D), (H, M), (H,), (M, H), (M,))]
    told = {
        "lengths": rng.integers(0, T + 1, N),
        "mask": rng.random((T, N)) < 0.6,
        "reset_mask": rng.random((T, N)) < 0.2,
    }
    dy, dy_n = rng.standard_normal((T, N, M)), rng.standard_normal((N, M))
    results = []
    for module in (functional, reference):
        y, y_n, cache = module.jordan_forward(*arrays, output_activation=output_activation, **told)
        results.append(
            {"output": y, "y_n": y_n} | {"d" + k: v for k, v in module.jordan_backward(dy, dy_n, cache).items()}
        )
    assert_results_close(*results, "float64")


@pytest.mark.parametrize("module", [functional, reference])
def test_what_is_no_mask(module: ModuleType) -> None:
    case = make_case("gru", {}, (5, 4, 3, 6), "float32")
    for mask, error, words in (
        (np.ones((4, 5), bool), ValueError, r"mask: expected shape \(5, 4\) = \(T, N\), got \(4, 5\)"),
        (np.ones((5, 4)), TypeError, "mask: expected a NumPy array of bool, got float64"),
        ([[True]], TypeError, "mask: expected a NumPy array of bool, got list"),
    ):
        with pytest.raises(error, match=words):
            replace(case, mask=mask).forward(module)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_tiles(precision: str) -> None:
    """Masked steps cost nothing on tiles either: the same bits as without them."""
    case = make_case("gru", {}, (12, 18, 3, 40), "float32")
    real = np.random.default_rng(4).random(12) < 0.5
    _native.emulate_amx(True)
    fastrnn.set_matmul_precision(precision)
    try:
        case = replace(case, doutput=np.where(real[:, None, None], case.doutput, 0))
        results = replace(case, mask=np.repeat(real[:, None], 18, axis=1)).run(functional)
        cut = replace(case, x=case.x[real], doutput=case.doutput[real]).run(functional)
    finally:
        _native.emulate_amx(False)
        fastrnn.set_matmul_precision("highest")
    for key in ("h_n", "dweight_hh", "dh0"):
        np.testing.assert_array_equal(results[key], cut[key], err_msg=key)


# --- Layers -----------------------------------------------------------------------------------------------------------

LAYERS = [
    (fastrnn.RNN, {"nonlinearity": "relu"}),
    (fastrnn.GRU, {"reset_after": False}),
    (fastrnn.GRU, {}),
    (fastrnn.LSTM, {"proj_size": 3, "peephole": True}),
    (fastrnn.LSTM, {"learn_initial_state": True}),
]
every_layer = pytest.mark.parametrize("cls, options", LAYERS, ids=[f"{c.__name__}-{'-'.join(o)}" for c, o in LAYERS])


def sequences(T: int = 7, N: int = 4, D: int = 3, dtype: str = "float64") -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """x (T, N, D) with NaN where it is masked, and all that may be said of its rows."""
    rng = np.random.default_rng(5)
    x, mask = rng.standard_normal((T, N, D)).astype(dtype), rng.random((T, N)) < 0.6
    x[~mask] = np.nan
    return x, {"mask": mask, "lengths": rng.integers(T // 2, T + 1, N), "reset_mask": rng.random((T, N)) < 0.2}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@every_layer
def test_gradients_of_layers(cls: Any, options: dict[str, Any], bidirectional: bool) -> None:
    x, told = sequences()
    layer = cls(3, 5, 2, bidirectional=bidirectional, dtype=np.float64, rng=0, **options)
    for name, param in layer.params.items():
        if name.startswith("initial"):
            param[...] = 0.3
    fastrnn.check_gradients(layer, np.nan_to_num(x, nan=0.1), **told)
    fastrnn.check_gradients(layer, np.nan_to_num(x, nan=0.1), mask=told["mask"])
    output, _ = layer(x, **told)
    assert np.isfinite(output).all()


@every_layer
def test_a_mask_has_the_layout_of_x(cls: Any, options: dict[str, Any]) -> None:
    x, told = sequences(dtype="float32")
    layer, turned = (cls(3, 5, rng=0, batch_first=first, **options) for first in (False, True))
    turned.load_state_dict(layer.state_dict())
    mask = told.pop("mask")
    output, _ = layer(x, mask=mask, **told)
    other, _ = turned(x.swapaxes(0, 1), mask=mask.T.copy(), **told)
    np.testing.assert_array_equal(other.swapaxes(0, 1), output)
    one, _ = layer(x[:, 0], mask=mask[:, 0])
    np.testing.assert_allclose(one, layer(x, mask=mask)[0][:, 0], rtol=1e-5, atol=1e-6)
    for made, layout, shape in ((layer, "(T, N)", mask.T), (turned, "(N, T)", mask)):
        with pytest.raises(ValueError, match=rf"mask: expected shape .* = {re.escape(layout)}, got"):
            made(x if made is layer else x.swapaxes(0, 1), mask=shape)
    with pytest.raises(ValueError, match=r"mask: expected shape \(7,\) = \(T,\), got"):
        layer(x[:, 0], mask=mask)
    with pytest.raises(TypeError, match="mask: expected a NumPy array of bool, got int64"):
        layer(x, mask=mask.astype(int))


@every_layer
def test_a_sequence_may_be_cut_anywhere(cls: Any, options: dict[str, Any]) -> None:
    """Masked steps at the beginning of a piece show the state that came in."""
    x, told = sequences(dtype="float32")
    layer = cls(3, 5, 2, rng=0, **options)
    whole, whole_n = layer(x, mask=told["mask"])
    state, pieces = None, []
    for t in range(len(x)):
        y, state = layer(x[t : t + 1], state, mask=told["mask"][t : t + 1])
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-5, atol=1e-6)
    for a, b in zip(*(s if isinstance(s, tuple) else (s,) for s in (state, whole_n))):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_layer
def test_streams_are_the_sequence(cls: Any, options: dict[str, Any]) -> None:
    x, told = sequences(dtype="float32")
    mask = told["mask"]
    model = fastrnn.Sequential(cls(3, 5, 2, rng=0, **options), fastrnn.Linear(options.get("proj_size", 5), 2, rng=0))
    stream = model.stream(4)
    y = model(x, mask=mask)
    for x_t, mask_t, y_t in zip(x, mask, y):
        np.testing.assert_allclose(stream.step(x_t[mask_t], rows=mask_t), y_t[mask_t], rtol=1e-5, atol=1e-6)
    before = stream.snapshot()
    stream.step(np.zeros((0, 3), np.float32), rows=np.zeros(4, bool))
    for a, b in zip(_state.arrays(before), _state.arrays(stream.state)):
        np.testing.assert_array_equal(a, b)


def test_models_pass_masks_on_or_refuse_them() -> None:
    x, told = sequences(dtype="float32")
    model = fastrnn.Sequential(fastrnn.LSTM(3, 5, rng=0), fastrnn.GRU(5, 4, rng=0), fastrnn.Linear(4, 2, rng=0))
    y, _ = model[0](x, mask=told["mask"])
    y, _ = model[1](y, mask=told["mask"])
    np.testing.assert_array_equal(model(x, mask=told["mask"]), model[2](y))
    np.testing.assert_array_equal(model.run(x, mask=told["mask"])[0], model[2](y))
    with pytest.raises(ValueError, match="mask: expected None, as no layer of this Sequential takes masks"):
        fastrnn.Sequential(fastrnn.Linear(3, 2))(x, mask=told["mask"])
