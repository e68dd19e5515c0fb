"""The arrays of an optimiser's state, flat: one array per slot, in which the parameters follow each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .._validate import Array

BLOCK = 8192  # elements that a thread takes at a time, and that one partial sum of a norm is made of


class FlatState:
    """The state's arrays for ``params``, one flat array per slot, in which the parameters follow each other.

    ``slots`` names them, each with the value it begins with. All of it is allocated once, by the first step.
    Raises TypeError for what is not an array of float32 or float64, ValueError for no parameters at all.
    """

    def __init__(self, params: Mapping[str, Array], slots: Mapping[str, float]) -> None:
        if not params:
            raise ValueError("params: expected at least one array, got none")
        for name, param in params.items():
            dtype = param.dtype if isinstance(param, np.ndarray) else type(param).__name__
            if dtype not in (np.float32, np.float64):
                raise TypeError(f"params[{name!r}]: expected an array of float32 or float64, got {dtype}")
        self.shapes = {name: param.shape for name, param in params.items()}
        self.dtype = next(iter(params.values())).dtype
        self.start = dict(slots)
        total = sum(param.size for param in params.values())
        self.slots = {  # zeros are not written, so rows of a table that are never updated take no memory
            slot: np.full(total, value, self.dtype) if value else np.zeros(total, self.dtype)
            for slot, value in slots.items()
        }

    def check_names(self, params: Mapping[str, Array]) -> None:
        if params.keys() != self.shapes.keys():
            raise ValueError(f"params: expected those of the first step, {_differ(params, self.shapes)}")

    def views(self, without: Collection[str] = ()) -> dict[str, Array]:
        """The state by "slot.parameter", without some parameters: views in the parameters' shapes."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])[:-1]
        return {
            f"{slot}.{name}": part.reshape(shape)
            for slot, flat in self.slots.items()
            for (name, shape), part in zip(self.shapes.items(), np.split(flat, ends))
            if name not in without
        }

    def restore(self, arrays: Mapping[str, Array], untouched: Collection[str] = ()) -> None:
        """Copy a saved state into this one, once every entry has been found to fit; that of untouched parameters is as
        it begins."""
        views = self.views(untouched)
        if arrays.keys() != views.keys():
            raise ValueError(f"state: expected the state of these parameters, {_differ(arrays, views)}")
        for name, view in views.items():
            if arrays[name].dtype != self.dtype:
                raise TypeError(f"state[{name!r}]: expected {self.dtype}, got {arrays[name].dtype}")
            if arrays[name].shape != view.shape:
                raise ValueError(f"state[{name!r}]: expected shape {view.shape}, got {arrays[name].shape}")
        for name, view in views.items():
            view[...] = arrays[name]
        for name, view in self.views().items() if untouched else ():
            if name not in views:
                view[...] = self.start[name.partition(".")[0]]


def _differ(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    missing, unknown = (
        [name for name in one if name not in other] for one, other in ((wanted, given), (given, wanted))
    )
    return f"got without {missing} and with {unknown} besides"
