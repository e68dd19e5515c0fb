"""Recurrent dropout and zoneout: the reference against mathematics, kernels against the reference, layers.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import (
    CELLS,
    CELLS_MORE,
    STATES,
    Case,
    assert_results_close,
    assert_same_bits_however_shared_out,
    cell_id,
    every_cell,
    every_dtype,
    expect,
    make_case,
    over_time,
)
from test_reference import assert_gradients_match_differences, call, named_inputs

import fastrnn
from fastrnn import _native, functional, reference, serialization
from fastrnn.layers.dropout import dropout_mask

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


# --- Kernels against the reference ------------------------------------------------------------------------------------

FORMS = [*CELLS, *CELLS_MORE]
every_form = pytest.mark.parametrize("cell, options", FORMS, ids=[cell_id(*form) for form in FORMS])


@pytest.mark.parametrize("kind", KINDS)
@every_dtype
@every_form
def test_kernels_are_the_reference(cell: str, options: dict[str, Any], dtype: str, kind: str) -> None:
    for shape in ((7, 5, 3, 9), (6, 13, 4, 18), (5, 1, 2, 3), (3, 40, 5, 33)):
        case = noisy(make_case(cell, options, shape, dtype), kind)
        assert_results_close(case.run(functional), expect(case), dtype)
        inference = case.forward(functional, training=False)
        for got, kept in zip(inference[:-1], case.forward(functional)[:-1]):
            np.testing.assert_allclose(got, kept, rtol=1e-5, atol=1e-6)
        case = replace(masked(case), reverse=shape[1] == 13)
        assert_results_close(case.run(functional), expect(case), dtype)


@every_cell
def test_zoneout_of_one_state(cell: str, options: dict[str, Any]) -> None:
    case = noisy(make_case(cell, options, (6, 5, 3, 9), "float64"))
    for name in ("recurrent_mask", *("zoneout_" + s for s in STATES[cell])):
        alone = replace(case, extra={name: case.extra[name]})
        assert_results_close(alone.run(functional), expect(alone), "float64")
    broadcast = np.broadcast_to(np.full(9, 0.3), (6, 5, 9))
    case = replace(case, extra={"zoneout_h": broadcast})
    assert_results_close(case.run(functional), expect(case), "float64")


def test_instruction_sets(isa: str) -> None:
    for cell, options in FORMS:
        case = masked(noisy(make_case(cell, options, (6, 9, 5, 21), "float32")))
        assert_results_close(case.run(functional), expect(case), "float32")


@every_form
def test_every_way_to_share_out_gives_the_same_bits(cell: str, options: dict[str, Any]) -> None:
    case = masked(noisy(make_case(cell, options, (9, 14, 5, 40), "float32")))
    assert_same_bits_however_shared_out(case)


@pytest.mark.parametrize("precision", ["high", "medium"])
@every_cell
def test_tiles(cell: str, options: dict[str, Any], precision: str) -> None:
    """Tiles round products, not noise: errors are those of the same case without noise, or twice them at most."""
    case = make_case(cell, options, (5, 18, 3, 40), "float32")
    errors = []
    _native.emulate_amx(True)
    fastrnn.set_matmul_precision(precision)
    try:
        for one in (case, noisy(case)):
            got, wanted = one.run(functional), expect(one)
            errors.append(max(np.abs(got[k] - wanted[k]).max() / np.abs(wanted[k]).max() for k in got))
    finally:
        _native.emulate_amx(False)
        fastrnn.set_matmul_precision("highest")
    assert 0 < errors[1] < 2 * errors[0]


@pytest.mark.parametrize("module", [functional, reference])
def test_what_is_no_noise(module: ModuleType) -> None:
    case = noisy(make_case("lstm", {"projection": True}, (5, 4, 3, 6), "float32"))
    for name, wrong, error, words in (
        ("recurrent_mask", case.extra["recurrent_mask"][:3], ValueError, "recurrent_mask: expected shape"),
        ("zoneout_h", case.extra["zoneout_c"], ValueError, "zoneout_h: expected shape"),
        ("zoneout_c", case.extra["zoneout_h"], ValueError, "zoneout_c: expected shape"),
        ("zoneout_h", case.extra["zoneout_h"].astype(np.float64), TypeError, "zoneout_h: expected float32"),
        ("recurrent_mask", 0.5, TypeError, "recurrent_mask: expected a NumPy array, got float"),
    ):
        with pytest.raises(error, match=words):
            replace(case, extra=case.extra | {name: wrong}).forward(module)


# --- Layers -----------------------------------------------------------------------------------------------------------

LAYERS = [
    (fastrnn.RNN, {}),
    (fastrnn.GRU, {}),
    (fastrnn.GRU, {"reset_after": False}),
    (fastrnn.LSTM, {}),
    (fastrnn.LSTM, {"proj_size": 3, "zoneout": (0.2, 0.4)}),
]
every_layer = pytest.mark.parametrize("cls, options", LAYERS, ids=[f"{c.__name__}-{'-'.join(o)}" for c, o in LAYERS])


def make(cls: Any, options: dict[str, Any], **more: Any) -> Any:
    return cls(3, 5, 2, **({"recurrent_dropout": 0.3, "zoneout": 0.2, "rng": 0} | options | more))


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@every_layer
def test_gradients_of_layers(cls: Any, options: dict[str, Any], bidirectional: bool) -> None:
    x = np.random.default_rng(1).standard_normal((5, 3, 3))
    layer = make(cls, options, bidirectional=bidirectional, dtype=np.float64, dropout=0.2)
    fastrnn.check_gradients(layer, x)
    fastrnn.check_gradients(layer, x, mask=np.random.default_rng(2).random((5, 3)) < 0.6)


@every_layer
def test_noise_is_for_training_alone(cls: Any, options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).standard_normal((5, 3, 3)).astype(np.float32)
    layer, plain = make(cls, options), cls(3, 5, 2, rng=0, **{k: v for k, v in options.items() if k != "zoneout"})
    plain.load_state_dict(layer.state_dict())
    one, other = layer(x, training=True)[0], layer(x, training=True)[0]
    assert (one != other).any()
    np.testing.assert_array_equal(layer(x)[0], layer(x)[0])
    dropped = make(cls, options, zoneout=0.0)
    dropped.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(dropped(x)[0], plain(x)[0])
    assert (layer(x)[0] != plain(x)[0]).any()


@every_layer
def test_one_mask_for_all_steps(cls: Any, options: dict[str, Any]) -> None:
    layer = cls(3, 5, recurrent_dropout=0.5, rng=0, **{k: v for k, v in options.items() if k != "zoneout"})
    x = np.random.default_rng(1).standard_normal((6, 64, 3)).astype(np.float32)
    mask = dropout_mask(np.random.default_rng(7), (64, layer.state_spec.widths[0]), 0.5, np.float32)
    assert set(np.unique(mask)) == {0, 2}
    weights = {kind: layer.params[name] for kind, name in layer._names[0].items()}
    layer._rng.bit_generator.state = np.random.default_rng(7).bit_generator.state
    output = layer(x, training=True)[0]
    function = getattr(functional, layer.spec.cell + "_forward")
    states = (None,) * len(layer.states)
    expected = function(x, *states, **weights, **layer.spec.options, recurrent_mask=mask)[0]
    np.testing.assert_array_equal(output, expected)


@every_layer
def test_streams_have_the_expectation(cls: Any, options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).standard_normal((5, 3, 3)).astype(np.float32)
    layer = make(cls, options)
    stream = layer.stream(3)
    output, _ = layer(x)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), output)
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), output)
    layer.prepare()
    np.testing.assert_array_equal(layer(x)[0], output)


def test_the_mean_of_training_is_near_the_expectation() -> None:
    """With one step from a given state zoneout is linear: the mean over many draws is the value in evaluation."""
    layer = fastrnn.LSTM(3, 8, zoneout=(0.3, 0.6), rng=0)
    rng = np.random.default_rng(0)
    x, N = rng.standard_normal((1, 1, 3)).astype(np.float32), 20000
    state = tuple(rng.standard_normal((1, 1, 8)).astype(np.float32) for _ in "hc")
    many = [np.repeat(a, N, axis=1) for a in (x, *state)]
    _, (h, c) = layer(many[0], tuple(many[1:]), training=True)
    _, (h_mean, c_mean) = layer(x, state)
    np.testing.assert_allclose(h.mean(axis=1), h_mean[:, 0], atol=0.03)
    np.testing.assert_allclose(c.mean(axis=1), c_mean[:, 0], atol=0.03)
    kept = (h[0] == state[0][0]).mean(), (c[0] == state[1][0]).mean()
    np.testing.assert_allclose(kept, (0.3, 0.6), atol=0.01)


@every_layer
def test_options_come_back(cls: Any, options: dict[str, Any], tmp_path: Path) -> None:
    layer = make(cls, options)
    serialization.save_model(layer, tmp_path / "m.fastrnn")
    loaded = serialization.load_model(tmp_path / "m.fastrnn")
    assert loaded.arguments() == layer.arguments() and loaded.noise == layer.noise
    assert "zoneout" not in cls(3, 5).arguments() and "recurrent_dropout" not in cls(3, 5).arguments()


def test_what_is_no_probability() -> None:
    for options, words in (
        ({"recurrent_dropout": 1.0}, "recurrent_dropout: expected a probability 0 <= p < 1, got 1.0"),
        ({"zoneout": -0.1}, "zoneout: expected a probability 0 <= p < 1, got -0.1"),
        ({"zoneout": (0.1,)}, r"zoneout: expected a probability or \(zoneout_h, zoneout_c\), got a tuple of 1"),
        ({"zoneout": (0.1, 2)}, "zoneout_c: expected a probability 0 <= p < 1, got 2"),
    ):
        with pytest.raises(ValueError, match=words):
            fastrnn.LSTM(3, 5, **options)
    with pytest.raises(ValueError, match="zoneout: expected a probability, got a tuple of 2"):
        fastrnn.GRU(3, 5, zoneout=(0.1, 0.2))
