"""Many streams of one model in one batch: for servers, where each client's frames arrive when they do.

Letters: D input features, M output features.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_size
from .builder import Layer
from .stream import CompiledStream, open_stream

Array = NDArray[Any]


class StreamPool:
    """Up to `capacity` streams of one model, opened and closed at any time. Frames that arrive within one call of
    `step` run as one batch: weights are read once for all of them, and each stream gets the bits that it has alone.

        pool = fastrnn.StreamPool(model, capacity=1000)
        caller = pool.open()
        y = pool.step({caller: x_t, another: x_u})[caller]
        pool.close(caller)

    model: a layer or Sequential that can stream. Its weights are shared with its other streams, and are those of when
    the pool was made. One thread at a time may use a pool, another one meets a RuntimeError.
    """

    def __init__(self, model: Layer, capacity: int) -> None:
        self.capacity = check_size("capacity", capacity)
        self._model, self._stream = model, open_stream(model, self.capacity)
        self._rows: dict[Hashable, int] = {}
        self._free = list(range(self.capacity))[::-1]
        self._next = 0

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._rows)

    def __contains__(self, id: Hashable) -> bool:
        return id in self._rows

    def open(self, id: Hashable = None, state: Any = None) -> Any:
        """Open a stream and return its id: the one given, or the next whole number.

        state: a snapshot to go on from, None for the initial state. Raises ValueError for an id that is open already
        and for a state that does not fit, RuntimeError where all are in use.
        """
        if id is None:
            while self._next in self._rows:
                self._next += 1
            id, self._next = self._next, self._next + 1
        if id in self._rows:
            raise ValueError(f"id: expected one that is not open yet, got {id!r}")
        if not self._free:
            raise RuntimeError(f"pool: expected at most {self.capacity} open streams, got another one; close one first")
        self._stream.restore(state, [self._free[-1]])
        self._rows[id] = self._free.pop()
        return id

    def close(self, id: Hashable) -> None:
        """End a stream. Raises KeyError for an id that is not open."""
        row = self._row(id)
        del self._rows[id]
        self._free.append(row)

    def step(self, frames: Mapping[Any, Any]) -> dict[Any, Array]:
        """A step of each stream that has a frame: id -> x_t (D,), or a token, gives id -> y_t (M,); the others wait.

        Raises KeyError for an id that is not open, ValueError for a frame of another shape; no stream has moved then.
        """
        if isinstance(self._stream, CompiledStream):
            return self._stream.step_frames(self._rows, frames)
        if not frames:
            return {}
        x = np.stack([np.asarray(frame) for frame in frames.values()])
        if x.dtype.kind == "f":
            x = x.astype(next(a.dtype for layer in self._model.flatten() for a in layer.params.values()), copy=False)
        return dict(zip(frames, self._stream.step(x, rows=[self._row(id) for id in frames])))

    def snapshot(self, id: Hashable) -> Any:
        """A copy of a stream's state, as that of a batch of one: for `restore`, `open`, or a stream of the model."""
        return self._stream.snapshot([self._row(id)])

    def restore(self, id: Hashable, snapshot: Any) -> None:
        """Put a stream back to a snapshot; None is the initial state."""
        self._stream.restore(snapshot, [self._row(id)])

    def _row(self, id: Hashable) -> int:
        if id not in self._rows:
            raise KeyError(f"id: expected one that is open, got {id!r}")
        return self._rows[id]
