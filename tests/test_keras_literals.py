"""Keras 3's own recurrent-layer tests: the numbers printed there, from layers with constant weights.

A Keras mask keeps the steps where it is True; such steps moved to the front are a sequence of that length. With
go_backwards Keras reads from the last step on: the reverse direction of a bidirectional layer.

Letters: T time steps, N batch, D input size, H units, G gates, S directions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import GRU, LSTM, RNN

LITERALS = json.loads((Path(__file__).parent / "data" / "keras_literals.json").read_text())
LAYERS = {"SimpleRNN": RNN, "GRU": GRU, "LSTM": LSTM}
FROM_KERAS = {"SimpleRNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 1, 2, 3]}  # z, r, h to r, z, n; i, f, c, o to i, f, g, o
TOLERANCE = {"rtol": 2e-6, "atol": 1e-6}  # Keras's own tolerance is 1e-6 or wider; the numbers have 7 to 8 digits


def identify(case: dict[str, Any]) -> str:
    extra = [
        name for name in ("go_backwards", "sequences", "reset_after", "use_bias", "unit_forget_bias") if name in case
    ]
    return "-".join([case["layer"], case["test"].split(".")[1], *extra])


def keras_weights(case: dict[str, Any], D: int, H: int) -> dict[str, np.ndarray]:
    """kernel (D, G*H), recurrent_kernel (H, G*H) and bias as Keras initialises them with these constants."""
    G = len(FROM_KERAS[case["layer"]])
    values = LITERALS["weights"]
    weights = {"kernel": np.full((D, G * H), values["kernel"]), "recurrent": np.full((H, G * H), values["recurrent"])}
    if case.get("use_bias", True):
        two = case["layer"] == "GRU" and case.get("reset_after", True)  # then an input and a recurrent bias
        weights["bias"] = np.full((2, G * H) if two else (G * H,), values["bias"])
        if case["layer"] == "LSTM" and case.get("unit_forget_bias", True):
            weights["bias"][H : 2 * H] = 1
    return weights


def convert(case: dict[str, Any], weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keras's layouts and order of gates to those of fastrnn."""
    order = FROM_KERAS[case["layer"]]

    def gates(a: np.ndarray) -> np.ndarray:
        parts = np.split(a, len(order), axis=-1)
        return np.concatenate([parts[k] for k in order], axis=-1)

    converted = {"weight_ih_l0": gates(weights["kernel"]).T, "weight_hh_l0": gates(weights["recurrent"]).T}
    if "bias" in weights:
        bias = gates(weights["bias"])
        both = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        converted |= dict(zip(("bias_ih_l0", "bias_hh_l0"), both))
    return converted


def run(case: dict[str, Any], state: Any = None) -> tuple[np.ndarray, Any, np.ndarray]:
    """output (N, T, S*H) of the last call, the state that it ends with, and the steps that the mask keeps, (N, T)."""
    N, T, D = case["x"]
    H = case.get("units", 2)
    x = np.arange(N * T * D, dtype=np.float32).reshape(N, T, D)
    options = {"reset_after": case["reset_after"]} if "reset_after" in case else {}
    layer = LAYERS[case["layer"]](
        D, H, batch_first=True, bidirectional=True, bias=case.get("use_bias", True), **options
    )
    weights = convert(case, keras_weights(case, D, H))
    layer.load_state_dict(weights | {name + "_reverse": value for name, value in weights.items()})
    keep = np.array(case.get("mask", np.ones((N, T))), bool)
    packed = np.full_like(x, np.nan)
    for row, sequence, kept in zip(packed, x, keep):
        row[: kept.sum()] = sequence[kept]
    lengths = keep.sum(axis=1) if "mask" in case else None
    for _ in range(case.get("calls", 1)):
        output, state = layer(packed, state, lengths=lengths)
    return output, state, keep


def spread(values: Any, H: int) -> np.ndarray:
    """Numbers (...) that are the same for all units stand once in the file: (..., H)."""
    return np.repeat(np.array(values)[..., None], H, axis=-1)


@pytest.mark.parametrize("case", LITERALS["cases"], ids=identify)
def test_layers(case):
    (N, T, _), H = case["x"], case["units"]
    state, s = None, int(case.get("go_backwards", False))
    if "initial_state" in case:
        given = np.repeat(np.arange(N * H, dtype=np.float32).reshape(1, N, H), 2, axis=0)
        state = (given, given) if case["layer"] == "LSTM" else given
    output, state_n, keep = run(case, state)
    h_n = (state_n[0] if isinstance(state_n, tuple) else state_n)[s]
    if "output" in case:
        expected = np.array(case["output"])
        np.testing.assert_allclose(h_n, expected if expected.ndim == 2 else spread(expected, H), **TOLERANCE)
    else:
        unpacked = np.zeros((N, T, H))
        for row, sequence, kept in zip(unpacked, output[:, :, :H], keep):
            row[kept] = sequence[: kept.sum()]
        np.testing.assert_allclose(unpacked, spread(case["sequences"], H), **TOLERANCE)


@pytest.mark.parametrize("case", LITERALS["bidirectional"], ids=identify)
def test_bidirectional(case):
    N, H, state = case["x"][0], 2, None
    if "initial_state" in case:  # Keras passes h, c of the forward and then h, c of the backward layer
        parts = [k * np.arange(N * H, dtype=np.float32).reshape(N, H) for k in (1, 2, 3, 4)]
        state = np.stack(parts[::2]), np.stack(parts[1::2])
    _, state_n, _ = run(case, state)
    h_n = state_n[0] if case["layer"] == "LSTM" else state_n
    expected = np.array(case["output"])
    expected = expected if expected.ndim == 3 else spread(expected, H)
    np.testing.assert_allclose(h_n.swapaxes(0, 1), expected, **TOLERANCE)
    if "c_n" in case:
        np.testing.assert_allclose(state_n[1].swapaxes(0, 1), spread(case["c_n"], H), **TOLERANCE)


def test_bidirectional_sum_at_every_step():
    case = LITERALS["bidirectional_sum"]
    output, _, _ = run(case)
    np.testing.assert_allclose(output[..., :2] + output[..., 2:], spread(case["sequences"], 2), **TOLERANCE)
