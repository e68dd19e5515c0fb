"""from_gates: layers from weights gate by gate, against layers that have them, and what does not fit.

Letters: N batch, T time steps, D features, H hidden size, P proj_size.
"""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import GRU, LSTM, RNN

N, T, D, H = 3, 5, 2, 4
X = np.random.default_rng(0).standard_normal((T, N, D)).astype(np.float32)


def gates_of(layer, letters, biases=2, named=False, transposed=False):
    """The gates of a layer, in the order of the alphabet."""
    found = {}
    for k, letter in enumerate(letters):
        rows = slice(k * H, (k + 1) * H)
        parts = {name: layer.params[f"{name}_l0"][rows] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        if transposed:
            parts = {name: value.T for name, value in parts.items()}
        if biases == 1:
            parts["bias"] = parts.pop("bias_ih") + parts.pop("bias_hh")
        if biases == 0:
            del parts["bias_ih"], parts["bias_hh"]
        found[letter] = parts if named else tuple(parts.values())
    return dict(sorted(found.items()))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make, letters", [(RNN, "h"), (GRU, "rzn"), (LSTM, "ifgo")])
def test_gates_in_any_order(make, letters, named, transposed):
    layer = make(D, H, rng=1)
    for biases in (2, 1):
        if biases == 1 and make is GRU:  # that of n is not the sum of two
            layer.params["bias_hh_l0"][2 * H :] = 0
        made = make.from_gates(**gates_of(layer, letters, biases, named, transposed), transposed=transposed)
        assert made.dtype == np.float32 and made.bias
        np.testing.assert_allclose(made(X)[0], layer(X)[0], rtol=1e-5, atol=1e-6)
    bare = make.from_gates(**gates_of(layer, letters, 0, named, transposed), transposed=transposed, batch_first=True)
    assert not bare.bias and bare.batch_first
    assert np.array_equal(bare.params["weight_ih_l0"], layer.params["weight_ih_l0"])
    bare.params["weight_ih_l0"][...] = 0  # copies
    assert layer.params["weight_ih_l0"].any()
    wide = make(D, H, rng=1, dtype="float64")
    assert make.from_gates(**gates_of(wide, letters)).dtype == np.float64
    assert make.from_gates(**gates_of(wide, letters), dtype="float32").dtype == np.float32


def test_an_update_gate_that_is_turned_round():
    rng = np.random.default_rng(2)
    W, U = rng.standard_normal((3, H, D)), rng.standard_normal((3, H, H))
    b = rng.standard_normal((3, H))
    gates = {name: (W[k], U[k], b[k]) for k, name in enumerate("rzn")}
    x, h = X.astype(float), np.zeros((N, H))
    expected = []
    for x_t in x:  # h_t = (1 - z) h + z n, reset before the product, as in Cho et al.
        r, z = (1 / (1 + np.exp(-(x_t @ W[k].T + h @ U[k].T + b[k]))) for k in (0, 1))
        n = np.tanh(x_t @ W[2].T + (r * h) @ U[2].T + b[2])
        h = (1 - z) * h + z * n
        expected.append(h)
    layer = GRU.from_gates(**gates, invert_z=True, reset_after=False)
    np.testing.assert_allclose(layer(x)[0], expected, rtol=1e-12)
    assert not np.allclose(GRU.from_gates(**gates, reset_after=False)(x)[0], expected)
    assert np.array_equal(gates["z"][0], W[1])  # the caller's stay


def test_forget_bias_peepholes_and_projection():
    layer = LSTM(D, H, peephole=True, proj_size=3, rng=1)
    gates = gates_of(layer, "ifgo", 1)
    p_i, p_f, p_o = np.split(layer.params["weight_peephole_l0"], 3)
    hr = layer.params["weight_hr_l0"]
    options = {"peepholes": {"o": p_o, "i": p_i, "f": p_f}, "forget_bias": 1.0}
    made = LSTM.from_gates(**gates, **options, weight_hr=hr)
    layer.params["bias_ih_l0"][H : 2 * H] += 1
    np.testing.assert_allclose(made(X)[0], layer(X)[0], rtol=1e-5, atol=1e-6)
    turned = {name: tuple(a.T for a in gate) for name, gate in gates.items()}
    other = LSTM.from_gates(**turned, **options, weight_hr=hr.T, transposed=True)
    assert np.array_equal(other(X)[0], made(X)[0])
    bare = LSTM.from_gates(**{name: gate[:2] for name, gate in gates.items()}, weight_hr=hr, forget_bias=1.0)
    assert bare.bias and (bare.params["bias_ih_l0"][H : 2 * H] == 1).all()


def test_what_does_not_fit_is_said():
    gates = gates_of(LSTM(D, H, rng=1), "ifgo")
    turned = gates_of(LSTM(D, H, rng=1), "ifgo", transposed=True)
    cases = [
        ({"gates": turned}, ValueError, r"^i: expected .* got .*; transposed=True takes them$"),
        ({"gates": gates, "transposed": True}, ValueError, r"^i: expected .*; transposed=False takes them$"),
        (
            {"f": turned["f"]},
            ValueError,
            r"^f: expected weight_ih of shape \(4, 2\), got \(2, 4\); transposed=True takes",
        ),
        (
            {"g": gates["g"][:3]},
            ValueError,
            "^g: expected weight_ih, weight_hh, bias_ih, bias_hh like i, got weight_ih",
        ),
        ({"o": gates["o"][:1]}, TypeError, r"^o: expected \(weight_ih, weight_hh\), with .* got 1 of them$"),
        ({"o": 3}, TypeError, "^o: expected .* or a dict, got int$"),
        (
            {"o": {"kernel": 1}},
            ValueError,
            "^o: expected weight_ih, weight_hh, bias or bias_ih and bias_hh, got kernel$",
        ),
        (
            {"o": tuple(a.astype(int) for a in gates["o"])},
            TypeError,
            "^o: expected weight_ih of floating point, got int",
        ),
        ({"i": (gates["i"][1], gates["i"][0], *gates["i"][2:])}, ValueError, "^f: expected weight_ih of shape"),
        ({"peepholes": {"i": np.zeros(H)}}, ValueError, "^peepholes: expected a dict of i, f and o, got i$"),
        ({"peepholes": dict.fromkeys("ifo", np.zeros(3))}, ValueError, r"^peepholes: expected i of shape \(4,\), got"),
        ({"num_layers": 2}, ValueError, "^num_layers: expected 1, as these are the gates of one level"),
        ({"bias": False}, ValueError, "^bias: expected True"),
    ]
    for changed, error, words in cases:
        given = changed.pop("gates", gates) | {"transposed": False} | changed
        with pytest.raises(error, match=words):
            LSTM.from_gates(**given)
    with pytest.raises(TypeError, match="unexpected keyword|missing"):
        LSTM.from_gates(i=gates["i"], j=gates["f"], f=gates["f"], o=gates["o"])


def gates_of_all(layer, letters, peephole=False, transposed=False):
    """A list for each gate, forward before backward of each level; peepholes; projections."""
    suffixes = [f"_l{k}{end}" for k in range(layer.num_layers) for end in ("", "_reverse")[: 1 + layer.bidirectional]]
    gates = {letter: [] for letter in sorted(letters)}
    for suffix in suffixes:
        for k, letter in enumerate(letters):
            names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
            parts = [layer.params[name + suffix][k * H : (k + 1) * H] for name in names]
            gates[letter].append(tuple(part.T if transposed else part for part in parts))
    peepholes = (
        [dict(zip("ifo", np.split(layer.params[f"weight_peephole{s}"], 3))) for s in suffixes] if peephole else []
    )
    projections = [layer.params[f"weight_hr{s}"] for s in suffixes if f"weight_hr{s}" in layer.params]
    return gates, peepholes, [hr.T if transposed else hr for hr in projections]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("levels, bidirectional", [(1, True), (2, False), (3, True)])
@pytest.mark.parametrize("make, letters", [(RNN, "h"), (GRU, "rzn"), (LSTM, "ifgo")])
def test_levels_and_directions_as_lists(make, letters, levels, bidirectional, bias, transposed):
    layer = make(D, H, levels, bidirectional=bidirectional, bias=bias, rng=1)
    gates, _, _ = gates_of_all(layer, letters, transposed=transposed)
    made = make.from_gates(**gates, bidirectional=bidirectional, transposed=transposed)
    assert (made.num_layers, made.bidirectional, made.bias) == (levels, bidirectional, bias)
    assert made.state_dict().keys() == layer.state_dict().keys()
    assert np.array_equal(made(X)[0], layer(X)[0])
    if levels == 2:
        assert make.from_gates(**gates, num_layers=2, transposed=transposed).num_layers == 2


def test_peepholes_projections_and_forget_biases_of_several_levels():
    layer = LSTM(D, H, 2, bidirectional=True, peephole=True, proj_size=3, rng=1)
    for transposed in (False, True):
        gates, peepholes, hr = gates_of_all(layer, "ifgo", True, transposed)
        options = {"bidirectional": True, "transposed": transposed, "peepholes": peepholes, "weight_hr": hr}
        made = LSTM.from_gates(**gates, **options)
        assert np.array_equal(made(X)[0], layer(X)[0])
    started = LSTM.from_gates(**gates, **options, forget_bias=1.0)
    for name, value in layer.params.items():
        added = 1.0 if name.startswith("bias_ih") else 0.0
        np.testing.assert_allclose(started.params[name][H : 2 * H], value[H : 2 * H] + added, rtol=1e-6)


def test_turned_update_gates_of_several_levels():
    layer = GRU(D, H, 2, rng=1)
    gates, _, _ = gates_of_all(layer, "rzn")
    turned = gates | {"z": [tuple(-part for part in gate) for gate in gates["z"]]}
    assert np.array_equal(GRU.from_gates(**turned, invert_z=True)(X)[0], layer(X)[0])


def test_nested_lists_are_weights_of_one_level():
    layer = RNN(D, H, rng=1, dtype="float64")
    gate = [layer.params[f"{name}_l0"].tolist() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    for h in (gate, [gate], [tuple(gate)]):
        assert np.array_equal(RNN.from_gates(h=h)(X.astype(float))[0], layer(X.astype(float))[0])


def test_lists_that_do_not_fit_together():
    gates, _, _ = gates_of_all(LSTM(D, H, 2, bidirectional=True, rng=1), "ifgo")
    one = {name: gate[:2] for name, gate in gates.items()}
    deep, _, _ = gates_of_all(LSTM(D, H, 2, rng=1), "ifgo")
    bare, _, _ = gates_of_all(LSTM(D, H, 2, bias=False, rng=1), "ifgo")
    cases = [
        (gates, {}, r"^gates\[1\]: expected weight_ih of shape \(4, 4\) in each gate, got \(4, 2\)$"),
        (
            deep,
            {"bidirectional": True},
            r"^gates\[1\]: expected weight_ih of shape \(4, 2\) in each gate, got \(4, 4\)$",
        ),
        (
            {name: gate[:3] for name, gate in gates.items()},
            {"bidirectional": True},
            "^bidirectional: .* even length, got 3$",
        ),
        (
            gates,
            {"bidirectional": True, "num_layers": 4},
            "^num_layers: expected 2, as these are the gates of 2 levels",
        ),
        (
            gates | {"g": gates["g"][:3]},
            {},
            "^g: expected a list of 4 like f, got 3$|^g: expected a list of 4 like i, got 3$",
        ),
        (gates | {"o": gates["o"][0]}, {}, "^o: expected a list of 4 like i, got one$"),
        (one | {"f": [one["f"][0], gates["f"][2]]}, {}, r"^f\[1\]: expected weight_ih of shape \(4, 2\), got \(4, 8\)"),
        (
            {name: [deep[name][0], bare[name][1]] for name in deep},
            {},
            r"^gates\[1\]: expected .*bias_hh like gates\[0\], got",
        ),
        (deep, {"peepholes": [dict.fromkeys("ifo", np.zeros(H))]}, "^peepholes: expected a list of 2, .* got 1$"),
        (deep, {"weight_hr": np.zeros((3, H))}, "^weight_hr: expected a list of 2, .* got ndarray$"),
    ]
    for given, options, words in cases:
        with pytest.raises(ValueError, match=words):
            LSTM.from_gates(**given, **options)
