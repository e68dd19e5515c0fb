"""A small classifier of series and data for it, for the tests of what people hand to a trainer.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import numpy as np

from fastrnn import GRU, Adam, LastStep, Linear, Sequential, Trainer

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5, 3)).astype(np.float32), RNG.integers(0, 2, 12)


def classifier(seed=1):
    rng = np.random.default_rng(seed)
    layers = GRU(3, 4, batch_first=True, rng=rng), LastStep(batch_first=True), Linear(4, 2, rng=rng)
    return Trainer(Sequential(*layers), optimizer=Adam(lr=0.02))


def fit(trainer, x=X, y=Y, epochs=1, **more):
    trainer.fit(x, y, epochs=epochs, batch_size=4, progress=False, **more)
    return trainer


def parameters(trainer):
    return np.concatenate([a.ravel() for a in trainer.model.params.values()])
