"""Parameters by name, which know when an optimiser or load_state_dict has changed them, and when somebody may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Params(dict[str, Array]):
    """Name -> parameter of a layer.

    version: how often `changed` was called. Changes by hand are not counted, but `reads` is how often the layer handed
    this dict out, which comes before any of them: see `_native.Stack`, which keeps packed weights by it.
    """

    version = 0
    reads = 0

    def changed(self) -> None:
        self.version += 1


class JoinedParams(Params):
    """The parameters of a layer made of others. `params[name] = value` copies into the layer's own array."""

    def __init__(self, parts: Mapping[str, Mapping[str, Array]]) -> None:
        super().__init__({f"{part}.{name}": a for part, params in parts.items() for name, a in params.items()})
        self.parts = list(parts.values())

    def changed(self) -> None:
        for params in self.parts:
            if isinstance(params, Params):
                params.changed()

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            raise KeyError(f"{name}: expected one of {', '.join(self)}")
        value = np.asarray(value)
        if value.shape != self[name].shape:
            raise ValueError(f"{name}: expected shape {self[name].shape}, got {value.shape}")
        with np.errstate(under="ignore"):
            self[name][...] = value
        self.changed()
