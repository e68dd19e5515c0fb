"""Parameters seen as one long axis, cut into blocks: what the optimisers work on.

A model of a few small arrays is one block, so that an update costs a dozen NumPy calls and not a dozen for
each array; a large array is many blocks, each of which stays in the cache through all passes. The state of
an optimiser (momentum and the like) lies along the same axis, one flat array per slot. Everything is
allocated once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

BLOCK = 65536  # elements: in float32 gradient, scratch and two slots fill 1 MB of L2; 32K to 128K run alike


@dataclass(frozen=True)
class Block:
    """A range of the long axis."""

    # (index of a parameter, range within it, the same range within the block), in order
    pieces: tuple[tuple[int, slice, slice], ...]
    slots: tuple[np.ndarray, ...]  # views of every slot's range
    gradient: np.ndarray  # scratch for the block's gradient, shared by all blocks
    scratch: np.ndarray  # a second one


class FlatParameters:
    """The layout of ``params`` on the long axis, and the state along it.

    ``slots`` names the state's arrays, each with the value it begins with. Raises TypeError for what is not
    an array of float32 or float64, ValueError for no parameters at all.
    """

    def __init__(self, params: Mapping[str, np.ndarray], slots: Mapping[str, float]) -> None:
        if not params:
            raise ValueError("params: expected at least one array, came none")
        for name, param in params.items():
            dtype = param.dtype if isinstance(param, np.ndarray) else type(param).__name__
            if dtype not in (np.float32, np.float64):
                raise TypeError(f"params[{name!r}]: expected an array of float32 or float64, came {dtype}")
        self.shapes = {name: param.shape for name, param in params.items()}
        self.dtype = next(iter(params.values())).dtype
        sizes = [param.size for param in params.values()]
        total = sum(sizes)
        self.slots = {slot: np.full(total, value, self.dtype) for slot, value in slots.items()}
        work = np.empty((2, min(BLOCK, total)), self.dtype)
        self.blocks = [self._block(sizes, start, min(start + BLOCK, total), work) for start in range(0, total, BLOCK)]

    def _block(self, sizes: list[int], start: int, stop: int, work: np.ndarray) -> Block:
        pieces, offset = [], 0
        for i, size in enumerate(sizes):
            low, high = max(start, offset), min(stop, offset + size)
            if low < high:
                pieces.append((i, slice(low - offset, high - offset), slice(low - start, high - start)))
            offset += size
        slots = tuple(flat[start:stop] for flat in self.slots.values())
        return Block(tuple(pieces), slots, work[0, : stop - start], work[1, : stop - start])

    def flatten(
        self, params: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Parameters (as views) and gradients, one axis each, once all of them have been found to fit."""
        if params.keys() != self.shapes.keys():
            raise ValueError(f"params: expected those of the first step, {_differ(params, self.shapes)}")
        flat_params, flat_grads = [], []
        for name, shape in self.shapes.items():
            param, grad = params[name], grads.get(name)
            if grad is None:
                raise ValueError(f"grads: expected a gradient for {name!r}, came none")
            if param.shape != shape or param.dtype != self.dtype:
                self._refuse(f"params[{name!r}]", param, shape)
            if grad.shape != shape or grad.dtype != self.dtype:
                self._refuse(f"grads[{name!r}]", grad, shape)
            if not param.flags.carray:  # a copy would be updated in its place
                state = "a strided" if param.flags.writeable else "a read-only"
                raise ValueError(f"params[{name!r}]: expected a C-contiguous, writeable array, came {state} one")
            flat_params.append(param.reshape(-1))
            flat_grads.append(grad.reshape(-1))
        return flat_params, flat_grads

    def state(self) -> dict[str, np.ndarray]:
        """The state by "slot.parameter": views in the parameters' shapes."""
        views = {}
        for slot, flat in self.slots.items():
            start = 0
            for name, shape in self.shapes.items():
                stop = start + math.prod(shape)
                views[f"{slot}.{name}"] = flat[start:stop].reshape(shape)
                start = stop
        return views

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy a saved state into this one, once every entry has been found to fit."""
        views = self.state()
        if arrays.keys() != views.keys():
            raise ValueError(f"state: expected the state of these parameters, {_differ(arrays, views)}")
        for name, view in views.items():
            self._refuse(f"state[{name!r}]", arrays[name], view.shape)
        for name, view in views.items():
            view[...] = arrays[name]

    def _refuse(self, what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.dtype != self.dtype:
            raise TypeError(f"{what}: expected {self.dtype}, came {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{what}: expected shape {shape}, came {array.shape}")


def _differ(given: Iterable[str], names: Iterable[str]) -> str:
    given, names = list(given), list(names)
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    return f"came without {missing} and with {unknown} besides"
