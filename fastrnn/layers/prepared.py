"""Weights that stay packed: what `Module.prepare` keeps for inference, and when it lets go.

Letters: T time steps, N batch.

# Design: a call packs its weights, which takes as long as tens of steps at N = 1. A prepared model keeps a compiled
# chain for each batch size, as a stream does, and makes its parameters read-only for as long, so that no weight can
# change behind packed ones: who writes to one meets NumPy's error. Training and load_state_dict let go by themselves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..streaming.stream import CompiledStream, Stream, open_stream

if TYPE_CHECKING:
    from .module import Array, Module

MOST_STEPS = 256  # rows times steps: in longer calls packing is a small part, and the kernels share them out better


class Prepared:
    """The packed weights of a model, and the calls that they serve."""

    def __init__(self, model: Module) -> None:
        stream = open_stream(model, 1)
        if not isinstance(stream, CompiledStream) or not all(layer.exact_in_chain for layer in model.flatten()):
            got = type(model).__name__
            raise ValueError(f"prepare: expected layers that a compiled chain computes to the same bits, got {got}")
        self.model, self._dtype = model, stream.dtype
        self._streams: dict[int, Stream] = {}
        self._lock = threading.Lock()  # a stream has one state: a second thread takes the ordinary way
        self._arrays = [a for layer in model.flatten() for a in layer.params.values() if a.flags.writeable]
        for array in self._arrays:
            array.flags.writeable = False
        for layer in (model, *model.flatten()):
            layer._prepared = self

    def release(self) -> None:
        for array in self._arrays:
            array.flags.writeable = True
        for layer in (self.model, *self.model.flatten()):
            layer._prepared = None

    def forward(self, x: Any, state: Any) -> tuple[Array, Any] | None:
        """y, state_n of the model, bit for bit what it would give; None for a call that takes the ordinary way."""
        axes = 3 if self._dtype is not None else 2
        if (
            type(x) is not np.ndarray
            or x.ndim != axes
            or (x.dtype != self._dtype if axes == 3 else x.dtype.kind != "i")
        ):
            return None
        rows, steps = x.shape[:2] if self.model.batch_first else x.shape[1::-1]
        if not 0 < rows * steps <= MOST_STEPS or not self._lock.acquire(blocking=False):
            return None
        try:
            if rows not in self._streams:
                self._streams[rows] = open_stream(self.model, rows)
            stream = self._streams[rows]
            if state is None:
                stream.reset()
            else:
                stream.state = state
            y = stream.run(x)
            if not self.model.time.in_y:
                y = np.ascontiguousarray(y[:, -1] if self.model.batch_first else y[-1])
            return y, stream.state
        finally:
            self._lock.release()
