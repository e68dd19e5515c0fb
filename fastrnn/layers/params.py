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
        self.reads += 1


class JoinedParams(Params):
    """The parameters of a layer made of others. `params[name] = value` copies into the layer's own array.

    aliases: names of tied parameters -> those that they are the arrays of: they can be looked up and set, but are not
    among the keys, so that a loop over all parameters meets each once."""

    def __init__(self, parts: Mapping[str, Mapping[str, Array]], aliases: Mapping[str, str]) -> None:
        named = ((f"{part}.{name}", a) for part, params in parts.items() for name, a in params.items())
        super().__init__({name: a for name, a in named if name not in aliases})
        self.parts, self.aliases = list(parts.values()), aliases

    def changed(self) -> None:
        for params in self.parts:
            if isinstance(params, Params):
                params.changed()

    def __missing__(self, name: str) -> Array:
        if name not in self.aliases:
            raise KeyError(name)
        return self[self.aliases[name]]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self and name not in self.aliases:
            raise KeyError(f"{name}: expected one of {', '.join(self)}")
        value, own = np.asarray(value), self[name]
        if value.shape != own.shape:
            raise ValueError(f"{name}: expected shape {own.shape}, got {value.shape}")
        with np.errstate(under="ignore"):
            own[...] = value
        self.changed()
