"""Container: what layers share that are made of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .module import Array, Module
from .params import JoinedParams


class Container(Module):
    """A layer made of others, whose parameters, gradients and generators it has under names such as "0.weight"."""

    def parts(self) -> Mapping[str, Module]:
        """Name -> layer."""
        raise NotImplementedError

    @property
    def params(self) -> dict[str, Array]:
        return JoinedParams({part: layer.params for part, layer in self.parts().items()})

    @property
    def grads(self) -> dict[str, Array]:
        return {f"{part}.{name}": a for part, layer in self.parts().items() for name, a in layer.grads.items()}

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        for part, layer in self.parts().items():
            for name, generator in layer.generators():
                yield f"{part}.{name}".rstrip("."), generator
