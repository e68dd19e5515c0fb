"""Seeds, tied and frozen parameters, parts of foreign state dicts, merged directions.

Letters: N batch, T time steps, D features, H hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import every_dtype

import fastrnn
from fastrnn import GRU, LSTM, RNN, Adam, Dropout, Embedding, LastStep, Linear, Sequential, Trainer, check_gradients
from fastrnn.serialization import load_model, read, save_model

RNG = np.random.default_rng(0)
N, T, D, H, V = 3, 5, 2, 4, 7


def numbers(layer):
    return np.concatenate([a.ravel() for a in layer.params.values()]).astype(np.float64)


# --- Seeds ------------------------------------------------------------------------------------------------------------


def correlation(a, b):
    n = min(a.size, b.size)
    return np.corrcoef(a[:n], b[:n])[0, 1]


def test_layers_with_one_seed_do_not_correlate():
    layers = [
        GRU(12, 32, rng=0),
        Linear(64, 9, rng=0),
        RNN(12, 32, rng=0),
        LSTM(12, 32, rng=0),
        GRU(12, 32, 2, rng=0),
        GRU(12, 32, bidirectional=True, rng=0),
        GRU(32, 12, rng=0),
        Embedding(40, 30, rng=0),
        Linear(9, 64, rng=0),
        fastrnn.Jordan(12, 32, 4, rng=0),
        fastrnn.TreeRNN(12, 32, rng=0),
        fastrnn.TreeLSTM(12, 32, rng=0),
    ]
    found = [numbers(layer) for layer in layers]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert abs(correlation(one, other)) < 5 / np.sqrt(min(one.size, other.size))
    # alone, a seed repeats; a Generator goes on
    assert np.array_equal(numbers(GRU(12, 32, rng=0)), found[0])
    generator = np.random.default_rng(0)
    assert not np.array_equal(numbers(Linear(4, 4, rng=generator)), numbers(Linear(4, 4, rng=generator)))


def twins():
    return Sequential(GRU(8, 8, rng=0), GRU(8, 8, rng=0), Dropout(rng=0), Dropout(rng=0), GRU(8, 8, rng=0))


def test_equal_layers_of_one_model_differ_and_repeat():
    model, again = twins(), twins()
    one, two, three = (numbers(model[k]) for k in (0, 1, 4))
    for a, b in ((one, two), (one, three), (two, three)):
        assert abs(correlation(a, b)) < 0.2
    assert np.array_equal(one, numbers(GRU(8, 8, rng=0)))  # the first one stays
    assert np.array_equal(numbers(model), numbers(again))
    x = np.ones((4, 4, 100), np.float32)
    assert not np.array_equal(model[2](x, training=True), model[3](x, training=True))
    halves = fastrnn.EncoderDecoder(
        Sequential(Embedding(V, D, rng=0), GRU(D, H, rng=0)),
        Sequential(Embedding(V, D, rng=0), GRU(D, H, rng=0), Linear(H, V, rng=0)),
        start=1,
    )
    assert abs(correlation(numbers(halves.encoder[1]), numbers(halves.decoder[1]))) < 0.3
    assert not np.array_equal(numbers(halves.encoder[0]), numbers(halves.decoder[0]))


def test_what_was_loaded_or_changed_is_not_drawn_anew():
    source = GRU(8, 8, rng=5)
    for change in ("load", "by hand"):
        one, two = GRU(8, 8, rng=0), GRU(8, 8, rng=0)
        if change == "load":
            two.load_state_dict(source.params)
        else:
            for name, value in source.params.items():
                two.params[name][...] = value
        arrays = [id(a) for a in two.params.values()]
        model = Sequential(one, two)
        assert np.array_equal(numbers(model[1]), numbers(source))
        assert arrays == [id(a) for a in model[1].params.values()]


@every_dtype
def test_a_model_level_seed(dtype):
    def make(seed, **given):
        layers = Embedding(V, 8, dtype=dtype), GRU(8, 8, dtype=dtype, **given), GRU(8, 8, dropout=0.5, dtype=dtype)
        return Sequential(
            *layers, Sequential(Linear(8, 8, dtype=dtype), Dropout()), Linear(8, 8, dtype=dtype), rng=seed
        )

    model, again, other = make(3), make(3), make(4)
    assert np.array_equal(numbers(model), numbers(again))
    assert [g.bit_generator.state for _, g in model.generators()] == [
        g.bit_generator.state for _, g in again.generators()
    ]
    parts = [numbers(leaf) for leaf in (*model.leaves(), *other.leaves()) if leaf.params]
    for i, one in enumerate(parts):
        for second in parts[:i]:
            assert abs(correlation(one, second)) < 5 / np.sqrt(min(one.size, second.size))
    assert np.array_equal(numbers(make(np.random.default_rng(3))), numbers(make(np.random.default_rng(3))))
    kept = make(3, rng=7)  # a layer's own seed stays
    assert np.array_equal(numbers(kept[1]), numbers(GRU(8, 8, dtype=dtype, rng=7)))
    assert np.array_equal(numbers(kept[0]), numbers(model[0]))
    model.reset_parameters(4)
    assert not np.array_equal(numbers(model), numbers(again))


def test_float32_and_float64_models_start_alike():
    def make(dtype):
        return Sequential(GRU(8, 8, dtype=dtype), Linear(8, 8, dtype=dtype), rng=3)

    assert np.array_equal(numbers(make("f4")), numbers(make("f8")).astype(np.float32))


def test_a_model_seed_wants_layers_that_can_be_drawn():
    class Mine(fastrnn.Module):
        def __init__(self):
            super().__init__()
            self.add_param("w", np.zeros(3, np.float32))

    with pytest.raises(TypeError, match="^rng: expected layers that can draw their weights anew, got Mine without"):
        Sequential(Mine(), rng=0)

    class Yours(Mine):
        def reset_parameters(self, rng=None):
            self.params["w"][...] = rng.random(3)

    assert Sequential(Yours(), rng=0)[0].params["w"].all()
    layer = GRU(8, 8, rng=1)
    layer.prepare()
    layer.reset_parameters(2)
    assert np.array_equal(numbers(layer), numbers(GRU(8, 8, rng=2)))


# --- Tied parameters --------------------------------------------------------------------------------------------------


def language_model(tied=True, dtype="float32"):
    layers = Embedding(V, H, dtype=dtype), GRU(H, H, batch_first=True, dtype=dtype), Linear(H, V, dtype=dtype)
    model = Sequential(*layers, rng=0)
    if tied:
        model.tie("2.weight", to="0.weight")
    return model


TOKENS = RNG.integers(0, V, (N, T))
DY = RNG.standard_normal((N, T, V)).astype(np.float32)


def test_tied_parameters_are_one_array_with_the_sum_of_gradients():
    model, loose = language_model(), language_model(tied=False)
    assert model[2].params["weight"] is model[0].params["weight"] is model.params["0.weight"]
    assert list(model.params) == list(model.grads) == [name for name in loose.params if name != "2.weight"]
    assert model.params["2.weight"] is model.params["0.weight"]  # can be looked up
    loose[2].params["weight"][...] = loose[0].params["weight"]
    for one in (model, loose):
        assert np.array_equal(one(TOKENS, training=True), model(TOKENS))
        one.backward(DY)
    total = loose.grads["0.weight"] + loose.grads["2.weight"]
    np.testing.assert_allclose(model.grads["0.weight"], total, rtol=1e-5, atol=1e-6)
    model.zero_grad()
    assert not model[2].grads["weight"].any()
    assert check_gradients(language_model(dtype="float64"), TOKENS)


def test_tied_parameters_are_counted_once_by_optimiser_and_clipping():
    model = language_model()
    model(TOKENS, training=True)
    model.backward(DY)
    before, grad = model.params["0.weight"].copy(), model.grads["0.weight"].copy()
    norm = fastrnn.SGD(lr=0.1).step(model.params, model.grads, clip_norm=1e9)
    np.testing.assert_allclose(model.params["0.weight"], before - np.float32(0.1) * grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        norm, np.sqrt(sum((g.astype(float) ** 2).sum() for g in model.grads.values())), rtol=1e-5
    )


def test_a_tied_model_on_disk_in_copies_and_in_state_dicts(tmp_path):
    torch = pytest.importorskip("torch")
    model = language_model()
    save_model(model, tmp_path / "m")
    assert "model.2.weight" not in read(tmp_path / "m")[0]
    trainer = Trainer(model, optimizer=Adam(lr=0.01))
    trainer.fit(TOKENS, TOKENS, epochs=1, progress=False)
    trainer.save(tmp_path / "t")
    copies = [
        load_model(tmp_path / "m"),
        Trainer.load(tmp_path / "t").model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    for other in copies:
        assert other[2].params["weight"] is other[0].params["weight"] is not model[0].params["weight"]
        assert other[2].grads["weight"] is other[0].grads["weight"]
        assert other.aliases() == {"2.weight": "0.weight"}
    assert np.array_equal(numbers(copies[1]), numbers(model))
    # PyTorch's state_dict has both names; either will do
    names = ["0", "1", "2"]
    parts = [torch.nn.Embedding(V, H), torch.nn.GRU(H, H), torch.nn.Linear(H, V)]
    parts[2].weight = parts[0].weight
    theirs = torch.nn.ModuleDict(dict(zip(names, parts))).state_dict()
    assert model.state_dict().keys() == theirs.keys()
    model.load_state_dict(theirs)
    assert np.array_equal(model.params["0.weight"], theirs["2.weight"].numpy())
    one = {name: value for name, value in theirs.items() if name != "0.weight"}
    model.load_state_dict(one)
    one["0.weight"] = one["2.weight"] + 1
    with pytest.raises(ValueError, match=r"weight: expected the values of \d.weight, to which it is tied, got others"):
        model.load_state_dict(one)


def test_ties_across_an_encoder_and_a_decoder():
    def make():
        encoder = Sequential(Embedding(V, H), GRU(H, H))
        decoder = Sequential(Embedding(V, H), GRU(H, H), Linear(H, V))
        decoder.tie("2.weight", to="0.weight")
        return fastrnn.EncoderDecoder(encoder, decoder, start=1)

    model = make()
    with pytest.raises(ValueError, match="name: expected a parameter that is not tied yet"):
        model.tie("decoder.0.weight", to="encoder.0.weight")  # the decoder's output has it
    model.tie("encoder.0.weight", to="decoder.2.weight")
    arrays = [model.encoder[0], model.decoder[0], model.decoder[2]]
    assert len({id(layer.params["weight"]) for layer in arrays}) == 1
    assert model.aliases() == {"decoder.2.weight": "decoder.0.weight", "encoder.0.weight": "decoder.0.weight"}
    assert sum("weight" in name and "_" not in name for name in model.params) == 1
    other = fastrnn.layers.build(model.config())
    other.load_state_dict(model.state_dict())
    assert other.encoder[0].params["weight"] is other.decoder[2].params["weight"]


@pytest.mark.parametrize(
    "name, to, words",
    [
        ("3.weight", "0.weight", "name: expected one of 0.weight, .* got '3.weight'"),
        ("2.weight", "0.bias", "to: expected one of"),
        (
            "2.bias",
            "0.weight",
            r"name: expected float32 of shape \(7, 4\) like '0.weight', got float32 of shape \(7,\)",
        ),
        ("2.weight", "2.weight", "name: expected a parameter that is not tied yet, and another than '2.weight'"),
    ],
)
def test_bad_ties(name, to, words):
    with pytest.raises(ValueError, match=words):
        language_model(tied=False).tie(name, to=to)
    with pytest.raises(ValueError, match="name: expected a parameter that is not tied yet"):
        language_model().tie("2.weight", to="0.weight")
    with pytest.raises(ValueError, match="name: expected a layer made of others, got Linear"):
        Linear(2, 2).tie("weight", to="weight")


# --- Frozen layers ----------------------------------------------------------------------------------------------------


def test_a_frozen_layer_is_left_as_it_is(tmp_path):
    model = language_model(tied=False)
    assert model.trainable
    model[0].freeze()
    assert not model.trainable and model[1].trainable
    assert list(model.trainable_params) == [name for name in model.params if not name.startswith("0.")]
    before = model.state_dict()
    trainer = Trainer(model, optimizer=Adam(lr=0.1))
    trainer.fit(TOKENS, TOKENS, epochs=2, progress=False)
    for name, value in model.params.items():
        assert np.array_equal(value, before[name]) == name.startswith("0."), name
    trainer.save(tmp_path / "t")
    again = Trainer.load(tmp_path / "t")
    assert not again.model[0].trainable and again.model[2].trainable
    for one in (trainer, again):
        one.fit(TOKENS, TOKENS, epochs=1, progress=False)
    assert np.array_equal(numbers(trainer.model), numbers(again.model))
    model.freeze()
    assert not model.trainable_params
    model.unfreeze()
    assert model.trainable and len(model.trainable_params) == len(model.params)
    assert not copy.deepcopy(again.model)[0].trainable


def test_weights_that_are_stepped_without_the_frozen_ones_count_as_changed():
    model = language_model(tied=False)
    model[0].freeze()
    model(TOKENS, training=True)
    fastrnn.SGD(lr=0.1).step(model.trainable_params, model.grads)
    with pytest.raises(RuntimeError, match="expected the weights of the call with training=True"):
        model.backward(DY)


# --- Parts of foreign state dicts -------------------------------------------------------------------------------------


def test_load_state_dict_with_a_prefix():
    source = LSTM(D, H, rng=1)
    whole = {f"encoder.lstm.{name}": value for name, value in source.params.items()} | {"head.weight": np.zeros(3)}
    layer = LSTM(D, H, rng=2)
    layer.load_state_dict(whole, prefix="encoder.lstm.")
    assert np.array_equal(numbers(layer), numbers(source))
    with pytest.raises(
        ValueError, match="^prefix: expected the beginning of names in mapping, such as encoder.lstm., h"
    ):
        layer.load_state_dict(whole, prefix="decoder.")
    with pytest.raises(ValueError, match="got missing encoder.weight_ih_l0.*; unknown encoder.lstm.weight_ih_l0"):
        layer.load_state_dict(whole, prefix="encoder.")
    whole["encoder.lstm.bias_ih_l0"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"^encoder.lstm.bias_ih_l0: expected shape \(16,\), got \(3,\)$"):
        layer.load_state_dict(whole, prefix="encoder.lstm.")
    assert np.array_equal(numbers(layer), numbers(source))


# --- Directions that are merged into one ------------------------------------------------------------------------------

MERGE = {"sum": lambda a, b: a + b, "mul": lambda a, b: a * b, "ave": lambda a, b: (a + b) / 2}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("merge", MERGE)
@pytest.mark.parametrize("make", [RNN, GRU, LSTM, lambda *a, **k: LSTM(*a, proj_size=3, **k)])
def test_merged_directions(make, merge, batch_first):
    options = {"bidirectional": True, "batch_first": batch_first, "dtype": "float64"}
    layer = make(D, H, 2, merge=merge, rng=1, **options)
    width = layer._h_size
    x = RNG.standard_normal((N, T, D) if batch_first else (T, N, D))
    lengths = np.array([5, 2, 0])
    y, state = layer(x, lengths=lengths)
    assert y.shape == (*x.shape[:2], width)
    z, states = x, []
    for k in range(2):  # each level by itself, directions side by side
        level = make(z.shape[-1], H, rng=2, **options)
        level.load_state_dict(
            {name.replace(f"_l{k}", "_l0"): value for name, value in layer.params.items() if f"_l{k}" in name}
        )
        both, state_n = level(z, lengths=lengths)
        z = MERGE[merge](both[..., :width], both[..., width:])
        states.append(fastrnn._state.flatten(state_n))
    np.testing.assert_allclose(y, z, rtol=1e-12, atol=1e-14)
    for part, levels in zip(fastrnn._state.flatten(state), zip(*states)):
        np.testing.assert_allclose(part, np.concatenate(levels), rtol=1e-12, atol=1e-14)
    mask = RNG.random((T, N)) < 0.3
    check_gradients(layer, x, fastrnn._state.map(np.copy, state), lengths=lengths, reset_mask=mask)
    again = fastrnn.layers.build(layer.config())
    again.load_state_dict(layer.params)
    assert np.array_equal(again(x)[0], layer(x)[0])
    dropped = make(D, H, 2, merge=merge, dropout=0.5, rng=1, **options)
    check_gradients(dropped, x)


def test_merging_wants_two_directions_and_a_known_name():
    with pytest.raises(ValueError, match="merge: expected 'concat' for a layer of one direction, got 'sum'"):
        GRU(D, H, merge="sum")
    with pytest.raises(ValueError, match="merge: expected one of 'concat', 'sum', 'mul', 'ave', got 'mean'"):
        GRU(D, H, bidirectional=True, merge="mean")
    assert "merge" not in GRU(D, H, bidirectional=True).arguments()


def test_merged_directions_in_a_model():
    model = Sequential(
        GRU(D, H, bidirectional=True, merge="sum", batch_first=True), LastStep(batch_first=True), Linear(H, 2), rng=0
    )
    x = RNG.standard_normal((N, T, D)).astype(np.float32)
    fitted = Trainer(model)
    fitted.fit(x, np.zeros(N, int), epochs=1, progress=False)
    assert fitted.predict(x).shape == (N, 2)
