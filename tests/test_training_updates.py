"""What one update covers: groups, frozen layers, accumulated batches, tied arrays, gradients of rows."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from trainer_cases import assert_same_params, classifier, echo, fit, sign_of_sum, tagger

import fastrnn
from fastrnn import GRU, SGD, Adam, Embedding, Linear, Sequential, Trainer, losses


def test_groups_name_layers_of_the_model():
    model = classifier()
    optimizer = Adam(lr=0.01, groups=[{"params": model[0], "frozen": True}])
    before = model.state_dict()
    trainer = fit(Trainer(model, optimizer=optimizer), *sign_of_sum(8))
    for name, param in model.params.items():
        assert np.array_equal(param, before[name]) == name.startswith("0."), name
    assert trainer.optimizer.config()["groups"][0]["params"] == [n for n in model.params if n.startswith("0.")]
    with pytest.raises(ValueError, match="groups: expected patterns of"):
        Trainer(classifier(), optimizer=Adam(groups=[{"params": "9.*", "lr": 1.0}]))


def test_frozen_layers_stay_and_may_learn_later(tmp_path):
    x, y = sign_of_sum(8)
    model = classifier()
    model[0].freeze()
    before = model.state_dict()
    trainer = fit(Trainer(model), x, y, epochs=2)
    trainer.save(tmp_path / "frozen.safetensors")
    for name, param in model.params.items():
        assert np.array_equal(param, before[name]) == name.startswith("0."), name
    arrays, _ = fastrnn.serialization.read(tmp_path / "frozen.safetensors")
    assert not any(name.startswith("optimizer.exp_avg.0.") for name in arrays)
    again = Trainer.load(tmp_path / "frozen.safetensors")
    for one in (trainer, again):
        one.model[0].unfreeze()
        fit(one, x, y)
    assert_same_params(trainer.model, again.model)
    assert not np.array_equal(trainer.model.params["0.weight_hh_l0"], before["0.weight_hh_l0"])


@pytest.mark.parametrize("loss", ["cross_entropy", functools.partial(losses.cross_entropy, reduction="sequence")])
@pytest.mark.parametrize("option", [{}, {"checkpoint_every": 4}])
def test_accumulated_batches_are_one_large_batch(loss, option):
    x, y = echo(12)
    y[3] = -100  # batches count by their targets
    y[7, 2:] = -100
    large = fit(Trainer(tagger(dtype=np.float64), loss), x, y, epochs=2, batch_size=6)
    small = fit(Trainer(tagger(dtype=np.float64), loss, accumulate=3, **option), x, y, epochs=2, batch_size=2)
    assert large.optimizer.steps == small.optimizer.steps == 4
    for name, param in large.model.params.items():
        np.testing.assert_allclose(small.model.params[name], param, rtol=1e-8, atol=1e-11, err_msg=name)


def test_what_is_left_of_an_epoch_is_an_update_of_its_own():
    x, y = sign_of_sum(10)
    trainer = fit(Trainer(classifier(), accumulate=2), x, y, batch_size=4)
    assert trainer.optimizer.steps == 2
    windows = Trainer(tagger(), tbptt=4, accumulate=3)
    fit(windows, *echo(4), batch_size=4)
    assert windows.optimizer.steps == 1


def test_an_array_under_two_names_is_written_and_averaged_as_one(tmp_path):
    def tied():
        model = Sequential(Embedding(5, 5, rng=0), GRU(5, 5, rng=1), Linear(5, 5, bias=False, rng=2))
        model[2]._params["weight"] = model[0].params["weight"]
        return model

    x, y = np.arange(20).reshape(4, 5) % 5, np.ones((4, 5), int)
    trainer = Trainer(tied(), optimizer=Adam(0.1), callbacks=[fastrnn.EMA(0.5, at_end=False)])
    before = trainer.model.state_dict()["0.weight"]
    fit(trainer, x, y, epochs=2, validation_data=(x, y))
    assert trainer.model.params["0.weight"] is trainer.model.params["2.weight"]
    assert not np.array_equal(before, trainer.model.params["0.weight"])
    trainer.save(tmp_path / "tied.safetensors")
    arrays, config = fastrnn.serialization.read(tmp_path / "tied.safetensors")
    assert "model.0.weight" in arrays and "model.2.weight" not in arrays
    assert config["tied"] == {"2.weight": "0.weight"}
    assert [name for name in arrays if name.startswith("optimizer.exp_avg.") and name.endswith(".weight")] == [
        "optimizer.exp_avg.0.weight"
    ]
    again = Trainer.load(tmp_path / "tied.safetensors")
    np.testing.assert_array_equal(again.model.params["2.weight"], trainer.model.params["0.weight"])


def test_gradients_of_rows_go_into_groups_and_gathered_batches():
    x, y = echo(12)
    trained = []
    for sparse, batch_size, accumulate in ((False, 6, 1), (True, 2, 3)):
        model = Sequential(
            Embedding(4, 5, sparse=sparse, rng=1, dtype="f8"),
            GRU(5, 8, batch_first=True, rng=2, dtype="f8"),
            Linear(8, 4, rng=3, dtype="f8"),
        )
        optimizer = SGD(lr=0.1, groups=[{"params": "0.weight", "lr": 0.5}])
        trainer = Trainer(model, optimizer=optimizer, clip_norm=0.1, accumulate=accumulate)
        trained.append(fit(trainer, x, y, epochs=2, batch_size=batch_size))
    for name, param in trained[0].model.params.items():
        np.testing.assert_allclose(trained[1].model.params[name], param, rtol=1e-9, atol=1e-12, err_msg=name)
