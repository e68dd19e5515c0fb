"""Recurrent: any cell of the user's own, (y_t, s_t) = R(x_t, s_{t-1}), run over time and trained in NumPy.

Letters: T time steps, N batch, D input features, M output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import _state
from .._validate import as_generator, as_real, check_dtype, check_reset_mask, check_size, check_state, kind_of
from .layout import active_lengths, as_given, read_doutput, time_major, time_major_mask
from .module import Array, class_name
from .protocol import NOTHING, Context, StateSpec
from .stateful import Stateful

_cells: dict[str, type[Cell]] = {}


class Cell:
    """What `Recurrent` needs of a cell: one time step and its gradients. Derive from it, or write a class like it.

    params: name -> array, all float32 or all float64, C-contiguous; those the cell computes with, changed in place by
        optimisers. None by default.
    state_size: what a state is. A whole number H stands for one array (N, H); a tuple stands for a tuple of arrays, one
        for each entry, which is a whole number or the shape without the batch axis: (H, (H, H)) is (N, H), (N, H, H).
    step(x_t, state) -> y_t, state, cache
        x_t (N, D), or None in an autonomous recurrence; y_t (N, M); cache is whatever `step_backward` needs. N may
        differ from step to step where sequences have lengths, so rows must not look at each other. Do not write to
        x_t or state.
    step_backward(dy_t, dstate, cache) -> dx_t, dstate_prev, dparams
        Gradients of a loss with respect to what `step` read, from those with respect to what it returned: dstate and
        dstate_prev like a state, dparams a dict with an array for each parameter that the step used. None stands for
        zeros. `check_gradients(Recurrent(cell), x)` tells whether it is right.
    arguments() -> keyword arguments of the constructor that make a cell like this one, JSON-able, for checkpoints;
        with a "dtype" among them `check_gradients` can check a float32 cell.

        class Leaky(fastrnn.Cell):                                    # h_t = a h_{t-1} + (1 - a) W x_t,  y_t = h_t
            def __init__(self, input_size, hidden_size, a=0.9):
                self.a, self.state_size = a, hidden_size
                self.params = {"W": np.zeros((hidden_size, input_size), np.float32)}

            def step(self, x_t, state):
                h = self.a * state + (1 - self.a) * (x_t @ self.params["W"].T)
                return h, h, x_t

            def step_backward(self, dy_t, dstate, cache):
                dh = dy_t + dstate
                da = (1 - self.a) * dh
                return da @ self.params["W"], self.a * dh, {"W": da.T @ cache}
    """

    params: Mapping[str, Array] = MappingProxyType({})
    state_size: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _cells[class_name(cls)] = cls

    def step(self, x_t: Array | None, state: Any) -> tuple[Array, Any, Any]:
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def step_backward(self, dy_t: Array, dstate: Any, cache: Any) -> tuple[Array | None, Any, Mapping[str, Array]]:
        raise NotImplementedError(f"{type(self).__name__} defines no step_backward")

    def arguments(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} defines no arguments")


class Recurrent(Stateful):
    """A layer from a cell: output_t, state_t = cell.step(x_t, state_{t-1}), step after step.

    output, state_n = layer(x, state=None, *, steps=None, lengths=None, reset_mask=None, mask=None, training=False)
        x (T, N, D), or (N, T, D) with batch_first, or (T, D) for one sequence, in the dtype of the cell's parameters.
        x=None with steps=T runs the cell by itself, s_t = f(s_{t-1}); the batch is then that of the state, one sequence
        where there is none.
        state: the cell's, each array with an axis of length 1 in front as a one-layer RNN's state has it, (1, N, H);
        without a batch axis (1, H). None for zeros. output (T, N, M), laid out as x.
        lengths (N,), 0..T in any order: outputs past a length are 0, state_n is that of the last valid step, and the
        cell is given the rows that still run. reset_mask (T, N), with batch_first too: where True the state is zeroed
        before that step. mask, of the first axes of x: where False the row keeps its state, the cell is not given it,
        and output is that of the step before, zeros where there was none since the start or a reset.

    dx, dstate0 = layer.backward(doutput, dstate_n=None)
        Backpropagation through time, after a call with training=True; doutput and dstate_n may be None for zeros.
        dx is None for x=None. Parameter gradients are added to `grads`.

    cell: see `Cell`. dtype: float32 or float64, for a cell without parameters; otherwise theirs.
    Raises TypeError and ValueError that name the argument, or what the cell returned, and RuntimeError for a backward
    without a training call before it.
    """

    batch_first: bool
    accepts = Stateful.accepts | {"mask"}
    reads = "features"

    def __init__(self, cell: Cell, *, batch_first: bool = False, dtype: Any = None) -> None:
        super().__init__()
        for name in ("step", "step_backward"):
            if not callable(getattr(cell, name, None)):
                raise TypeError(f"cell: expected an object with step and step_backward, got {type(cell).__name__}")
        self.cell = cell
        self.batch_first = bool(batch_first)
        self._state_is_array, self._shapes = _state_shapes(cell)
        self.dtype = _params_dtype(getattr(cell, "params", {}), dtype)
        self._grads = {name: np.zeros(param.shape, param.dtype) for name, param in self.params.items()}

    @property
    def state_spec(self) -> StateSpec:
        names = tuple(f"s{k}" for k in range(len(self._shapes)))
        widths = tuple(shape[0] if len(shape) == 1 else None for shape in self._shapes)
        return StateSpec(names, widths, is_array=self._state_is_array)

    @property
    def params(self) -> dict[str, Array]:
        return dict(getattr(self.cell, "params", {}))

    def arguments(self) -> dict[str, Any]:
        if not hasattr(self.cell, "arguments"):
            raise NotImplementedError(f"{type(self.cell).__name__} defines no arguments")
        config = {"class": class_name(type(self.cell))} | self.cell.arguments()
        return {"cell": config, "batch_first": self.batch_first, "dtype": self.dtype.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recurrent:
        described = dict(config["cell"])
        name = described.pop("class")
        if name not in _cells:
            raise ValueError(f"cell: expected a subclass of Cell defined before, got {name!r}")
        return cls(_cells[name](**described), batch_first=config["batch_first"], dtype=config["dtype"])

    def reset_parameters(self, rng: int | np.random.Generator | None = None) -> None:
        """As `reset_parameters(rng)` of the cell does it, which gets a Generator."""
        if not self.params:
            return
        if not hasattr(self.cell, "reset_parameters"):
            name = type(self.cell).__name__
            raise TypeError(
                f"rng: expected cells that can draw their weights anew, got {name} without reset_parameters"
            )
        self.cell.reset_parameters(as_generator("rng", rng))

    def __repr__(self) -> str:
        return f"Recurrent({type(self.cell).__name__}, batch_first={self.batch_first}, dtype={self.dtype.name!r})"

    # --- forward and, under it, backward ------------------------------------------------------------------------------

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        lengths, reset_mask, steps = context.lengths, context.reset_mask, context.steps
        if (x is None) == (steps is None):
            raise ValueError("steps: expected a number of steps with x None, and None with an x")
        if x is None:
            given = _state.parts(state)
            first = next((k for k, a in enumerate(given) if a is not None), None)
            batched = first is None or np.ndim(given[first]) == 2 + len(self._shapes[first])
            T, N, read = check_size("steps", steps), 1, None
            if first is not None and batched:
                N = np.shape(given[first])[1]
        else:
            x = as_real("x", x, self.dtype)
            read = time_major("x", x, self.dtype, self.batch_first)
            batched, (T, N, _) = x.ndim == 3, read.shape
        states = self._unpack("state", state, N, batched)
        lengths = active_lengths(lengths, T, N, batched)
        reset_mask = check_reset_mask(reset_mask, T, N)
        if lengths is not None and reset_mask is not None:  # a row that has ended keeps its state
            reset_mask = reset_mask & (np.arange(T)[:, None] < lengths)
        steps_of = _Steps(lengths, time_major_mask(context.mask, T, N, batched, self.batch_first))
        output: Array | None = None
        kept: list[Any] = []
        for t in range(T if lengths is None else int(lengths.max(initial=0))):
            if reset_mask is not None and reset_mask[t].any():
                states = [_state.zero_rows(s, reset_mask[t], axis=0) for s in states]
            rows = steps_of.rows(t)
            if rows is not None and not rows.size:
                kept.append((rows, None))
                continue
            x_t = None if read is None else read[t] if rows is None else read[t][rows]
            y_t, part, cache = self._step(x_t, [s if rows is None else s[rows] for s in states])
            if output is None:
                output = np.zeros((T, N, *y_t.shape[1:]), self.dtype)
            if y_t.shape[1:] != output.shape[2:]:
                raise ValueError(f"cell.step: expected y_t as at step 0, (N, {output.shape[2:]}), got {y_t.shape}")
            if rows is None:
                output[t], states = y_t, part
            else:
                output[t, rows] = y_t
                states = [_state.with_rows(s, rows, p, axis=0) for s, p in zip(states, part)]
            if training:
                kept.append((rows, cache))
        if output is None:  # no step was taken, so one on zeros has to tell the width of y
            y_t, _, _ = self._step(
                None if read is None else np.zeros((1, *read.shape[2:]), self.dtype),
                [np.zeros((1, *shape), self.dtype) for shape in self._shapes],
            )
            output = np.zeros((T, N, *y_t.shape[1:]), self.dtype)
        steps_of.carry(output, reset_mask)
        if training:
            self._cache = kept, reset_mask, None if read is None else read.shape, output.shape, batched, steps_of
        return as_given(output, batched, self.batch_first), self._pack(states, batched)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        kept, reset_mask, x_shape, shape, batched, steps_of = self._kept()
        if dy is None:
            dy = np.zeros(shape, self.dtype)
        else:
            dy = steps_of.carry_back(read_doutput(dy, shape, batched, self.batch_first, self.dtype), reset_mask)
        dstates = self._unpack("dstate_n", dstate_n, shape[1], batched)
        self._cache = None
        dx = None if x_shape is None else np.zeros(x_shape, self.dtype)
        for t in reversed(range(len(kept))):
            rows, cache = kept[t]
            kept[t] = None  # frees what this step kept
            if rows is None or rows.size:
                dpart = [d if rows is None else d[rows] for d in dstates]
                dy_t = dy[t] if rows is None else dy[t][rows]
                dx_t, dprevious = self._step_backward(dy_t, dpart, cache, () if x_shape is None else x_shape[2:])
                if dx is not None and dx_t is not None:
                    dx[t if rows is None else (t, rows)] = dx_t
                dstates = (
                    dprevious
                    if rows is None
                    else [_state.with_rows(d, rows, p, axis=0) for d, p in zip(dstates, dprevious)]
                )
            if reset_mask is not None and reset_mask[t].any():
                dstates = [_state.zero_rows(d, reset_mask[t], axis=0) for d in dstates]
        dx = None if dx is None else as_given(dx, batched, self.batch_first)
        return dx, self._pack(dstates, batched)

    # --- what the cell reads and returns ------------------------------------------------------------------------------

    def _step(self, x_t: Array | None, states: list[Array]) -> tuple[Array, list[Array], Any]:
        returned = self.cell.step(x_t, states[0] if self._state_is_array else tuple(states))
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise TypeError(f"cell.step: expected a tuple (y_t, state, cache), got {kind_of(returned)}")
        y_t, state, cache = returned
        N = len(states[0])
        if not isinstance(y_t, np.ndarray) or y_t.ndim != 2 or len(y_t) != N:
            got = y_t.shape if isinstance(y_t, np.ndarray) else type(y_t).__name__
            raise ValueError(f"cell.step: expected y_t of shape ({N}, M), got {got}")
        if y_t.dtype != self.dtype:
            raise TypeError(f"cell.step: expected y_t in {self.dtype} like the parameters, got {y_t.dtype}")
        return y_t, self._parts("cell.step", "state", state, N), cache

    def _step_backward(
        self, dy_t: Array, dstates: list[Array], cache: Any, dx_shape: tuple[int, ...]
    ) -> tuple[Array | None, list[Array]]:
        returned = self.cell.step_backward(dy_t, dstates[0] if self._state_is_array else tuple(dstates), cache)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise TypeError(
                f"cell.step_backward: expected a tuple (dx_t, dstate_prev, dparams), got {kind_of(returned)}"
            )
        dx_t, dprevious, dparams = returned
        where, N = "cell.step_backward", len(dy_t)
        for name, value in (dparams or {}).items():
            grad = self._grads.get(name)
            if grad is None:
                raise ValueError(f"cell.step_backward: expected dparams of {', '.join(self._grads)}, got {name!r}")
            self._check_returned(where, f"dparams[{name!r}]", value, grad.shape)
            grad += value
        if dx_t is not None:
            self._check_returned(where, "dx_t", dx_t, (N, *dx_shape))
        return dx_t, self._parts(where, "dstate_prev", dprevious, N)

    def _check_returned(self, where: str, name: str, part: Any, shape: tuple[int, ...]) -> None:
        """An array that the cell returned: anything else would be broadcast or cast in silence."""
        if not isinstance(part, np.ndarray) or part.shape != shape:
            got = part.shape if isinstance(part, np.ndarray) else type(part).__name__
            raise ValueError(f"{where}: expected {name} of shape {shape}, got {got}")
        if part.dtype != self.dtype:
            raise TypeError(f"{where}: expected {name} in {self.dtype} like the parameters, got {part.dtype}")

    def _parts(self, where: str, name: str, state: Any, N: int) -> list[Array]:
        """The arrays of a state that the cell returned, None for zeros."""
        if state is None:
            return [np.zeros((N, *shape), self.dtype) for shape in self._shapes]
        parts: Any = [state] if self._state_is_array else state
        if not isinstance(parts, (tuple, list)) or len(parts) != len(self._shapes):
            raise TypeError(f"{where}: expected {name} as a tuple of {len(self._shapes)} arrays, got {kind_of(state)}")
        parts = [np.zeros((N, *s), self.dtype) if p is None else p for p, s in zip(parts, self._shapes)]
        for part, shape in zip(parts, self._shapes):
            self._check_returned(where, name, part, (N, *shape))
        return parts

    def _unpack(self, name: str, state: Any, N: int, batched: bool) -> list[Array]:
        """Arrays (N, ...) from a state as the user gives it, None for zeros."""
        if state is None:
            return [np.zeros((N, *shape), self.dtype) for shape in self._shapes]
        parts: Any = [state] if self._state_is_array else state
        if not isinstance(parts, (tuple, list)) or len(parts) != len(self._shapes):
            raise TypeError(f"{name}: expected a tuple of {len(self._shapes)} arrays, got {kind_of(state)}")
        arrays = []
        for part, shape in zip(parts, self._shapes):
            check_state(name, part, (1, N, *shape) if batched else (1, *shape), self.dtype)
            arrays.append(np.zeros((N, *shape), self.dtype) if part is None else part[0] if batched else part)
        return arrays

    def _pack(self, states: list[Array], batched: bool) -> Any:
        parts = tuple(s[None].copy() if batched else s.copy() for s in states)
        return parts[0] if self._state_is_array else parts


class _Steps:
    """Which rows take a step at each time, and what the outputs of the others are."""

    def __init__(self, lengths: Array | None, mask: Array | None) -> None:
        self.lengths, self.mask = lengths, mask

    def rows(self, t: int) -> Array | None:
        """Those that do at time t; None for all."""
        real = None if self.lengths is None else self.lengths > t
        if self.mask is not None:
            real = self.mask[t] if real is None else real & self.mask[t]
        return None if real is None or real.all() else np.flatnonzero(real)

    def _masked(self, t: int) -> Array:
        """The rows whose output at time t is that of the step before."""
        assert self.mask is not None
        masked: Array = ~self.mask[t] if self.lengths is None else ~self.mask[t] & (self.lengths > t)
        return masked

    def carry(self, output: Array, reset_mask: Array | None) -> None:
        """Write the output (T, N, M) of masked steps; it is zero at them so far."""
        if self.mask is None:
            return
        for t in range(1, len(output)):
            rows = self._masked(t) if reset_mask is None else self._masked(t) & ~reset_mask[t]
            output[t, rows] = output[t - 1, rows]

    def carry_back(self, dy: Array, reset_mask: Array | None) -> Array:
        """The gradient of the outputs that were carried, at the steps that they came from."""
        if self.mask is None:
            return dy
        dy = np.where(self._zeros_past(dy), 0, dy).astype(dy.dtype, copy=False)
        for t in range(len(dy) - 1, 0, -1):
            rows = self._masked(t) if reset_mask is None else self._masked(t) & ~reset_mask[t]
            dy[t - 1, rows] += dy[t, rows]
        return dy

    def _zeros_past(self, dy: Array) -> Array:
        """(T, N, 1), where a row has ended: what stands there may be anything."""
        ends = np.full(dy.shape[1], len(dy)) if self.lengths is None else self.lengths
        past: Array = np.arange(len(dy))[:, None, None] >= ends[:, None]
        return past


def _state_shapes(cell: Any) -> tuple[bool, list[tuple[int, ...]]]:
    """Whether a state is one array, and the shape of each of its arrays without the batch axis."""
    size = getattr(cell, "state_size", None)
    single = not isinstance(size, (tuple, list))
    sizes: Any = [size] if single else size
    if size is None or not len(sizes):
        raise TypeError(f"cell: expected a state_size, a whole number or a tuple, got {size!r}")
    return single, [
        tuple(check_size("state_size", n) for n in (s if isinstance(s, (tuple, list)) else (s,))) for s in sizes
    ]


def _params_dtype(params: Any, dtype: Any) -> np.dtype[Any]:
    wanted = None if dtype is None else check_dtype("dtype", dtype)
    for name, param in params.items():
        if not isinstance(param, np.ndarray):
            raise TypeError(f"params[{name!r}]: expected a NumPy array, got {type(param).__name__}")
        check_dtype(f"params[{name!r}]", param.dtype)
        if wanted is not None and param.dtype != wanted:
            raise TypeError(f"params[{name!r}]: expected {wanted} like the others and dtype, got {param.dtype}")
        if not param.flags.carray:
            raise ValueError(f"params[{name!r}]: expected a C-contiguous, writeable array, got another")
        wanted = param.dtype
    return np.dtype(np.float32) if wanted is None else wanted
