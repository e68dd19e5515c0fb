"""Streams: a model that is fed one time step, or a block of steps, after the other and keeps its state in between.

Letters: T time steps, N batch, D input features, H hidden size, M output features.

Layers say in `compile_into` what they are to the compiled chain (`_native.Chain`), which packs their weights once
and takes a step of all of them in one call. What has no compiled form runs between chains, through `forward`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native, _state
from .._validate import check_size
from .builder import ChainBuilder, Layer, plan_chains

Array = NDArray[Any]


def open_stream(model: Layer, batch_size: int) -> Stream:
    """The stream of a layer or Sequential, from its initial state on. Raises ValueError for one that cannot stream."""
    N = check_size("batch_size", batch_size)
    layers = model.flatten()
    for layer in layers:
        layer.check_streams()
    plan = plan_chains(layers)
    return CompiledStream(model, N, plan[0]) if len(plan) == 1 and plan[0].links else PiecewiseStream(model, N, plan)


class Stream:
    """A model step by step, from its initial state on: `layer.stream(batch_size=1)` or `model.stream(batch_size=1)`.

    Streams of one model share one copy of its packed weights, and keep those they began with: when a weight changes,
    the model packs new ones into other memory, so after training on, open another stream. They may run in several
    threads at once, one thread each; a second thread that uses one that is running meets a RuntimeError.
    """

    model: Any
    batch_size: int

    def step(self, x: Any, out: Array | None = None, rows: Any = None) -> Array:
        """One step: x (N, D), or (D,) where N is 1, or tokens (N,) -> y (N, M), or (M,). y is written to `out` where
        that is given.

        rows: indices (n,), or a mask (N,), of the rows that step; x has n rows then, in their order, and the others
        wait. Each of them gets the bits of a stream of its own, whoever else steps with it.
        """
        raise NotImplementedError

    def run(self, x: Any) -> Array:
        """A block of steps: x (T, N, D), or (N, T, D) for a batch-first model, or (T, D) where N is 1, or tokens
        without the last axis. Returns the output of every step, laid out like x; of a compiled model it is that of
        `model(x)` from the same state, bit for bit."""
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """As the model's `forward` takes and returns it; can be set, None for the initial one."""
        return self.snapshot()

    @state.setter
    def state(self, state: Any) -> None:
        self.restore(state)

    def snapshot(self, rows: Any = None) -> Any:
        """A copy of the state, for `restore`; later steps do not change it. rows: of these alone, in their order."""
        raise NotImplementedError

    def restore(self, snapshot: Any, rows: Any = None) -> None:
        """Go back to a snapshot, of this stream or of another one of the same model and batch size. rows: a snapshot of
        as many rows becomes the state of these; the others stay as they are."""
        raise NotImplementedError

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
        return None if self._piece.reads_tokens else self._piece.links[0]["dtype"]

    def run(self, x: Any) -> Array:
        x = np.asarray(x)
        flat = x.ndim == (1 if self._piece.reads_tokens else 2) and self.batch_size == 1
        if flat:
            return super().run(x[:, None])[:, 0]
        if self.model.batch_first and x.ndim > 1:
            return super().run(x.swapaxes(0, 1)).swapaxes(0, 1)
        return super().run(x)

    def snapshot(self, rows: Any = None) -> Any:
        return self.model.unflatten_state(iter(self._piece.by_layer(self.states(rows))))

    def restore(self, snapshot: Any, rows: Any = None) -> None:
        n = self.batch_size if rows is None else len(_index(rows, self.batch_size))
        self.set_states(self._piece.by_link(self.model.flatten_state(snapshot), n), rows)

    def reset(self, rows: Any = None) -> None:
        self.restore(None, _not_flags(rows, self.batch_size))


