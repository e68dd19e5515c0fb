"""The states of a stack of recurrent layers, as users hand them in and get them back.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h, L layers, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import as_real, check_size, check_state, kind_of
from ..functional.spec import CellSpec
from .layout import time_major
from .lookup import Lookup
from .module import Array
from .stateful import Stateful

State = Any


class StackStates(Stateful):
    """Of each state all layers and directions are in one array, (L*S, N, width)."""

    spec: CellSpec
    states: tuple[str, ...]
    input_size: int
    hidden_size: int
    num_layers: int
    dtype: Any
    learn_initial_state: bool
    _directions: int
    _h_size: int
    batch_first: bool

    def _state_widths(self) -> tuple[int, ...]:
        return self.spec.widths(self.hidden_size, self._h_size)

    def _read_input(self, x: Any, state: State, steps: int | None) -> tuple[Any, bool]:
        """x time-major, and whether it has a batch axis; `steps` without input are an x of no features."""
        if (x is None) == (steps is None):
            raise ValueError("steps: expected a number of steps with x None, and None with an x")
        if isinstance(x, Lookup) and x.shape[-1] == self.input_size and x.dtype == self.dtype:
            return x.time_major(self.batch_first), True
        if x is not None:
            x = as_real("x", x, self.dtype)
            return time_major("x", x, None, self.batch_first, self.input_size), x.ndim == 3
        several = len(self.states) > 1 and isinstance(state, (tuple, list))
        first = next((part for part in state if part is not None), None) if several else state
        batched = first is None or np.ndim(first) == 3
        N = first.shape[1] if isinstance(first, np.ndarray) and batched else 1
        return np.zeros((check_size("steps", steps), N, 0), self.dtype), batched

    def _unpack(self, name: str, state: State, N: int, batched: bool) -> list[Array | None]:
        """h (L*S, N, P) and c (L*S, N, H), None where none is given, and for the c of a cell without one."""
        if state is None:
            return [None, None]
        parts = [state] if len(self.states) == 1 else state
        if len(self.states) > 1 and not (isinstance(state, (tuple, list)) and len(state) == len(self.states)):
            raise TypeError(f"{name}: expected a tuple ({', '.join(self.states)}), got {kind_of(state)}")
        rows = self.num_layers * self._directions
        for part, letter, width in zip(parts, self.states, self._state_widths()):
            shape = (rows, N, width) if batched else (rows, width)
            label = name if len(self.states) == 1 else f"{letter} of {name}"
            check_state(label, part, shape, self.dtype)
        return _pair([part if batched or part is None else part[:, None] for part in parts])

    def _first_state(self, state: State, N: int, batched: bool) -> tuple[list[Array | None], list[int]]:
        """What the sequences start from, and which parts of it are the learned ones."""
        first, learned = self._unpack("state", state, N, batched), []
        if self.learn_initial_state:
            for part, name in enumerate(self.states):
                if first[part] is None:
                    first[part] = np.repeat(self._params[f"initial_{name}"][:, None], N, axis=1)
                    learned.append(part)
        return first, learned

    def _pack(self, state_n: list[list[Array]], batched: bool) -> State:
        if not batched:
            return self._as_state([np.concatenate(rows) for rows in zip(*state_n)])
        if len(state_n) == 1:
            return self._as_state([a[None] for a in state_n[0]])
        return self._as_state([np.stack(rows) for rows in zip(*state_n)])

    def _state_of_no_rows(self) -> State:
        rows = self.num_layers * self._directions
        return self._as_state([np.zeros((rows, 0, width), self.dtype) for width in self._state_widths()])

    def _as_state(self, parts: list[Array]) -> State:
        return parts[0] if len(parts) == 1 else tuple(parts)


def _pair(parts: list[Array | None]) -> list[Array | None]:
    """h and c, which is None for a cell without one."""
    return [parts[0], parts[1] if len(parts) == 2 else None]
