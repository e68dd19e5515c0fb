"""The reference's variants of the cells, and lengths, resets and reversed time, against mathematics.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, M outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    CELLS,
    CELLS_MORE,
    STATES,
    Case,
    assert_results_close,
    cell_id,
    every_cell,
    every_cell_and_variant,
    every_variant,
    make_case,
    over_time,
)

from fastrnn import reference

# Cases whose pre-activations are further than STEP from the corners of relu, the hard sigmoids and clipping.
STEP = 1e-4
SEED = 5


# --- Finite differences -----------------------------------------------------------------------------------------------


def assert_gradients_match_differences(
    loss: Callable[[dict[str, np.ndarray]], float], inputs: dict[str, np.ndarray], grads: dict[str, Any]
) -> None:
    """Every gradient against fourth-order central differences of `loss` in three random directions: an entry that is
    wrong shows in each of them, at a fraction of the cost of one difference per entry."""
    rng = np.random.default_rng(0)
    assert {name for name, grad in grads.items() if grad is not None} == set(inputs)
    for name, value in inputs.items():
        assert np.abs(grads[name]).max() > 1e-4, name + ": a gradient that is zero checks nothing"
        for _ in range(3):
            direction = rng.standard_normal(value.shape)
            direction /= np.linalg.norm(direction)
            at = [loss(inputs | {name: value + k * STEP * direction}) for k in (-2, -1, 1, 2)]
            numeric = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * STEP)
            tol = 1e-9 * np.linalg.norm(grads[name])
            np.testing.assert_allclose((grads[name] * direction).sum(), numeric, rtol=0, atol=tol, err_msg=name)


def assert_case_gradients(case: Case) -> None:
    """Every gradient of a case, that of its states, its weights and its extra weights too."""
    names = ["x", *(s + "0" for s in STATES[case.cell]), "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    values = dict(zip(names, (case.x, *case.state, *case.weights))) | case.extra
    inputs = {name: value for name, value in values.items() if value is not None and value.size}
    k = len(case.state)

    def loss(moved: dict[str, np.ndarray]) -> float:
        x, *rest = (moved.get(name, values[name]) for name in names)
        extra = {name: moved[name] for name in case.extra}
        changed = replace(case, x=x, state=tuple(rest[:k]), weights=tuple(rest[k:]), extra=extra)
        output, *state_n, _ = changed.forward(reference, training=False)
        return (output * case.doutput).sum() + sum((s * d).sum() for s, d in zip(state_n, case.dstate))

    grads = case.backward(reference, case.forward(reference)[-1])
    assert list(grads) == names + sorted(case.extra)
    grads = {name: grad for name, grad in grads.items() if grad is None or grad.size}
    assert_gradients_match_differences(loss, inputs, grads)


@pytest.mark.parametrize("T, bias", [(1, True), (4, True), (2, False)])
@every_variant
def test_variant_gradients(cell, options, T, bias):
    assert_case_gradients(make_case(cell, options, (T, 2, 2, 3), "float64", seed=SEED, bias=bias))


ALL_WAYS = {
    "lengths": np.array([3, 0, 4]),
    "reset_mask": np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]], bool),
    "reverse": True,
}


@pytest.mark.parametrize("way", ALL_WAYS)
@every_cell
def test_gradients_over_time(cell, options, way):
    case = make_case(cell, options, (4, 3, 2, 2), "float64", seed=SEED)
    assert_case_gradients(replace(case, **{way: ALL_WAYS[way]}))


@every_cell_and_variant
def test_gradients_over_time_all_ways_at_once(cell, options):
    assert_case_gradients(replace(make_case(cell, options, (4, 3, 2, 2), "float64", seed=SEED), **ALL_WAYS))


@every_cell_and_variant
def test_gradients_without_input(cell, options):
    """D = 0: the state drives itself; the weights of the input are there and empty."""
    case = make_case(cell, options, (2, 2, 0, 3), "float64", seed=SEED)
    assert_case_gradients(case)
    results = case.run(reference)
    assert results["dx"].shape == (2, 2, 0) and results["dweight_ih"].shape == case.weights[0].shape


@every_variant
def test_variant_cell_gradients_with_an_output(cell, options):
    """One step with weight_hy, whose width follows the projection."""
    case = make_case(cell, options, (1, 3, 2, 4), "float64", seed=SEED)
    rng = np.random.default_rng(9)
    names = ["x", *(s + "0" for s in STATES[cell]), "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    inputs = dict(zip(names, (case.x[0], *case.state, *case.weights))) | case.extra
    inputs |= {"weight_hy": rng.standard_normal((5, case.doutput.shape[-1])), "bias_y": rng.standard_normal(5)}
    dy = rng.standard_normal((3, 5))
    forward = getattr(reference, cell + "_cell_forward")

    def loss(inputs):
        *state, y, _ = forward(**inputs, **case.options, output_activation="softmax")
        return (y * dy).sum() + sum((s * d).sum() for s, d in zip(state, case.dstate))

    *_, cache = forward(**inputs, **case.options, output_activation="softmax")
    grads = getattr(reference, cell + "_cell_backward")(*case.dstate, cache, dy=dy)
    assert list(grads) == names + sorted(case.extra) + ["weight_hy", "bias_y"]
    assert_gradients_match_differences(loss, inputs, grads)


# --- What the variants compute ----------------------------------------------------------------------------------------


def column(*values: float) -> np.ndarray:
    return np.array(values).reshape(-1, 1)


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def test_lstm_by_hand():
    """All at once with H = 1, P = 2: peepholes in the order i, f, o, o's seeing the new c; clip; projection."""
    x, h, c0, clip = 0.5, (-0.8, 0.3), 1.6, 0.9
    W, R, b = (1.0, -2.0, 3.0, 0.7), ((0.4, 0.6), (0.6, -1.0), (-0.7, 0.1), (1.2, 0.5)), (0.1, 0.2, 0.3, -0.3)
    p_i, p_f, p_o = 0.25, 0.75, -0.4

    def clipped(a):
        return min(max(a, -clip), clip)

    a_i, a_f, a_g, a_o = (W[k] * x + b[k] + R[k][0] * h[0] + R[k][1] * h[1] for k in range(4))
    c = sigmoid(clipped(a_f + p_f * c0)) * c0 + sigmoid(clipped(a_i + p_i * c0)) * math.tanh(clipped(a_g))
    assert a_g > clip and c > clip, "neither clip would show"
    m = sigmoid(clipped(a_o + p_o * c)) * math.tanh(clip)
    h_next, c_next, _ = reference.lstm_cell_forward(
        column(x),
        np.array([h]),
        column(c0),
        column(*W),
        np.array(R),
        np.array(b),
        None,
        weight_hr=column(2.0, -3.0),
        weight_peephole=np.array([p_i, p_f, p_o]),
        cell_clip=clip,
    )
    np.testing.assert_allclose(c_next, [[c]], rtol=1e-15)  # carried on as it is
    np.testing.assert_allclose(h_next, [[2 * m, -3 * m]], rtol=1e-15)


