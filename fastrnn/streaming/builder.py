"""How a model becomes compiled chains: what streams ask of layers, and what layers tell of themselves.

Letters: N batch, H hidden size, P width of h.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .. import _native, _state
from .._validate import Nonlinearity
from ..functional.spec import LINEAR, NONLINEARITIES, CellSpec

Array = NDArray[Any]


class Layer(Protocol):
    """What a stream asks of a layer; `fastrnn.Module` has it all."""

    batch_first: bool | None
    accepts: frozenset[str]

    @property
    def time(self) -> Any: ...

    @property
    def state_spec(self) -> Any: ...

    @property
    def params(self) -> dict[str, Array]: ...

    def forward(self, x: Any, state: Any = None) -> tuple[Array, Any]: ...

    def flatten(self) -> Sequence[Layer]: ...

    def flatten_state(self, state: Any) -> list[Any]: ...

    def unflatten_state(self, entries: Iterator[Any]) -> Any: ...

    def check_streams(self) -> None: ...

    def compile_into(self, builder: ChainBuilder) -> bool: ...


class ChainBuilder:
    """Consecutive layers that run as one chain, or a single layer that has no compiled form.

    A layer adds itself in `compile_into`: one link for each time that a state is carried, or one for a linear map.
    """

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.links: list[dict[str, Any]] = []
        self.embedding: Array | None = None
        self.counts: list[int] = []  # links of each layer
        self.reads_tokens = False

    def add_recurrence(
        self,
        spec: CellSpec,
        weights: Mapping[str, Array | None],
        initial: list[Array] | None = None,
        zoneout: tuple[float, ...] = (),
        *,
        stack: _native.Stack | None = None,
        index: int = 0,
    ) -> bool:
        """One level of a recurrent layer. weights: under the names of the functional core; initial: the row that each
        of its states starts from, None for zeros; zoneout: the part of each state that is kept at a step; stack: who
        has the weights packed, as its `index`-th, or None."""
        link = {**weights, "spec": spec, "initial": initial, "zoneout": zoneout, "stack": stack, "index": index}
        self.links.append(link | self._sizes(link))
        return True

    def add_linear(
        self, weight: Array, bias: Array | None, stack: _native.Stack | None = None, scale: Array | None = None
    ) -> bool:
        """y = W x + b at each step; scale: of the rows of an int8 weight."""
        link = {"weight_ih": weight, "scale_ih": scale, "bias_ih": bias, "spec": LINEAR, "stack": stack}
        self.links.append(link | self._sizes(link))
        return True

    @staticmethod
    def _sizes(link: Mapping[str, Any]) -> dict[str, Any]:
        """What the initial state needs to know of weights."""
        scale, recurrent = link.get("scale_ih"), link.get("weight_hh")
        dtype = (link["weight_ih"] if scale is None else scale).dtype
        if recurrent is None:
            return {"dtype": dtype, "widths": None}
        H, P = len(link["weight_ih"]) // link["spec"].gates, recurrent.shape[1]
        return {"dtype": dtype, "widths": link["spec"].widths(H, P)}

    def add_embedding(self, weight: Array) -> bool:
        """Tokens to rows of weight; only in front of all else."""
        if self.links or self.embedding is not None:
            return False
        self.embedding = weight
        return True

    def add_activation(self, name: str) -> bool:
        """A function of each element; only right behind a linear map, of which it becomes a part."""
        if name == "identity":
            return True
        last: dict[str, Any] = self.links[-1] if self.links else {}
        if last.get("spec") != LINEAR or name not in NONLINEARITIES:
            return False
        last["spec"] = replace(LINEAR, activation=cast(Nonlinearity, name))
        return True

    @classmethod
    def of(cls, layer: Layer) -> ChainBuilder:
        builder = cls()
        builder.layers.append(layer)
        return builder

    def take(self, layer: Layer) -> bool:
        before = len(self.links)
        if not layer.compile_into(self):
            return False
        self.layers.append(layer)
        self.counts.append(len(self.links) - before)
        return True

    def chain_arguments(self) -> tuple[list[dict[str, Any]], Array | None]:
        """The arguments of the compiled chain. The builder lets go of the weights, which would hold on to them."""
        links, self.reads_tokens, embedding = self.links, self.embedding is not None, self.embedding
        self.links = [{name: link.get(name) for name in ("dtype", "widths", "initial")} for link in links]
        self.embedding = None
        return [link | {"cell": link["spec"].compiled} for link in links], embedding

    def initial(self, N: int) -> list[Any]:
        """The chain's initial state: zeros, or what a layer has learned."""
        state: list[tuple[Array, ...] | None] = []
        for link in self.links:
            if link["widths"] is None:
                state.append(None)
                continue
            learned = link.get("initial") or [np.zeros(width, link["dtype"]) for width in link["widths"]]
            state.append(tuple(np.repeat(row[None], N, axis=0) for row in learned))
        return state

    def by_layer(self, state: list[Any]) -> list[Any]:
        """A chain's state as the layers' `forward` has it."""
        entries, at = [], 0
        for layer, count in zip(self.layers, self.counts):
            links = state[at : at + count]
            entries.append(tuple(np.stack(rows) for rows in zip(*links)) if "state" in layer.accepts else None)
            at += count
        return [entry[0] if entry is not None and len(entry) == 1 else entry for entry in entries]

    def by_link(self, entries: list[Any], N: int) -> list[Any]:
        """The other way round; None stands for the initial state, or for one part of it."""
        state: list[tuple[Array, ...] | None] = []
        initial = self.initial(N)
        for layer, count, entry in zip(self.layers, self.counts, entries):
            if "state" not in layer.accepts or entry is None:
                if entry is not None:
                    raise ValueError(f"state: expected None for {type(layer).__name__}, got {type(entry).__name__}")
                state += initial[len(state) : len(state) + count]
                continue
            parts = _state.parts(entry)
            if len(parts) != len(layer.state_spec.names) or any(
                part is not None and (np.ndim(part) != 3 or len(part) != count) for part in parts
            ):
                wanted = ", ".join(f"{name} ({count}, {N}, ...)" for name in layer.state_spec.names)
                raise ValueError(f"state: expected {wanted} for {type(layer).__name__}, got {_state.shapes(entry)}")
            for k, rows in enumerate(initial[len(state) : len(state) + count]):
                state.append(tuple(rows[i] if part is None else part[k] for i, part in enumerate(parts)))
        return state


def plan_chains(layers: Sequence[Layer]) -> list[ChainBuilder]:
    plan = [ChainBuilder()]
    for layer in layers:
        if plan[-1].take(layer):
            continue
        if plan[-1].layers:
            plan.append(ChainBuilder())
        if not plan[-1].take(layer):
            plan[-1].layers.append(layer)
            plan.append(ChainBuilder())
    # Without a link there is no chain: an embedding alone, dropout between layers of the user's own.
    return [part for piece in plan for part in ([piece] if piece.links else map(ChainBuilder.of, piece.layers))]
