"""Sequential: layers one after another, as one layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .module import Array, Module, build


class Sequential(Module):
    """y = layers[-1](... layers[1](layers[0](x))). Parameters are named "0.weight", "1.weight_ih_l0", ...

    Recurrent layers start from zero states and pass on their output only. `lengths` (N,) goes to the layers that take
    it. `batch_first` is the layout of the layers that have one: True, False, or None where none has; a mixture is
    refused with ValueError, and so is a recurrent layer behind one that has done away with time, and one layer in two
    places (it would keep only the later call for its backward).
    """

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: expected at least one layer, came none")
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers: expected layers, came {type(layer).__name__} at {index}")
            if any(layer is other for other in layers[:index]):
                raise ValueError(f"layers: expected each layer once, came the same {_label(layers, index)} twice")
        self.layers = layers
        self.batch_first = _common_layout(layers)
        self.keeps_time = all(layer.keeps_time for layer in layers)
        self.takes_lengths = any(layer.takes_lengths for layer in layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    @property
    def params(self) -> dict[str, Array]:
        return {f"{k}.{name}": a for k, layer in enumerate(self.layers) for name, a in layer.params.items()}

    @property
    def grads(self) -> dict[str, Array]:
        return {f"{k}.{name}": a for k, layer in enumerate(self.layers) for name, a in layer.grads.items()}

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        for k, layer in enumerate(self.layers):
            for name, generator in layer.generators():
                yield f"{k}.{name}".rstrip("."), generator

    def arguments(self) -> dict[str, Any]:
        return {"layers": [layer.config() for layer in self.layers]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sequential:
        return cls(*map(build, config["layers"]))

    def __call__(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:
        if lengths is not None and not self.takes_lengths:
            raise ValueError("lengths: expected None, as no layer of this Sequential takes lengths")
        for index, layer in enumerate(self.layers):
            if lengths is None:
                x = layer(x, training=training)
            elif layer.takes_lengths:
                x = layer(x, lengths=lengths, training=training)
            elif getattr(layer, "bidirectional", False):
                raise ValueError(
                    f"lengths: expected None, as the reverse direction of {_label(self.layers, index)} would start in "
                    "the padding"
                )
            else:
                x = layer(x, training=training)
            if isinstance(x, tuple):  # (output, state_n)
                x = x[0]
        return x

    def backward(self, dy: Array) -> Array | None:
        """dx, or None if the first layer reads tokens."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
            if isinstance(dy, tuple):  # (dx, dstate0)
                dy = dy[0]
        return dy


def _common_layout(layers: tuple[Module, ...]) -> bool | None:
    first, timeless = None, None
    for index, layer in enumerate(layers):
        if layer.batch_first is not None:
            if timeless is not None:
                raise ValueError(
                    f"layers: expected no layer that reads time after {_label(layers, timeless)}, came "
                    f"{_label(layers, index)}"
                )
            if first is None:
                first = index
            if layer.batch_first != layers[first].batch_first:
                raise ValueError(
                    f"layers: expected one layout, came batch_first={layers[first].batch_first} in "
                    f"{_label(layers, first)} and batch_first={layer.batch_first} in {_label(layers, index)}"
                )
        if not layer.keeps_time:
            timeless = index
    return None if first is None else layers[first].batch_first


def _label(layers: tuple[Module, ...], index: int) -> str:
    return f"layer {index} ({type(layers[index]).__name__})"
