"""A model's parameters and gradients by name, without making the dicts anew for each update."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Module

Array = NDArray[Any]


class NamedArrays:
    """`params` and `grads` of a model. Whether a layer has other arrays since, by `tie` or `params[name] = ...`, their
    identities tell: the old ones are held here, so no new one can have theirs."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self._key: tuple[int, ...] | None = None
        self._leaves: list[Mapping[str, Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy reads the copied model anew."""
        return {"model": self.model, "_key": None, "_leaves": []}

    def get(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        key = tuple(map(id, chain.from_iterable([leaf.values() for leaf in self._leaves])))
        if self._key is None or key != self._key:
            self._read()
        return self._params, self._grads

    def _read(self) -> None:
        self._params, self._grads = self.model.params, self.model.grads
        layers = self.model.leaves()
        self._leaves = [arrays for layer in layers for arrays in (layer._params, layer._grads)]
        own = {id(a) for leaf in self._leaves for a in leaf.values()}
        given = [*self._params.values(), *self._grads.values()]
        if all(id(a) in own for a in given) and all(isinstance(a, np.ndarray) for a in given):
            self._key = tuple(map(id, chain.from_iterable([leaf.values() for leaf in self._leaves])))
        else:
            self._key = None  # a cell of the user's own, or gradients of rows: read each time
