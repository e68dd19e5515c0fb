"""Streams: a model that is fed one time step, or a block of steps, after the other and keeps its state in between.

Letters: T time steps, N batch, D input features, H hidden size, P width of h, M output features.

Layers say in `compile_into` what they are to the compiled chain (`_native.Chain`), which packs their weights once
and takes a step of all of them in one call. What has no compiled form runs between chains, through `forward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .. import _native, _state
from .._validate import Nonlinearity, check_size
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

    def forward(self, x: Any, state: Any = None) -> tuple[Array, Any]: ...

    def flatten(self) -> Sequence[Layer]: ...

    def flatten_state(self, state: Any) -> list[Any]: ...

    def unflatten_state(self, entries: Iterator[Any]) -> Any: ...

    def check_streams(self) -> None: ...

    def compile_into(self, builder: ChainBuilder) -> bool: ...


def open_stream(model: Layer, batch_size: int) -> Stream:
    """The stream of a layer or Sequential, from its initial state on. Raises ValueError for one that cannot stream."""
    N = check_size("batch_size", batch_size)
    layers = model.flatten()
    for layer in layers:
        layer.check_streams()
    plan = _plan(layers)
    return CompiledStream(model, N, plan[0]) if len(plan) == 1 and plan[0].links else PiecewiseStream(model, N, plan)


class ChainBuilder:
    """Consecutive layers that run as one chain, or a single layer that has no compiled form.

    A layer adds itself in `compile_into`: one link for each time that a state is carried, or one for a linear map.
    """

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.links: list[dict[str, Any]] = []
        self.embedding: Array | None = None
        self.counts: list[int] = []  # links of each layer

    def add_recurrence(
        self,
        spec: CellSpec,
        weights: Mapping[str, Array | None],
        initial: list[Array] | None = None,
        zoneout: tuple[float, ...] = (),
    ) -> bool:
        """One level of a recurrent layer. weights: under the names of the functional core; initial: the row that each
        of its states starts from, None for zeros; zoneout: the part of each state that is kept at a step."""
        self.links.append({**weights, "spec": spec, "initial": initial, "zoneout": zoneout})
        return True

    def add_linear(self, weight: Array, bias: Array | None) -> bool:
        """y = W x + b at each step."""
        self.links.append({"weight_ih": weight, "bias_ih": bias, "spec": LINEAR})
        return True

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
        return [link | {"cell": link["spec"].compiled} for link in self.links], self.embedding

    def initial(self, N: int) -> list[Any]:
        """The chain's initial state: zeros, or what a layer has learned."""
        state: list[tuple[Array, ...] | None] = []
        for link in self.links:
            if link.get("weight_hh") is None:
                state.append(None)
                continue
            spec, dtype = link["spec"], link["weight_ih"].dtype
            widths = spec.widths(len(link["weight_ih"]) // spec.gates, link["weight_hh"].shape[1])
            learned = link.get("initial") or [np.zeros(width, dtype) for width in widths]
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


def _plan(layers: Sequence[Layer]) -> list[ChainBuilder]:
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


class Stream:
    """A model step by step, from its initial state on: `layer.stream(batch_size=1)` or `model.stream(batch_size=1)`.

    Weights are copied and packed once: after training on, open another stream. Streams of one model may run in several
    threads at once, one thread each; a second thread that uses one that is running meets a RuntimeError.
    """

    model: Any
    batch_size: int

    def step(self, x: Any, out: Array | None = None, mask: Array | None = None) -> Array:
        """One step: x (N, D), or (D,) where N is 1, or tokens (N,) -> y (N, M), or (M,). y is written to `out` where
        that is given. mask (N,), bool: rows where it is False do not take the step. They keep their state, and y has
        there what comes of it, as of a masked step of a sequence."""
        raise NotImplementedError

    def run(self, x: Any) -> Array:
        """A block of steps: x (T, N, D), or (N, T, D) for a batch-first model, or (T, D) where N is 1, or tokens
        without the last axis. Returns the output of every step, laid out like x; of a compiled model it is that of
        `model(x)` from the same state, bit for bit."""
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """As the model's `forward` takes and returns it; can be set, None for the initial one."""
        raise NotImplementedError

    @state.setter
    def state(self, state: Any) -> None:
        raise NotImplementedError

    def snapshot(self) -> Any:
        """A copy of the state, for `restore`; later steps do not change it."""
        return self.state

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot, of this stream or of another one of the same model and batch size."""
        self.state = snapshot

    def reset(self, rows: Any = None) -> None:
        """Put all rows, or those chosen by an index, a list of indices or a mask (N,), back to the initial state."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """A stream is pickled as its model and state: weights are packed anew from the model's."""
        return _reopen, (self.model, self.batch_size, self.snapshot())


class CompiledStream(_native.Chain, Stream):
    """The stream of a model of compiled layers: a step of all of them is one call."""

    __reduce__ = Stream.__reduce__

    def __init__(self, model: Any, batch_size: int, piece: ChainBuilder) -> None:
        _native.Chain.__init__(self, batch_size, *piece.chain_arguments())
        self.model, self.batch_size, self._piece = model, batch_size, piece
        self.reset()

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the x that it reads; None for tokens."""
        return None if self._piece.embedding is not None else self._piece.links[0]["weight_ih"].dtype

    def run(self, x: Any) -> Array:
        x = np.asarray(x)
        flat = x.ndim == (1 if self._piece.embedding is not None else 2) and self.batch_size == 1
        if flat:
            return super().run(x[:, None])[:, 0]
        if self.model.batch_first and x.ndim > 1:
            return super().run(x.swapaxes(0, 1)).swapaxes(0, 1)
        return super().run(x)

    @property
    def state(self) -> Any:
        return self.model.unflatten_state(iter(self._piece.by_layer(self.states())))

    @state.setter
    def state(self, state: Any) -> None:
        self.set_states(self._piece.by_link(self.model.flatten_state(state), self.batch_size))

    def reset(self, rows: Any = None) -> None:
        initial = self._piece.initial(self.batch_size)
        self.set_states(initial if rows is None else _with_rows(self.states(), initial, _index(rows, self.batch_size)))


class PiecewiseStream(Stream):
    """A stream of a model with layers that have no compiled form: used as `CompiledStream`."""

    def __init__(self, model: Any, batch_size: int, plan: list[ChainBuilder]) -> None:
        self.model, self.batch_size, self._plan = model, batch_size, plan
        self._chains = [_native.Chain(batch_size, *piece.chain_arguments()) if piece.links else None for piece in plan]
        self._states: list[Any] = [None] * len(plan)  # of the pieces that are no chains
        self.reset()

    def step(self, x: Array, out: Array | None = None, mask: Array | None = None) -> Array:
        y, flat = self._read(x, 0)
        if mask is not None and np.shape(mask) != (self.batch_size,):
            raise ValueError(f"mask: expected shape ({self.batch_size},) = (N,), got {np.shape(mask)}")
        for index, (piece, chain) in enumerate(zip(self._plan, self._chains)):
            if chain is not None:
                y = chain.step(y, mask=mask)
            else:
                y = self._run(index, piece.layers[0], y[None], None if mask is None else mask[None])[0]
        y = y[0] if flat else y
        if out is None:
            return y
        if out.shape != y.shape or out.dtype != y.dtype:
            raise ValueError(f"out: expected {y.dtype} of shape {y.shape}, got {out.dtype} of shape {out.shape}")
        out[...] = y
        return out

    def run(self, x: Array) -> Array:
        y, flat = self._read(x, 1)
        for index, (piece, chain) in enumerate(zip(self._plan, self._chains)):
            y = chain.run(y) if chain is not None else self._run(index, piece.layers[0], y)
        if flat:
            return y[:, 0]
        return y.swapaxes(0, 1) if self.model.batch_first else y

    def _read(self, x: Any, time: int) -> tuple[Array, bool]:
        """x time-major, with `time` axes of steps before that of the batch; and whether it came without the latter."""
        x = np.asarray(x)
        axes = time + (1 if x.dtype.kind in "iu" else 2)
        if self.batch_size == 1 and x.ndim == axes - 1 > 0:
            return np.expand_dims(x, time), True
        turned = time and self.model.batch_first
        if x.ndim < axes or x.shape[0 if turned else time] != self.batch_size:
            layout = ("N, T" if turned else "T, N") if time else "N"
            raise ValueError(
                f"x: expected shape ({layout}, D), or tokens ({layout}), N = {self.batch_size}, got {x.shape}"
            )
        return x.swapaxes(0, 1) if turned else x, False

    def _run(self, index: int, layer: Any, x: Array, mask: Array | None = None) -> Array:
        """Time-major steps of a layer without a compiled form; which of them are real."""
        if not layer.time.in_y:  # LastStep: the newest step is the last one
            return x
        turned, told = bool(layer.batch_first), {}
        if mask is not None and ("state" in layer.accepts or "mask" in layer.accepts):
            told["mask"] = mask.T if turned else mask
        x = x.swapaxes(0, 1) if turned else x
        y, self._states[index] = (
            layer.run(x, self._states[index], **told) if told else layer.forward(x, self._states[index])
        )
        return y.swapaxes(0, 1) if turned else y

    @property
    def state(self) -> Any:
        entries: list[Any] = []
        for piece, chain, state in zip(self._plan, self._chains, self._states):
            entries += [_state.copy(state)] if chain is None else piece.by_layer(chain.states())
        return self.model.unflatten_state(iter(entries))

    @state.setter
    def state(self, state: Any) -> None:
        entries = self.model.flatten_state(state)
        at, chained = 0, []
        for piece in self._plan:
            chained.append(
                piece.by_link(entries[at : at + len(piece.layers)], self.batch_size) if piece.links else entries[at]
            )
            at += len(piece.layers)
        for index, (chain, entry) in enumerate(zip(self._chains, chained)):
            if chain is None:
                self._states[index] = _state.copy(entry)
            else:
                chain.set_states(entry)

    def reset(self, rows: Any = None) -> None:
        if rows is None:
            self.state = None
            return
        rows = _index(rows, self.batch_size)
        for index, (piece, chain) in enumerate(zip(self._plan, self._chains)):
            if chain is not None:
                chain.set_states(_with_rows(chain.states(), piece.initial(self.batch_size), rows))
                continue
            self._states[index] = _state.zero_rows(self._states[index], rows)


def _reopen(model: Any, batch_size: int, snapshot: Any) -> Stream:
    stream = open_stream(model, batch_size)
    stream.restore(snapshot)
    return stream


def _index(rows: Any, N: int) -> Array:
    """Rows as NumPy indexes with them: a mask, or indices. Flags 0 and 1 would be taken for the indices of two rows."""
    rows = np.asarray(rows)
    if rows.dtype.kind in "iu" and rows.size:
        flags = 1 < N == rows.size and rows.min() >= 0 and rows.max() <= 1
        if flags or len(np.unique(rows)) < rows.size:
            raise ValueError(f"rows: expected each index once, got {rows}; flags are a mask of bool, rows.astype(bool)")
    return rows if rows.size else rows.astype(int)  # [] is none of them


def _with_rows(states: list[Any], initial: list[Any], rows: Array) -> list[Any]:
    """A chain's states with these rows as they were at first."""
    return list(_state.with_rows(states, rows, _state.take_rows(initial, rows, axis=0), axis=0))
