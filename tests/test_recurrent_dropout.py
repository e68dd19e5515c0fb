"""Recurrent dropout and zoneout: the reference against mathematics, kernels against the reference, layers.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import STATES, Case, every_cell, make_case, over_time
from test_reference import assert_gradients_match_differences, call, named_inputs

from fastrnn import reference

KINDS = ["recurrent_mask", "zoneout", "both"]


def noisy(case: Case, kind: str = "both", seed: int = 0) -> Case:
    """`case` with recurrent dropout, zoneout of each state, or both: some units kept whole, some not, some in part."""
    T, N = case.x.shape[:2]
    rng = np.random.default_rng([seed, T, N])
    noise: dict[str, np.ndarray] = {}
    if kind != "zoneout":
        noise["recurrent_mask"] = (rng.random(case.state[0].shape) < 0.7) / 0.7
    if kind != "recurrent_mask":
        for name, state in zip(STATES[case.cell], case.state):
            noise["zoneout_" + name] = rng.choice([0, 0.3, 1], (T, *state.shape), p=[0.5, 0.3, 0.2])
    noise = {name: a.astype(case.x.dtype) for name, a in noise.items()}
    return replace(case, extra=case.extra | noise)


def masked(case: Case, seed: int = 0) -> Case:
    """`case` with lengths, resets and masked steps, those at the start of a row and before its end among them."""
    T, N = case.x.shape[:2]
    mask = np.random.default_rng([seed, T, N]).random((T, N)) < 0.6
    return replace(case, **over_time(case, seed), mask=mask)


def differences(case: Case) -> None:
    forward = getattr(reference, case.cell + "_forward")
    weights = {name: a for name, a in case.extra.items() if name.startswith("weight")}

    def loss(inputs: dict[str, np.ndarray]) -> float:
        options = case.options | case.keywords() | {k: v for k, v in inputs.items() if k in weights}
        inputs = {k: v for k, v in inputs.items() if k not in weights}
        output, *state_n, _ = call(forward, case.cell, inputs, training=False, **options)
        return float((output * case.doutput).sum() + sum((s * d).sum() for s, d in zip(state_n, case.dstate)))

    *_, cache = case.forward(reference)
    inputs = named_inputs(case) | weights
    assert_gradients_match_differences(loss, inputs, case.backward(reference, cache))


@pytest.mark.parametrize("over", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("kind", KINDS)
@every_cell
def test_gradients_of_the_reference(cell: str, options: dict[str, Any], kind: str, over: bool) -> None:
    case = noisy(make_case(cell, options, (5, 3, 2, 3), "float64", seed=3), kind)
    differences(masked(case) if over else case)


def test_the_reference_by_hand() -> None:
    """h_1 = k h_0 + (1 - k) tanh(w x_1 + u m h_0)."""
    x, h0 = np.array([[[0.5]]]), np.array([[2.0]])
    w, u = np.array([[0.3]]), np.array([[-0.7]])
    output, h_n, _ = reference.rnn_forward(
        x, h0, w, u, None, None, recurrent_mask=np.array([[1.25]]), zoneout_h=np.array([[[0.2]]])
    )
    assert output[0, 0, 0] == h_n[0, 0] == pytest.approx(0.2 * 2 + 0.8 * np.tanh(0.3 * 0.5 - 0.7 * 1.25 * 2), rel=1e-14)
    c0 = np.array([[0.4]])
    w, u = np.array([[0.3], [0.1], [-0.4], [0.2]]), np.array([[0.5], [-0.3], [0.2], [0.6]])
    output, h_n, c_n, _ = reference.lstm_forward(
        x, h0, c0, w, u, None, None, zoneout_h=np.array([[[0.2]]]), zoneout_c=np.array([[[0.6]]])
    )
    i, f, g, o = (w @ x[0, 0] + u @ h0[0]).tolist()
    s = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    c = s(f) * 0.4 + s(i) * np.tanh(g)
    assert c_n[0, 0] == pytest.approx(0.6 * 0.4 + 0.4 * c, rel=1e-14)
    assert output[0, 0, 0] == h_n[0, 0] == pytest.approx(0.2 * 2 + 0.8 * s(o) * np.tanh(c), rel=1e-14)


def test_a_gru_drops_what_its_weights_see_alone() -> None:
    """With z = 1 the state stays as it is, dropped out or not."""
    case = make_case("gru", {}, (3, 2, 2, 4), "float64")
    bias = np.zeros(12)
    bias[4:8] = 1e3
    case = replace(case, weights=(*case.weights[:2], bias, bias), extra={"recurrent_mask": np.zeros((2, 4))})
    _, h_n, _ = case.forward(reference)
    np.testing.assert_array_equal(h_n, case.state[0])