@pytest.mark.parametrize("name, slope", [("hard_sigmoid", 0.2), ("hard_sigmoid_6", 1 / 6)])
def test_hard_sigmoids_by_hand(name, slope):
    """The update gate of a GRU with candidate 0 and h = 1 is its next state; its slope is that of dz = h."""
    a = np.array([-20000.0, -3.1, -2.6, -1, 0, 0.5, 2.4, 2.9, 3.1, 1e300, np.nan])
    weight = column(0.0, 1.0, 0.0)
    h, cache = reference.gru_cell_forward(
        a[:, None],
        np.ones((len(a), 1)),
        weight,
        np.zeros((3, 1)),
        None,
        None,
        gate_activation=name,
        activation="identity",
    )
    np.testing.assert_allclose(h[:, 0], np.clip(slope * a + 0.5, 0, 1), rtol=1e-15)
    dx = reference.gru_cell_backward(np.ones_like(h), cache)["x"][:-1, 0]
    np.testing.assert_allclose(dx, slope * (np.abs(a[:-1]) < 0.5 / slope), rtol=1e-15)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
def test_activation_is_candidate_and_cell_output(activation):
    g = {"tanh": math.tanh, "relu": lambda a: max(a, 0), "sigmoid": sigmoid, "identity": lambda a: a}[activation]
    for x in (-1.5, 0.7):
        h, c, _ = reference.lstm_cell_forward(
            column(x),
            None,
            column(0.3),
            column(0.5, 1.0, 2.0, -0.4),
            np.zeros((4, 1)),
            None,
            None,
            activation=activation,
        )
        expected = sigmoid(x) * 0.3 + sigmoid(0.5 * x) * g(2 * x)
        np.testing.assert_allclose(c.item(), expected, rtol=1e-15)
        np.testing.assert_allclose(h.item(), sigmoid(-0.4 * x) * g(expected), rtol=1e-15)


def test_a_clip_that_nothing_reaches_changes_nothing():
    case = make_case("lstm", {"peephole": True}, (5, 3, 4, 6), "float64")
    expected = case.run(reference)
    for name, value in replace(case, options={"cell_clip": 1e6}).run(reference).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


