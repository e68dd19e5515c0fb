"""How RNN, GRU and LSTM layers are described, built again, copied and loaded. Letters: D input_size, H hidden_size."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from layer_cases import LAYERS, D, H, every_layer, random_arguments, run

from fastrnn.layers import GRU, LSTM, RNN, build


@pytest.mark.parametrize(
    "layer",
    [
        RNN(3, 4, 2, nonlinearity="relu", bias=False, dtype=np.float64),
        GRU(3, 4, reset_after=False, batch_first=True, init="orthogonal"),
        LSTM(3, 4, 2, dropout=0.25, bidirectional=True, forget_bias=1.0),
    ],
    ids=repr,
)
def test_config_rebuilds_the_layer(layer):
    config = json.loads(json.dumps(layer.config()))
    again = build(config)
    assert type(again) is type(layer) and again.config() == layer.config()
    for one in (layer, again):
        assert list(one.grads) == list(one.params) == list(layer.params)
        assert all(p.shape == layer.params[n].shape and p.dtype == layer.dtype for n, p in one.params.items())
    same = eval(repr(layer))
    assert same.config() == layer.config()


@every_layer
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies_are_whole_and_apart(kind, duplicate):
    layer = LAYERS[kind](D, H, 2, bidirectional=True, rng=1)
    arguments = random_arguments(layer)
    expected = run(layer, *arguments)
    layer(*arguments[:2], training=True)
    other = duplicate(layer)
    with pytest.raises(RuntimeError):
        other.backward(*arguments[2:])  # the call under way stays with the original
    for name, value in run(other, *arguments).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    other.params["weight_hh_l1"][...] = 0
    other.grads["weight_hh_l1"][...] = 0
    assert layer.params["weight_hh_l1"].any() and layer.grads["weight_hh_l1"].any()


def test_state_dict_is_a_copy():
    layer = LSTM(D, H, rng=1)
    saved = layer.state_dict()
    layer.params["bias_ih_l0"][...] = 7
    assert not (saved["bias_ih_l0"] == 7).any()
    layer.load_state_dict(saved)
    np.testing.assert_array_equal(layer.params["bias_ih_l0"], saved["bias_ih_l0"])


def test_load_state_dict_is_strict_and_all_or_nothing():
    layer = GRU(D, H, rng=1)
    good = {name: np.full_like(value, 9) for name, value in layer.state_dict().items()}
    before = layer.state_dict()
    without = {name: value for name, value in good.items() if name != "bias_hh_l0"}
    for bad, error, message in [
        (without, ValueError, "mapping: expected the parameters of GRU, got missing bias_hh_l0$"),
        (good | {"extra": good["bias_hh_l0"]}, ValueError, "mapping: .* got unknown extra$"),
        (without | {"other": 1}, ValueError, "mapping: .* got missing bias_hh_l0; unknown other$"),
        (good | {"bias_hh_l0": np.zeros(H, "f4")}, ValueError, r"bias_hh_l0: expected shape \(18,\), got \(6,\)$"),
        (good | {"bias_hh_l0": np.zeros(3 * H, int)}, TypeError, "bias_hh_l0: expected floating point, got int64$"),
    ]:
        with pytest.raises(error, match=message):
            layer.load_state_dict(bad)
        for name, value in layer.params.items():
            np.testing.assert_array_equal(value, before[name])
    layer.load_state_dict({name: value.astype(np.float64) for name, value in good.items()})
    assert all((param == 9).all() and param.dtype == np.float32 for param in layer.params.values())
