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
from .recurrent import RecurrentLayer

MERGES = ("concat", "sum", "mean")


class Bridge:
    """How the last states of `encoder` become the first of `decoder`.

    merge: what becomes of the two directions of a bidirectional layer. "concat": forward and backward side by side, so
    the decoder's hidden size is twice the encoder's; "sum" and "mean" keep the size.
    Raises ValueError where the models cannot be joined so.
    """

    def __init__(self, encoder: Module, decoder: Module, merge: str) -> None:
        self.encoder, self.decoder, self.merge = encoder, decoder, merge
        for layer in _stateful(decoder):
            if _directions(layer) == 2:
                got = type(layer).__name__
                raise ValueError(f"decoder: expected layers that read forward only, got a bidirectional {got}")
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
        for layer, parts in zip(_stateful(self.encoder), _parts(self.encoder, state)):
            S = _directions(layer)
            for k in range(0, len(parts[0]), S):
                levels.append([self._merge(part[k : k + S]) for part in parts])
        remaining = iter(levels)
        return _assemble(
            self.decoder,
            iter(
                [
                    [np.stack(rows) for rows in zip(*(next(remaining) for _ in range(_depth(layer))))]
                    for layer in _stateful(self.decoder)
                ]
            ),
        )

    def backward(self, dstate: Any) -> Any:
        """The gradient of the encoder's last state from that of the decoder's first."""
        dlevels = (level for parts in _parts(self.decoder, dstate) for level in zip(*parts))
        entries = []
        for layer in _stateful(self.encoder):
            S = _directions(layer)
            rows = [[self._split(d, S) for d in next(dlevels)] for _ in range(_depth(layer))]
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
        for layer in _stateful(model):
            wide = _directions(layer) if self.merge == "concat" else 1
            if isinstance(layer, RecurrentLayer):
                sizes = {"h": getattr(layer, "proj_size", 0) or layer.hidden_size, "c": layer.hidden_size}
                level = tuple(wide * sizes[name] for name in layer.states)
            else:
                level = (None,) * len(_states(layer))
            levels += [level] * _depth(layer)
        return levels


# --- The layers of a model that have a state, and their entries in its state ------------------------------------------


def _stateful(model: Module) -> list[Module]:
    return [layer for layer in model.leaves() if layer.takes_state]


def _parts(model: Module, state: Any) -> Iterator[tuple[Array, ...]]:
    """For each of them its arrays, each (L*S, N, H)."""
    for layer, entry in zip(model.leaves(), model.split_state(state)):
        if layer.takes_state:
            yield entry if isinstance(entry, tuple) else (entry,)


def _assemble(model: Module, entries: Iterator[list[Array]]) -> Any:
    """The model's state from the arrays of its layers."""
    return model.join_state(
        iter([_as_state(layer, next(entries)) if layer.takes_state else None for layer in model.leaves()])
    )


def _as_state(layer: Module, parts: list[Array]) -> Any:
    return parts[0] if getattr(layer, "state_is_array", len(parts) == 1) else tuple(parts)


def _states(layer: Module) -> tuple[str, ...]:
    return getattr(layer, "states", ("h",))


def _depth(layer: Module) -> int:
    return getattr(layer, "num_layers", 1)


def _directions(layer: Module) -> int:
    return 2 if getattr(layer, "bidirectional", False) else 1
