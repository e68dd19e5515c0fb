"""Generation at its edges: NaN, infinities, tiny temperatures, no sequences.

Letters: N batch, T time steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_generation import Plain

import fastrnn
from fastrnn import GRU, Embedding, Linear, Sequential

D, H, V = 2, 4, 7


def language_model(compiled=True):
    layers = [Embedding(V, D), GRU(D, H), Linear(H, V)]
    if not compiled:
        layers[2] = Plain(H, V)
    return Sequential(*layers, rng=1)


MODES = [
    {},
    {"mode": "sample"},
    {"mode": "sample", "temperature": 0.5, "top_k": 2},
    {"mode": "sample", "temperature": 0},
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("options", MODES, ids=repr)
def test_logits_of_nan_are_an_error_in_every_mode(options, compiled):
    model = language_model(compiled)
    model[2].params["bias"][3] = np.nan
    with pytest.raises(FloatingPointError, match="^model: expected outputs without NaN, got NaN in row 0$"):
        model.generate(np.array([1, 2]), 4, rng=0, **options)
    model[2].params["bias"][3] = 0
    model.generate(np.array([1, 2]), 4, rng=0, **options)


@pytest.mark.parametrize("compiled", [True, False])
def test_nan_is_an_error_also_later_in_feedback_and_in_a_beam(compiled):
    model = language_model(compiled)
    model[0].params["weight"][4] = np.nan  # once token 4 has been read
    model[2].params["bias"][4] = 100
    with pytest.raises(FloatingPointError, match="got NaN in row 0"):
        model.generate(np.array([1, 2]), 4)
    assert model.generate(np.array([1, 2]), 1).tolist() == [[4], [4]]
    linear = Linear(D, D, rng=0) if compiled else Plain(D, D, rng=0)
    linear.params["weight"][...] = [[0, np.inf], [1, 1]]
    with pytest.raises(FloatingPointError, match="got NaN in row"):
        Sequential(linear).generate(np.zeros((2, D), np.float32), 4, mode="feedback")
    with pytest.raises(FloatingPointError, match="got NaN in row"):
        fastrnn.streaming.decode.beam_search(
            lambda tokens, state: (np.full((len(tokens), V), np.nan), state),
            np.zeros(2, int),
            None,
            3,
            beam_size=2,
            end=0,
        )


@pytest.mark.parametrize("compiled", [True, False])
def test_an_infinite_logit_wins(compiled):
    model = language_model(compiled)
    model[2].params["bias"][5] = np.inf
    for options in MODES:
        assert (model.generate(np.array([1, 2]), 6, rng=0, **options) == 5).all()
    model[2].params["bias"][2] = np.inf  # two of them share
    tokens = model.generate(np.arange(V).repeat(200) % V, 1, mode="sample", rng=0)
    shares = np.bincount(tokens.ravel(), minlength=V) / tokens.size
    assert set(np.flatnonzero(shares)) == {2, 5} and abs(shares[2] - 0.5) < 0.05
    model[2].params["bias"][2] = -np.inf
    assert (model.generate(np.array([1, 2]), 6, mode="sample", rng=0) == 5).all()
    scores = fastrnn.streaming.decode.log_softmax(np.array([[0.0, np.inf, 1.0, np.inf]]))
    np.testing.assert_allclose(scores, [[-np.inf, np.log(0.5), -np.inf, np.log(0.5)]])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-31, 1e-12, 0])
def test_a_tiny_temperature_is_the_limit_in_both_paths(temperature, compiled):
    model = language_model(compiled)
    greedy = model.generate(np.arange(V), 9)
    assert len(np.unique(greedy)) > 1
    for top_k in (None, 3):
        options = {"mode": "sample", "temperature": temperature, "top_k": top_k, "rng": 0}
        assert np.array_equal(model.generate(np.arange(V), 9, **options), greedy)


@pytest.mark.parametrize("compiled", [True, False])
def test_generation_of_no_sequences(compiled):
    model, rng = language_model(compiled), np.random.default_rng(0)
    for start in (np.zeros(0, int), np.zeros((0, 3), int)):
        for options in ({}, {"mode": "sample", "rng": rng}, {"end": 1}):
            tokens = model.generate(start, 4, **options)
            assert tokens.shape == (0, 4) and tokens.dtype == model.generate(np.ones(1, int), 4).dtype
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    tokens, state = model.generate(start, 4, return_state=True)
    of_one = model.generate(np.ones(1, int), 4, return_state=True)[1]
    for part, one in zip(*map(fastrnn._state.flatten, (state, of_one)), strict=True):
        assert part.shape == (len(one), 0, *one.shape[2:]) and part.dtype == one.dtype
    assert model.generate(tokens[:, -1], 2, state).shape == (0, 2)
    with pytest.raises(ValueError, match="state: expected shape .*, 0, "):
        model.generate(start, 4, of_one)
    with pytest.raises(ValueError, match=r"start: expected shape \(N,\) or \(N, T\), with nothing empty but N"):
        model.generate(np.zeros((0, 0), int), 4)


def test_feedback_of_no_sequences():
    for batch_first in (False, True):
        model = Sequential(GRU(D, H, batch_first=batch_first), Linear(H, D), rng=0)
        for start in (np.zeros((0, D), np.float32), np.zeros((0, 3, D), np.float32)):
            made = model.generate(start, 4, mode="feedback")
            assert made.shape == (0, 4, D) and made.dtype == np.float32
        with pytest.raises(ValueError, match=r"start: expected shape \(.*, 2\)"):
            model.generate(np.zeros((0, D + 1), np.float32), 4, mode="feedback")
    with pytest.raises(ValueError, match="layers: expected outputs as wide as inputs, 2, got 4"):
        Sequential(GRU(D, H, rng=0)).generate(start, 4, mode="feedback")
    with pytest.raises(ValueError, match="expected one direction for a stream"):
        Sequential(GRU(D, H, bidirectional=True), Linear(2 * H, D), rng=0).generate(start, 4, mode="feedback")
