"""How the weights of RNN, GRU and LSTM layers start.

Letters: D input_size, H hidden_size, G gates, L layers, S directions.
"""

from __future__ import annotations

import numpy as np
import pytest
from layer_cases import LAYERS, D, H, every_layer

from fastrnn.layers import LSTM, RNN


@every_layer
def test_uniform_start(kind):
    layer = LAYERS[kind](40, 64, 2, bidirectional=True, rng=0)
    bound = 64**-0.5
    for name, param in layer.params.items():
        assert 0.85 * bound < np.abs(param).max() <= bound, name
        assert abs(param.mean()) < 5 * bound / np.sqrt(3 * param.size), name
        assert abs(param.var() / (bound**2 / 3) - 1) < 5 / np.sqrt(param.size), name
    drawn = [param.ravel()[:8].tobytes() for param in layer.params.values()]
    assert len(set(drawn)) == len(drawn)


@every_layer
def test_orthogonal_start(kind):
    layer = LAYERS[kind](40, 48, init="orthogonal", dtype=np.float64, rng=0)
    gates = layer.params["weight_hh_l0"].reshape(-1, 48, 48)
    assert len(gates) == layer.gates
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(48), atol=1e-12)
    assert all(np.abs(a - b).max() > 0.1 for k, a in enumerate(gates) for b in gates[:k])
    assert np.abs(layer.params["weight_ih_l0"]).max() <= 48**-0.5


def test_orthogonal_start_is_uniform_over_orthogonal_matrices():
    """For those, the trace has mean 0 and variance 1; a QR's own signs would make the mean far from 0."""
    traces = [np.trace(RNN(1, 4, init="orthogonal", rng=seed).params["weight_hh_l0"]) for seed in range(2000)]
    assert abs(np.mean(traces)) < 5 / np.sqrt(2000)
    assert abs(np.var(traces) - 1) < 0.15


def test_forget_bias():
    plain, layer = (LSTM(D, H, 2, bidirectional=True, rng=1, forget_bias=value) for value in (None, 1.0))
    forget = slice(H, 2 * H)
    for k in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = layer.params["bias_ih" + k] + layer.params["bias_hh" + k]
        np.testing.assert_array_equal(total[forget], np.ones(H))
    for name, param in layer.params.items():
        others = np.ones(len(param), bool)
        others[forget] = not name.startswith("bias")
        np.testing.assert_array_equal(param[others], plain.params[name][others])
    with pytest.raises(ValueError, match="^forget_bias: expected None, as bias is False$"):
        LSTM(D, H, bias=False, forget_bias=1.0)
    with pytest.raises(TypeError, match="^forget_bias: expected a number, got 'open'$"):
        LSTM(D, H, forget_bias="open")


@every_layer
@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
def test_one_seed_one_start(kind, init):
    single, double, same, other, generator, drawn = (
        LAYERS[kind](D, H, 2, init=init, dtype=dtype, rng=rng).params
        for dtype, rng in [
            ("f4", 1),
            ("f8", 1),
            ("f4", 1),
            ("f4", 2),
            ("f4", np.random.default_rng(1)),
            ("f8", np.random.default_rng(1)),
        ]
    )
    for name, param in single.items():
        assert param.dtype == np.float32 and double[name].dtype == np.float64
        np.testing.assert_array_equal(param, double[name].astype(np.float32))
        np.testing.assert_array_equal(param, same[name])
        np.testing.assert_array_equal(generator[name], drawn[name].astype(np.float32))
        assert not np.array_equal(param, other[name])
