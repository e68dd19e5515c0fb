"""CellSpec: what a cell is made of, its options under every name, and errors that name them."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

import fastrnn
from fastrnn import functional
from fastrnn.functional.spec import CellSpec, spec_of

SPECS = [
    CellSpec("rnn", activation="relu"),
    CellSpec("gru", reset_after=False, gate_activation="hard_sigmoid"),
    CellSpec("lstm"),
    CellSpec("lstm", clip=2, projection=True, peephole=True, activation="identity"),
]
LAYERS = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.cell}-{spec.activation}")


@every_spec
def test_the_layer_has_the_weights_and_states_of_its_spec(spec):
    D, H, P = 5, 4, 3 if spec.projection else 4
    form = {"proj_size": P, "peephole": True} if spec.projection else {}
    layer = LAYERS[spec.cell](D, H, **spec.options, **form)
    assert {name: param.shape for name, param in layer.params.items()} == {
        f"{name}_l0": shape for name, shape in spec.shapes(D, H, P).items()
    }
    _, state = layer(np.zeros((2, 1, D), np.float32))
    state = state if isinstance(state, tuple) else (state,)
    assert tuple(part.shape[-1] for part in state) == spec.widths(H, P)
    assert len(state) == len(spec.states) and spec.shapes(D, H)["weight_ih"] == (spec.gates * H, D)


@every_spec
def test_options_are_keywords_of_every_function_of_the_cell(spec):
    for name in (f"{spec.cell}_forward", f"{spec.cell}_cell_forward"):
        assert spec.options.keys() <= inspect.signature(getattr(functional, name)).parameters.keys()


def test_a_spec_is_frozen_and_made_once():
    spec = spec_of("lstm", "tanh", "sigmoid", 2.0)
    assert spec is spec_of("lstm", "tanh", "sigmoid", 2.0) and spec == CellSpec("lstm", clip=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.clip = 3.0


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"cell": "jordan"}, ValueError, "cell: expected one of 'rnn', 'gru', 'lstm', got 'jordan'"),
        ({"cell": "rnn", "activation": "softmax"}, ValueError, "nonlinearity: expected one of .*, got 'softmax'"),
        ({"cell": "gru", "activation": None}, ValueError, "activation: expected one of 'tanh', .* got None"),
        ({"cell": "gru", "gate_activation": ["sigmoid"]}, ValueError, "gate_activation: expected one of 'sigmoid'"),
        ({"cell": "lstm", "clip": True}, TypeError, "cell_clip: expected a positive number, got True"),
        ({"cell": "lstm", "clip": -1.0}, ValueError, "cell_clip: expected a positive number, got -1.0"),
        ({"cell": "lstm", "output_activation": "exp"}, ValueError, "output_activation: expected one of 'tanh'"),
    ],
)
def test_errors_name_the_option(fields, error, message):
    with pytest.raises(error, match=f"^{message}"):
        CellSpec(**fields)


def test_an_option_that_cannot_be_hashed_is_an_unknown_option():
    x, w = np.zeros((1, 1, 1), np.float32), np.zeros((1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^nonlinearity: expected one of .*, got \['tanh'\]"):
        functional.rnn_forward(x, None, w, w, None, None, nonlinearity=["tanh"])


def test_true_is_no_clip_also_after_a_clip_of_one():
    x, w = np.zeros((1, 1, 1), np.float32), np.zeros((4, 1), np.float32)
    functional.lstm_forward(x, None, None, w, w, None, None, cell_clip=1)
    with pytest.raises(TypeError, match=r"^cell_clip: expected a positive number, got True$"):
        functional.lstm_forward(x, None, None, w, w, None, None, cell_clip=True)
