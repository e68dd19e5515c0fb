"""Sequential: layers one after another, as one layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..streaming.generate import generate
from .module import Array, Module, build


class Sequential(Module):
    """y = layers[-1](... layers[1](layers[0](x))). Parameters are named "0.weight", "1.weight_ih_l0", ...

    Called, its recurrent layers start from zero states and pass on their output only; `run` starts them from a state
    and returns the one they end with. `lengths` (N,) and `reset_mask` (T, N) go to the layers that take them.
    `batch_first` is the layout of the layers that have one: True, False, or None where none has; a mixture is refused
    with ValueError, and so is a recurrent layer behind one that has done away with time, and one layer in two places (it
    would keep only the later call for its backward).
    """

    skips_dx = True

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: expected at least one layer, got none")
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers: expected layers, got {type(layer).__name__} at {index}")
            if any(layer is other for other in layers[:index]):
                raise ValueError(f"layers: expected each layer once, got the same {_label(layers, index)} twice")
        self.layers = layers
        self.batch_first = _common_layout(layers)
        self.keeps_time = _ends_in_time(layers)
        self.reads_time = next((layer.reads_time for layer in layers if layer.batch_first is not None), True)
        self.takes_lengths = any(layer.takes_lengths for layer in layers)
        self.takes_reset_mask = any(layer.takes_reset_mask for layer in layers)
        self.takes_state = any(layer.takes_state for layer in layers)
        self.takes_targets = layers[-1].takes_targets
        self.scores_with_targets = layers[-1].scores_with_targets

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

    def __call__(
        self,
        x: Array,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        targets: Array | None = None,
        training: bool = False,
    ) -> Array:
        return self.run(x, lengths=lengths, reset_mask=reset_mask, targets=targets, training=training)[0]

    def backward(self, dy: Array, *, need_dx: bool = True) -> Array | None:
        """dx, or None if the first layer reads tokens. With need_dx=False it may be None too."""
        return self.run_backward(dy, need_dx=need_dx)[0]

    def run(
        self,
        x: Array,
        state: Any = None,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        targets: Array | None = None,
        training: bool = False,
    ) -> tuple[Array, tuple[Any, ...]]:
        """As `Module.run`; the state is a tuple with one entry per layer, None for a layer without state or zeros."""
        if lengths is not None and not self.takes_lengths:
            raise ValueError("lengths: expected None, as no layer of this Sequential takes lengths")
        if reset_mask is not None and not self.takes_reset_mask:
            raise ValueError("reset_mask: expected None, as no layer of this Sequential takes resets")
        if targets is not None and not self.takes_targets:
            raise ValueError("targets: expected None, as the last layer of this Sequential takes no targets")
        state_n = []
        for layer, entry in zip(self.layers, self._entries("state", state)):
            options = {} if targets is None or layer is not self.layers[-1] else {"targets": targets}
            x, entry = layer.run(x, entry, lengths=lengths, reset_mask=reset_mask, training=training, **options)
            state_n.append(entry)
        return x, tuple(state_n)

    def run_backward(
        self, dy: Array | None, dstate_n: Any = None, *, need_dx: bool = True
    ) -> tuple[Array | None, tuple[Any, ...]]:
        needs = []  # whether a layer's dx is read: by one before it that learns, or that takes no None
        for layer in self.layers:
            needs.append(need_dx)
            need_dx = need_dx or bool(layer.params) or not layer.skips_dx
        dstate0 = []
        for layer, entry, need in zip(self.layers[::-1], self._entries("dstate_n", dstate_n)[::-1], needs[::-1]):
            dy, entry = layer.run_backward(dy, entry, need_dx=need)
            dstate0.append(entry)
        return dy, tuple(reversed(dstate0))

    def children(self) -> tuple[Module, ...]:
        return self.layers

    def leaves(self) -> list[Module]:
        return [leaf for layer in self.layers for leaf in layer.leaves()]

    def split_state(self, state: Any) -> list[Any]:
        entries = self._entries("state", state)
        return [leaf for layer, entry in zip(self.layers, entries) for leaf in layer.split_state(entry)]

    def join_state(self, entries: Iterator[Any]) -> tuple[Any, ...]:
        return tuple(layer.join_state(entries) for layer in self.layers)

    def generate(
        self,
        start: Any,
        steps: int,
        state: Any = None,
        *,
        mode: str = "greedy",
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: int | np.random.Generator | None = None,
        end: int | None = None,
        return_state: bool = False,
    ) -> Any:
        """Tokens (N, steps), or with mode="feedback" outputs (N, steps, M), that come of feeding the model what it puts
        out, from start (N,), (N, T), (N, D) or (N, T, D) on: see `generation.generate`."""
        return generate(
            self,
            start,
            steps,
            state,
            mode=mode,
            temperature=temperature,
            top_k=top_k,
            rng=rng,
            end=end,
            return_state=return_state,
        )

    def _entries(self, name: str, state: Any) -> tuple[Any, ...]:
        if state is None:
            return (None,) * len(self.layers)
        if not isinstance(state, tuple) or len(state) != len(self.layers):
            got = f"one of {len(state)}" if isinstance(state, tuple) else type(state).__name__
            raise ValueError(f"{name}: expected None or a tuple with an entry per layer, {len(self.layers)}, got {got}")
        return state


def _common_layout(layers: tuple[Module, ...]) -> bool | None:
    first, timeless = None, None
    for index, layer in enumerate(layers):
        if layer.batch_first is not None:
            if not layer.reads_time:
                if first is not None and timeless is None:
                    raise ValueError(
                        f"layers: expected a layer such as LastStep, which does away with time, before "
                        f"{_label(layers, index)}, got {_label(layers, first)}"
                    )
                timeless = None
            if timeless is not None:
                raise ValueError(
                    f"layers: expected no layer that reads time after {_label(layers, timeless)}, got "
                    f"{_label(layers, index)}"
                )
            if first is None:
                first = index
            if layer.batch_first != layers[first].batch_first:
                raise ValueError(
                    f"layers: expected one layout, got batch_first={layers[first].batch_first} in "
                    f"{_label(layers, first)} and batch_first={layer.batch_first} in {_label(layers, index)}"
                )
        if not layer.keeps_time:
            timeless = index
    return None if first is None else layers[first].batch_first


def _ends_in_time(layers: tuple[Module, ...]) -> bool:
    """Whether y has a time axis where x has one, or where a layer makes one."""
    for layer in reversed(layers):
        if not layer.reads_time or not layer.keeps_time:
            return not layer.reads_time
    return True


def _label(layers: tuple[Module, ...], index: int) -> str:
    return f"layer {index} ({type(layers[index]).__name__})"
