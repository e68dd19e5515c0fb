"""Container: what layers share that are made of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .module import Array, Module


class _WriteThrough(dict[str, Array]):
    """The parameters of a layer made of others. `params[name] = value` copies into the layer's own array."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            raise KeyError(f"{name}: expected one of {', '.join(self)}")
        value = np.asarray(value)
        if value.shape != self[name].shape:
            raise ValueError(f"{name}: expected shape {self[name].shape}, got {value.shape}")
        self[name][...] = value


class Container(Module):
    """A layer made of others, whose parameters, gradients and generators it has under names such as "0.weight"."""

    def parts(self) -> Mapping[str, Module]:
        """Name -> layer."""
        raise NotImplementedError

    @property
    def params(self) -> dict[str, Array]:
        return _WriteThrough(
            {f"{part}.{name}": a for part, layer in self.parts().items() for name, a in layer.params.items()}
        )

    @property
    def grads(self) -> dict[str, Array]:
        return {f"{part}.{name}": a for part, layer in self.parts().items() for name, a in layer.grads.items()}

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        for part, layer in self.parts().items():
            for name, generator in layer.generators():
                yield f"{part}.{name}".rstrip("."), generator