class PiecewiseStream(Stream):
    """A stream of a model with layers that have no compiled form: used as `CompiledStream`."""

    def __init__(self, model: Any, batch_size: int, plan: list[ChainBuilder]) -> None:
        self.model, self.batch_size, self._plan = model, batch_size, plan
        self._chains = [_native.Chain(batch_size, *piece.chain_arguments()) if piece.links else None for piece in plan]
        self._states: list[Any] = [None] * len(plan)  # of the pieces that are no chains
        self.reset()

    def step(self, x: Array, out: Array | None = None, rows: Any = None) -> Array:
        indices = None if rows is None else _index(rows, self.batch_size)
        y, flat = self._read(x, 0, indices)
        for index, (piece, chain) in enumerate(zip(self._plan, self._chains)):
            if chain is not None:
                y = chain.step(y, rows=indices)
            elif indices is None:
                y = self._run(index, piece.layers[0], y[None])[0]
            elif len(indices):
                y = self._run_rows(index, piece.layers[0], y[None], indices)[0]
        y = y[0] if flat else y
        if out is None:
            return y
        if out.shape != y.shape or out.dtype != y.dtype:
            raise ValueError(f"out: expected {y.dtype} of shape {y.shape}, got {out.dtype} of shape {out.shape}")
        out[...] = y
        return out

    def run(self, x: Array) -> Array:
        y, flat = self._read(x, 1)
        before = self.state
        try:
            for index, (piece, chain) in enumerate(zip(self._plan, self._chains)):
                y = chain.run(y) if chain is not None else self._run(index, piece.layers[0], y)
        except BaseException:  # Ctrl-C, or a layer of the user's own: some pieces have gone on, others have not
            self.state = before
            raise
        if flat:
            return y[:, 0]
        return y.swapaxes(0, 1) if self.model.batch_first else y

    def _read(self, x: Any, time: int, rows: Array | None = None) -> tuple[Array, bool]:
        """x time-major, with `time` axes of steps before that of the batch; and whether it came without the latter."""
        x, N = np.asarray(x), self.batch_size if rows is None else len(rows)
        axes = time + (1 if x.dtype.kind in "iu" else 2)
        if rows is None and N == 1 and x.ndim == axes - 1 > 0:
            return np.expand_dims(x, time), True
        turned = time and self.model.batch_first
        if x.ndim < axes or x.shape[0 if turned else time] != N:
            layout = ("N, T" if turned else "T, N") if time else "N"
            raise ValueError(f"x: expected shape ({layout}, D), or tokens ({layout}), N = {N}, got {x.shape}")
        return x.swapaxes(0, 1) if turned else x, False

    def _run_rows(self, index: int, layer: Any, x: Array, rows: Array) -> Array:
        """The same for some rows, the others keep their state."""
        whole = self._states[index]
        self._states[index] = _state.take_rows(whole, rows)
        try:
            y = self._run(index, layer, x)
            whole, some = self._whole(whole, self._states[index]), self._states[index]
            whole = _state.with_rows(whole, rows, some)
        finally:
            self._states[index] = whole
        return y

    def _whole(self, whole: Any, some: Any) -> Any:
        """The state of all rows, zeros where there is none yet, structured as that of some."""
        if whole is not None:
            return whole
        return _state.map(lambda a: np.zeros((len(a), self.batch_size, *a.shape[2:]), a.dtype), some)

    def _run(self, index: int, layer: Any, x: Array) -> Array:
        """Time-major steps of a layer without a compiled form."""
        if not layer.time.in_y:  # LastStep: the newest step is the last one
            return x
        turned = bool(layer.batch_first)
        y, self._states[index] = layer.forward(x.swapaxes(0, 1) if turned else x, self._states[index])
        return y.swapaxes(0, 1) if turned else y

    def snapshot(self, rows: Any = None) -> Any:
        indices = None if rows is None else _index(rows, self.batch_size)
        entries: list[Any] = []
        for piece, chain, state in zip(self._plan, self._chains, self._states):
            if chain is not None:
                entries += piece.by_layer(chain.states(indices))
            else:
                entries += [_state.copy(state) if indices is None else _state.take_rows(state, indices)]
        return self.model.unflatten_state(iter(entries))

    def restore(self, snapshot: Any, rows: Any = None) -> None:
        entries = self.model.flatten_state(snapshot)
        indices = None if rows is None else _index(rows, self.batch_size)
        n = self.batch_size if indices is None else len(indices)
        at, given = 0, []
        for piece in self._plan:
            given.append(piece.by_link(entries[at : at + len(piece.layers)], n) if piece.links else entries[at])
            at += len(piece.layers)
        for index, (chain, entry) in enumerate(zip(self._chains, given)):
            if chain is not None:
                chain.set_states(entry, indices)
            elif indices is None:
                self._states[index] = _state.copy(entry)
            elif entry is None:
                self._states[index] = _state.zero_rows(self._states[index], indices)
            else:
                whole = self._whole(self._states[index], entry)
                self._states[index] = _state.with_rows(whole, indices, entry)

    def reset(self, rows: Any = None) -> None:
        self.restore(None, _not_flags(rows, self.batch_size))


def _reopen(model: Any, batch_size: int, snapshot: Any) -> Stream:
    stream = open_stream(model, batch_size)
    stream.restore(snapshot)
    return stream


def _index(rows: Any, N: int) -> Array:
    """Indices of distinct rows out of N, from indices or a mask."""
    return _native.row_indices(rows, N)


def _not_flags(rows: Any, N: int) -> Any:
    """Refuses flags 0 and 1, which would be taken for the indices of two rows."""
    if rows is not None and (a := np.asarray(rows)).dtype.kind in "iu" and 1 < N == a.size and set(a.flat) <= {0, 1}:
        raise ValueError(f"rows: expected each index once, got {a}; flags are a mask of bool, rows.astype(bool)")
    return rows