# --- Over time --------------------------------------------------------------------------------------------------------


def flipped(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each row's own steps in reverse; its padding stays where it is."""
    T = len(array)
    t = np.arange(T)[:, None]
    return array[np.where(t < lengths, lengths - 1 - t, t), np.arange(len(lengths))]


@pytest.mark.parametrize("ways", ["", "lengths", "reset_mask", "both"])
@every_cell
def test_reverse_is_a_flip_of_each_rows_own_steps(cell, options, ways):
    case = make_case(cell, options, (5, 6, 3, 4), "float64")
    chosen = {name: value for name, value in over_time(case).items() if ways in (name, "both")}
    case = replace(case, **chosen)
    lengths = chosen.get("lengths", np.full(6, 5))
    mask = None if case.reset_mask is None else flipped(case.reset_mask, lengths)
    other = replace(case, x=flipped(case.x, lengths), doutput=flipped(case.doutput, lengths), reset_mask=mask)
    results = replace(case, reverse=True).run(reference)
    expected = other.run(reference)
    expected |= {name: flipped(expected[name], lengths) for name in ("output", "dx")}
    assert_results_close(results, expected, "float64")
    if not ways:
        np.testing.assert_array_equal(results["output"], other.run(reference)["output"][::-1])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@every_cell_and_variant
def test_lengths_are_sequences_of_their_own(cell, options, reverse):
    """A ragged batch equals its rows run one at a time, cut to their lengths, with weight gradients added up."""
    case = make_case(cell, options, (6, 5, 3, 4), "float64")
    lengths = np.array([2, 6, 0, 5, 1])
    x, doutput = case.x.copy(), case.doutput.copy()
    beyond = np.arange(6)[:, None] >= lengths
    x[beyond] = doutput[beyond] = np.nan  # never looked at
    results = replace(case, x=x, doutput=doutput, lengths=lengths, reverse=reverse).run(reference)
    total: dict[str, Any] = {}
    for n, length in enumerate(lengths):
        rows = slice(n, n + 1)
        state, dstate = tuple(s[rows] for s in case.state), tuple(d[rows] for d in case.dstate)
        alone = replace(case, x=case.x[:length, rows], doutput=case.doutput[:length, rows], state=state, dstate=dstate)
        alone = replace(alone, reverse=reverse)
        for name, value in alone.run(reference).items():
            if name in ("output", "dx"):
                np.testing.assert_allclose(results[name][:length, rows], value, rtol=1e-13, atol=1e-14, err_msg=name)
                assert not results[name][length:, rows].any()
            elif name.startswith(("dw", "db")):
                total[name] = total.get(name, 0) + value
            else:
                np.testing.assert_allclose(results[name][rows], value, rtol=1e-13, atol=1e-14, err_msg=name)
    for name, value in total.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-12, atol=1e-13, err_msg=name)


@every_cell_and_variant
def test_resets_cut_a_sequence_in_two(cell, options):
    """Before a reset and from it on: two calls, the second from a state of zeros. A reset at 0 forgets the start."""
    case = make_case(cell, options, (6, 3, 3, 4), "float64")
    mask = np.zeros((6, 3), bool)
    mask[4] = True
    results = replace(case, reset_mask=mask).run(reference)
    nothing = (None,) * len(STATES[cell])
    first = replace(case, x=case.x[:4], doutput=case.doutput[:4], dstate=nothing).run(reference)
    second = replace(case, x=case.x[4:], doutput=case.doutput[4:], state=nothing).run(reference)
    expected = {name: second[name] for name in second}
    for name in second:
        if name in ("output", "dx"):
            expected[name] = np.concatenate([first[name], second[name]])
        elif name.startswith(("dw", "db")):
            expected[name] = first[name] + second[name]
        elif name.startswith("d"):
            expected[name] = first[name]
    assert_results_close(results, expected, "float64")

    mask = np.zeros((6, 3), bool)
    mask[0] = True
    forgotten = replace(case, reset_mask=mask).run(reference)
    expected = replace(case, state=nothing).run(reference)
    for s in STATES[cell]:
        expected[f"d{s}0"] = np.zeros_like(expected[f"d{s}0"])
    assert_results_close(forgotten, expected, "float64")


def test_the_tables_name_different_cells():
    """Every id once: a variant that is listed twice would hide one that is missing."""
    ids = [cell_id(*c) for c in CELLS + CELLS_MORE]
    assert len(set(ids)) == len(ids)
