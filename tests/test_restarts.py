"""Trainers that go on after a file, a stop or a copy, and parameters that were replaced, copied or pickled.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from front_cases import X, classifier, fit, parameters

import fastrnn
from fastrnn import GRU, SGD, EarlyStopping, Linear, ModelCheckpoint, Sequential, Trainer


def test_the_best_file_is_kept_after_a_restart(tmp_path):
    path = tmp_path / "best"
    trainer = classifier()
    trainer.callbacks = [ModelCheckpoint(path, monitor="loss")]
    fit(trainer, epochs=3)
    best = path.read_bytes()
    again = Trainer.load(path, callbacks=[ModelCheckpoint(path, monitor="loss")])
    again.optimizer.lr = 50.0  # nothing becomes better
    fit(again, epochs=2)
    assert min(again.history["loss"][3:]) > min(again.history["loss"][:3])
    assert path.read_bytes() == best


def test_a_resumed_stateful_fit_is_the_uninterrupted_one(tmp_path):
    def make():
        rng = np.random.default_rng(1)
        model = Sequential(GRU(3, 4, batch_first=True, rng=rng), Linear(4, 3, rng=rng))
        return Trainer(model, loss="mse", stateful=True, rng=3)

    whole = make()
    fit(whole, X, X, epochs=1)  # so that the next fit begins from a state
    halved = copy.deepcopy(whole)
    fit(whole, X, X, epochs=4)
    halved.callbacks = [ModelCheckpoint(tmp_path / "m", save="last")]
    fit(halved, X, X, epochs=2)
    resumed = fit(Trainer.load(tmp_path / "m"), X, X, epochs=2)
    assert np.array_equal(parameters(whole), parameters(resumed))


def test_early_stopping_restores_the_best_weights_after_ctrl_c():
    class Interrupt(fastrnn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 2:
                raise KeyboardInterrupt

    trainer = classifier()
    trainer.optimizer.lr = 0.5
    seen = []

    class Watch(fastrnn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append((logs["loss"], parameters(trainer)))

    trainer.callbacks = [EarlyStopping("loss", restore_best=True), Watch(), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=9)
    assert len(seen) == 3
    assert np.array_equal(parameters(trainer), min(seen, key=lambda entry: entry[0])[1])


def test_models_with_read_only_arrays_become_trainable_copies():
    joblib = pytest.importorskip("joblib")
    import io

    model = classifier().model
    for layer in model:
        for array in (*layer._params.values(), *layer._grads.values()):
            array.flags.writeable = False
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    fit(Trainer(joblib.load(file)))
    fit(Trainer(copy.deepcopy(model)))


def test_params_can_be_copied_and_pickled():
    """copy.deepcopy(model.params) keeps the best weights; of a container it raised KeyError."""
    model = Sequential(GRU(3, 4, rng=0), Linear(4, 2, rng=1))
    for again in (copy.deepcopy(model.params), pickle.loads(pickle.dumps(model.params))):
        assert list(again) == list(model.params)
        again["1.weight"][...] = 7
        assert not (model.params["1.weight"] == 7).any()
        model.load_state_dict(again)
        assert (model.params["1.weight"] == 7).all()
        model.reset_parameters(0)


def test_an_update_is_that_of_the_arrays_that_the_layers_have():
    """The trainer keeps dicts of them; what `tie`, a copy or params[name] = ... replaces is seen."""
    x, y = np.ones((4, 3), np.float32), np.zeros(4, int)
    net = Sequential(Linear(3, 3, rng=0), Linear(3, 3, rng=1))
    trainer = Trainer(net, optimizer=SGD(lr=0.1), rng=0)
    trainer.fit(x, y, progress=False)
    twin = copy.deepcopy(trainer)
    before = {name: a.copy() for name, a in net.params.items()}
    twin.fit(x, y, progress=False)
    for name, a in net.params.items():
        np.testing.assert_array_equal(a, before[name])
        assert not np.array_equal(twin.model.params[name], a)
    net[0].params["weight"] = np.zeros((3, 3), np.float32)
    trainer.fit(x, y, progress=False)
    assert net[0].params["weight"].any()
    net.tie("1.weight", to="0.weight")
    trainer.optimizer = SGD(lr=0.1)
    shared = net[0].params["weight"].copy()
    trainer.fit(x, y, progress=False)
    assert net[1].params["weight"] is net[0].params["weight"] and not np.array_equal(net[0].params["weight"], shared)
