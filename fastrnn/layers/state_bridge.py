"""From the states that one model ends with to those that another starts from, and their gradients back.

Both are cut into levels, each a tuple of arrays (N, H), such as (h,) or (h, c): an LSTM of num_layers=2 has two, and so
has a Sequential of two LSTMs. Level k of the encoder becomes level k of the decoder.

Letters: N batch, H hidden size, S directions of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .module import Array, Module
from .protocol import StateSpec

MERGES = ("concat", "sum", "mean")


class StateBridge:
    """How the last states of `encoder` become the first of `decoder`.

    merge: what becomes of the two directions of a bidirectional layer. "concat": forward and backward side by side, so
    the decoder's hidden size is twice the encoder's; "sum" and "mean" keep the size.
    Raises ValueError where the models cannot be joined so.
    """

    def __init__(self, encoder: Module, decoder: Module, merge: str) -> None:
        self.encoder, self.decoder, self.merge = encoder, decoder, merge
        for layer, spec in _stateful(decoder):
            if spec.directions == 2:
                raise ValueError(
                    f"decoder: expected layers that read forward only, got a bidirectional {type(layer).__name__}"
                )
        got, needed = self._sizes(encoder), self._sizes(decoder)
        for name, sizes in (("encoder", got), ("decoder", needed)):
            if not sizes:
                raise ValueError(f"{name}: expected a layer with a state, got none")
        if [len(level) for level in got] != [len(level) for level in needed] or any(
            a is not None and b is not None and a != b for one, two in zip(got, needed) for a, b in zip(one, two)
        ):
            raise ValueError(f"decoder: expected states of sizes {got} like the encoder's, got {needed}")

    def forward(self, state: Any) -> Any:
        """The decoder's first state from the encoder's last."""
        levels = []
        for (_, spec), parts in zip(_stateful(self.encoder), _parts(self.encoder, state)):
            S = spec.directions
            for k in range(0, len(parts[0]), S):
                levels.append([self._merge(part[k : k + S]) for part in parts])
        remaining = iter(levels)
        return _assemble(
            self.decoder,
            iter(
                [
                    [np.stack(rows) for rows in zip(*(next(remaining) for _ in range(spec.levels)))]
                    for _, spec in _stateful(self.decoder)
                ]
            ),
        )

    def backward(self, dstate: Any) -> Any:
        """The gradient of the encoder's last state from that of the decoder's first."""
        dlevels = (level for parts in _parts(self.decoder, dstate) for level in zip(*parts))
        entries = []
        for _, spec in _stateful(self.encoder):
            S = spec.directions
            rows = [[self._split(d, S) for d in next(dlevels)] for _ in range(spec.levels)]
            entries.append([np.concatenate(part) for part in zip(*rows)])
        return _assemble(self.encoder, iter(entries))

    def _merge(self, both: Array) -> Array:
        """(S, N, H) -> (N, H), or (N, 2H)."""
        if len(both) == 1:
            return both[0]
        if self.merge == "concat":
            return np.concatenate(both, axis=1)
        return both.sum(axis=0) if self.merge == "sum" else both.mean(axis=0)

    def _split(self, d: Array, S: int) -> Array:
        """The gradient of `_merge`: (N, H), or (N, 2H), -> (S, N, H)."""
        if S == 1:
            return d[None]
        if self.merge == "concat":
            return np.stack(np.split(d, 2, axis=1))
        return np.stack([d, d]) * d.dtype.type(1 if self.merge == "sum" else 0.5)

    def _sizes(self, model: Module) -> list[tuple[int | None, ...]]:
        """The sizes of each level's arrays after merging, None where only the layer itself knows."""
        levels = []
        for _, spec in _stateful(model):
            wide = spec.directions if self.merge == "concat" else 1
            level = tuple(None if width is None else wide * width for width in spec.widths)
            levels += [level] * spec.levels
        return levels


# --- The layers of a model that have a state, and their entries in its state ------------------------------------------


def _stateful(model: Module) -> list[tuple[Module, StateSpec]]:
    specs = ((layer, layer.state_spec) for layer in model.flatten())
    return [(layer, spec) for layer, spec in specs if spec is not None]


def _parts(model: Module, state: Any) -> Iterator[tuple[Array, ...]]:
    """For each of them its arrays, each (L*S, N, H)."""
    for layer, entry in zip(model.flatten(), model.flatten_state(state)):
        if layer.state_spec is not None:
            yield entry if isinstance(entry, tuple) else (entry,)


def _assemble(model: Module, entries: Iterator[list[Array]]) -> Any:
    """The model's state from the arrays of its layers."""
    specs = [layer.state_spec for layer in model.flatten()]
    return model.unflatten_state(iter([None if spec is None else _as_state(spec, next(entries)) for spec in specs]))


def _as_state(spec: StateSpec, parts: list[Array]) -> Any:
    return parts[0] if spec.is_array else tuple(parts)
