"""Container: what layers share that are made of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .init import tell_apart
from .module import Array, Module
from .params import JoinedParams
from .weights import Weights


class Container(Module):
    """A layer made of others, whose parameters, gradients and generators it has under names such as "0.weight"."""

    def __init__(self) -> None:
        super().__init__()
        self._ties: dict[str, str] = {}

    def parts(self) -> Mapping[str, Module]:
        raise NotImplementedError

    def leaves(self) -> Sequence[Weights]:
        return [leaf for part in self.parts().values() for leaf in part.leaves()]

    def config(self) -> dict[str, Any]:
        return super().config() | ({"ties": dict(self._ties)} if self._ties else {})

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, Array]:
        """Name -> parameter, each array once: tied ones under one of their names. `params[name] = value` copies into
        the layer's own array."""
        return JoinedParams({part: layer.params for part, layer in self.parts().items()}, self.aliases())

    @property
    def trainable_params(self) -> dict[str, Array]:
        return JoinedParams({part: layer.trainable_params for part, layer in self.parts().items()}, self.aliases())

    @property
    def grads(self) -> dict[str, Array]:
        aliases = self.aliases()
        named = ((f"{part}.{name}", a) for part, layer in self.parts().items() for name, a in layer.grads.items())
        return {name: a for name, a in named if name not in aliases}

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        for part, layer in self.parts().items():
            for name, generator in layer.generators():
                yield f"{part}.{name}".rstrip("."), generator

    # --- random starts ------------------------------------------------------------------------------------------------

    def reset_parameters(self, rng: int | np.random.Generator | None = None) -> None:
        """Draw all parameters anew, in place, each layer from a stream of its own."""
        draw_anew(self.leaves(), rng)

    def _begin(self, rng: Any) -> None:
        """Once the layers are known: those without an rng draw from this one, and no two have the same numbers."""
        leaves = self.leaves()
        if rng is not None:
            draw_anew([leaf for leaf in leaves if leaf._start is None or not leaf._start.given], rng)
        tell_apart(leaves)

    # --- tied parameters ---------------------------------------------------------------------------------------------

    def tie(self, name: str, *, to: str) -> None:
        """Make one array of two parameters of the same shape, such as those of an embedding and of the layer that gives
        a logit for each of its tokens: `model.tie("2.weight", to="0.weight")` (Press and Wolf 2017).

        The array is that of `to`, and gradients of both add up in one. `params`, `grads`, optimisers, clipping and
        files have it once, under the name `to`; `state_dict` has both names, as PyTorch's, and `load_state_dict` takes
        either or both. Raises ValueError for a name that there is not, for another shape or dtype, and for what is tied
        already.
        """
        layer, own = self._find("name", name)
        other, source = self._find("to", to)
        value, grad = other._params[source], other._grads[source]
        if value is layer._params[own] or name in self.aliases() or name in self.aliases().values():
            raise ValueError(f"name: expected a parameter that is not tied yet, and another than {to!r}, got {name!r}")
        if (value.shape, value.dtype) != (layer._params[own].shape, layer._params[own].dtype):
            got = layer._params[own]
            raise ValueError(
                f"name: expected {value.dtype} of shape {value.shape} like {to!r}, got {got.dtype} of shape {got.shape}"
            )
        if not isinstance(grad, np.ndarray) or not isinstance(layer._grads[own], np.ndarray):
            raise ValueError(f"to: expected a layer with dense gradients, got {type(other).__name__} with others")
        self.release()
        for part in self.flatten():
            part.release()
        layer._params[own], layer._grads[own] = value, grad
        layer._params.changed()
        self._ties[name] = self.aliases().get(to, to)

    def aliases(self) -> dict[str, str]:
        found = {
            f"{part}.{name}": f"{part}.{to}"
            for part, layer in self.parts().items()
            for name, to in layer.aliases().items()
        }
        return found | self._ties

    def _find(self, argument: str, name: str) -> tuple[Any, str]:
        """The layer that has this parameter, and its name there."""
        part, _, rest = name.partition(".")
        layer = self.parts().get(part)
        if isinstance(layer, Container):
            try:
                return layer._find(argument, rest)
            except ValueError:
                layer = None
        if layer is None or rest not in layer._params:
            raise ValueError(f"{argument}: expected one of {', '.join(self.params)}, got {name!r}")
        return layer, rest

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_ties": {}} | state)
        for name, to in self._ties.items():  # copies of arrays may have come apart
            (layer, own), (other, source) = self._find("name", name), self._find("to", to)
            layer._params[own], layer._grads[own] = other._params[source], other._grads[source]


def draw_anew(leaves: Sequence[Weights], rng: Any) -> None:
    """New numbers for each layer, from streams that are independent of one another."""
    if not isinstance(rng, np.random.Generator):
        streams = np.random.SeedSequence(rng).spawn(len(leaves))
        generators = [np.random.default_rng(stream) for stream in streams]
    else:
        generators = [np.random.default_rng(rng.integers(2**63)) for _ in leaves]
    for leaf, generator in zip(leaves, generators):
        leaf.reset_parameters(generator)
