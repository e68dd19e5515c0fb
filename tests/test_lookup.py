"""Vectors that a recurrent layer looks up in an Embedding's table: the same as if they had been written out.

Letters: T time steps, N batch, V vocabulary, D size of a vector, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import _native
from fastrnn.layers import lookup
from fastrnn.layers.lookup import Lookup, LookupGradient

T, N, V, D, H = 9, 7, 5, 12, 21
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-12, "atol": 1e-12}}
LAYERS: dict[str, tuple[type, dict[str, Any]]] = {
    "lstm": (fastrnn.LSTM, {"num_layers": 2}),
    "gru": (fastrnn.GRU, {"bidirectional": True}),
    "gru, reset before": (fastrnn.GRU, {"reset_after": False}),
    "rnn": (fastrnn.RNN, {"num_layers": 2, "dropout": 0.3}),
    "projection": (fastrnn.LSTM, {"proj_size": 4, "bidirectional": True}),
    "peepholes": (fastrnn.LSTM, {"peephole": True}),
    "sum of directions": (fastrnn.LSTM, {"bidirectional": True, "merge": "sum"}),
    "zoneout": (fastrnn.LSTM, {"zoneout": 0.2, "recurrent_dropout": 0.2}),
    "without biases": (fastrnn.GRU, {"bias": False}),
}


def model_of(kind: str, dtype: Any = np.float64, batch_first: bool = False, **embedding: Any) -> fastrnn.Sequential:
    make, options = LAYERS[kind]
    first = fastrnn.Embedding(V, D, dtype=dtype, rng=1, **embedding)
    return fastrnn.Sequential(first, make(D, H, batch_first=batch_first, dtype=dtype, rng=2, **options))


def train(model: fastrnn.Sequential, x: Any, **context: Any) -> tuple[Any, dict[str, Any]]:
    """The output and all gradients of one call in training."""
    y, _ = model.run(x, training=True, **context)
    dy = np.random.default_rng(4).standard_normal(y.shape).astype(y.dtype)
    if "lengths" in context:
        dy *= (np.arange(T)[:, None] < context["lengths"])[..., None]
    model.backward(dy)
    return y, {name: np.array(np.asarray(grad)) for name, grad in model.grads.items()}


@pytest.fixture
def written_out(monkeypatch: pytest.MonkeyPatch) -> Any:
    """written_out(call): `call()` with vectors written out."""

    def run(call: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Lookup, "pays", staticmethod(lambda tokens, table: False))
            return call()

    return run


def tokens(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, V, (T, N))


CONTEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": np.array([9, 1, 5, 5, 8, 2, 9])},
    "resets": {"reset_mask": np.random.default_rng(1).random((T, N)) < 0.3},
    "mask": {"mask": np.random.default_rng(2).random((T, N)) < 0.6},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_same_as_written_out(kind: str, context: str, dtype: str, written_out: Any) -> None:
    told = CONTEXTS[context]
    y, grads = train(model_of(kind, dtype), tokens(), **told)
    wanted, gradients = written_out(lambda: train(model_of(kind, dtype), tokens(), **told))
    np.testing.assert_allclose(y, wanted, **TOLERANCE[dtype])
    assert set(grads) == set(gradients)
    for name, grad in gradients.items():
        np.testing.assert_allclose(grads[name], grad, **TOLERANCE[dtype], err_msg=name)
        assert np.abs(grad).max() > 1e-3, name  # zeros would be equal to anything


@pytest.mark.parametrize("options", [{"padding_idx": 2}, {"sparse": True}, {"sparse": True, "padding_idx": 0}], ids=str)
def test_options_of_the_embedding(options: dict[str, Any], written_out: Any) -> None:
    y, grads = train(model_of("gru", **options), tokens())
    wanted, gradients = written_out(lambda: train(model_of("gru", **options), tokens()))
    np.testing.assert_allclose(y, wanted, rtol=1e-12)
    np.testing.assert_allclose(grads["0.weight"], gradients["0.weight"], rtol=1e-12, atol=1e-12)
    if "padding_idx" in options:
        assert not grads["0.weight"][options["padding_idx"]].any()


def test_batch_first_and_tokens_of_any_integers(written_out: Any) -> None:
    x = tokens().T.astype(np.uint8)[:, ::-1]
    y, grads = train(model_of("lstm", batch_first=True), x)
    wanted, gradients = written_out(lambda: train(model_of("lstm", batch_first=True), x))
    np.testing.assert_allclose(y, wanted, rtol=1e-12)
    np.testing.assert_allclose(grads["0.weight"], gradients["0.weight"], rtol=1e-12, atol=1e-12)


def test_it_is_looked_up_where_there_are_few_rows_and_a_layer_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[int, ...]] = []

    class Counted(Lookup):
        def __init__(self, tokens: Any, table: Any) -> None:
            met.append(tokens.shape)
            super().__init__(tokens, table)

    monkeypatch.setattr("fastrnn.layers.embedding.Lookup", Counted)
    model = model_of("gru")
    model(tokens(), training=True)
    assert met == [(T, N)]
    model(tokens())  # not without training
    model(tokens()[:2], training=True)  # V is not small beside 14
    fastrnn.Sequential(model[0], fastrnn.Linear(D, 3, dtype=np.float64))(tokens(), training=True)

    class Own(fastrnn.LSTM):
        def forward(self, x: Any, state: Any = None, **options: Any) -> Any:
            assert isinstance(x, np.ndarray)
            return super().forward(x, state, **options)

    learned = fastrnn.GRU(D, H, dtype=np.float64, learn_initial_state=True)
    for layer in (Own(D, H, dtype=np.float64), learned):
        fastrnn.Sequential(model[0], layer)(tokens(), training=True)
    assert met == [(T, N)]
    assert lookup.FEW * V <= T * N


@pytest.mark.parametrize("bad", [-1, V])
def test_a_token_out_of_range_is_named(bad: int) -> None:
    x = tokens()
    x[3, 2] = bad
    with pytest.raises(IndexError, match=rf"expected tokens 0..{V - 1}, got {bad}"):
        model_of("lstm")(x, training=True)


def test_a_wrong_size_is_told_as_ever() -> None:
    model = fastrnn.Sequential(fastrnn.Embedding(V, D), fastrnn.LSTM(D + 1, H))
    with pytest.raises(ValueError, match=rf"x: expected shape .*{D + 1}.* got \({T}, {N}, {D}\)"):
        model(tokens(), training=True)


def test_a_lookup_is_what_it_stands_for() -> None:
    table = np.random.default_rng(0).standard_normal((V, D))
    found = Lookup(tokens(), table)
    assert found.shape == (T, N, D) and found.dtype == table.dtype and found.ndim == 3
    np.testing.assert_array_equal(np.asarray(found), table[tokens()])
    np.testing.assert_array_equal(np.asarray(found.time_major(True)), table[tokens()].swapaxes(0, 1))
    assert np.asarray(found, np.float32).dtype == np.float32


@pytest.mark.parametrize("plan", [{"by_units": True}, {"by_units": False}, {"by_units": False, "chunk": 2}], ids=str)
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru, reset before", "projection"])
def test_the_same_bits_for_any_number_of_threads(kind: str, plan: dict[str, Any]) -> None:
    results = []
    for threads in (1, 2, 3, 8):
        _native.force_plan(threads=threads, **plan)
        try:
            results.append(train(model_of(kind, "float32"), tokens(), lengths=CONTEXTS["lengths"]["lengths"]))
        finally:
            _native.force_plan()
    for y, grads in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        for name, grad in grads.items():
            np.testing.assert_array_equal(grad, results[0][1][name], err_msg=name)


@pytest.mark.parametrize("isa", _native.isas())
def test_every_instruction_set(isa: str, written_out: Any) -> None:
    before = _native.isa()
    _native.use_isa(isa)
    try:
        _, grads = train(model_of("lstm", "float32"), tokens())
        _, gradients = written_out(lambda: train(model_of("lstm", "float32"), tokens()))
    finally:
        _native.use_isa(before)
    for name, grad in gradients.items():
        np.testing.assert_allclose(grads[name], grad, **TOLERANCE["float32"], err_msg=name)


def test_gradients_by_finite_differences() -> None:
    model = model_of("lstm")
    x = tokens()
    dy = np.random.default_rng(4).standard_normal((T, N, H))
    _, grads = train(model, x)
    for name in ("0.weight", "1.weight_ih_l0"):
        weight = model.params[name]
        for place in [(0, 0), (V - 1, 3), (2, D - 1)]:
            ends = []
            for step in (1e-6, -1e-6):
                before = weight[place]
                weight[place] += step
                ends.append((model(x, training=True) * dy).sum())
                weight[place] = before
            np.testing.assert_allclose(grads[name][place], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-6)


def test_a_gradient_has_a_part_of_each_direction() -> None:
    model = model_of("gru")
    y, _ = model[1].run(model[0].look_up(tokens()), training=True)
    dx, _ = model[1].backpropagate(np.ones_like(y))
    assert isinstance(dx, LookupGradient) and len(dx.parts) == 2
    for met, sums in dx.parts:
        np.testing.assert_array_equal(met, np.unique(tokens()))
        assert sums.shape == (len(met), D)
