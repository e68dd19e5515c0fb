"""Looking inside: the gates and states of every step of a recurrent layer, and the gradient that arrives at each.

Letters: T time steps, N batch, D input features, H hidden size, P width of h, F output features.

Design: a trace is for looking, so it is made in NumPy by the steps of `fastrnn.reference`, whose equations are those
that one wants to see; the compiled pass keeps nothing for it and is as fast as before. Its numbers are the layer's up
to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import reference
from .._validate import check_lengths, check_reset_mask
from ..functional.spec import CELLS
from .layout import as_given, read_doutput, resets_of_directions, time_major_mask
from .merge import merge_directions, split_directions
from .module import Array

if TYPE_CHECKING:
    from .stacked import RecurrentLayer


class Trace(dict[str, dict[str, Array]]):
    """ "l0", "l0_reverse", "l1", ... -> name -> array over time, for each level and direction of a layer.

    Names: the gates "r", "z", "n" of a GRU, "i", "f", "g", "o" of an LSTM, (T, N, H) laid out as x; the state that the
    step hands on, "h" (T, N, P) and of an LSTM "c" (T, N, H); after `backward` also "dh" and "dc", the gradient of the
    loss with respect to that state: what arrives at h_t from the output and at both from later steps. Zeros past the
    lengths. output, state_n: as the layer returns them.
    """

    output: Array
    state_n: Any

    def __init__(
        self, layer: RecurrentLayer, x: Any, state: Any, lengths: Any, reset_mask: Any, mask: Any = None
    ) -> None:
        super().__init__()
        self._layer = layer
        y, self._batched = layer._read_input(x, state, None)
        (T, N, _), S = y.shape, layer.state_spec.directions
        state0, _ = layer._first_state(state, N, self._batched)
        steps = np.full(N, T) if lengths is None else check_lengths(lengths, T, N)
        resets = resets_of_directions(check_reset_mask(reset_mask, T, N), steps, S, T, N)
        real = time_major_mask(mask, T, N, self._batched, layer.batch_first)
        self._runs: list[list[_Direction]] = []
        for k in range(layer.num_layers):
            level = []
            for s in range(S):
                first = [a if a is None else a[k * S + s] for a in state0]
                level.append(_Direction(layer, k * S + s, y, first, steps, resets[s], real))
                self[f"l{k}" + ("_reverse" if s else "")] = self._laid_out(level[-1].seen)
            self._runs.append(level)
            outputs = [run.seen["h"] for run in level]
            y = outputs[0] if S == 1 else merge_directions(np.concatenate(outputs, axis=2), layer.merge)
        self._shape = y.shape
        self.output = as_given(y, self._batched, layer.batch_first)
        parts = [np.stack(rows) for rows in zip(*(run.last for level in self._runs for run in level))]
        self.state_n = layer._as_state([a if self._batched else a[:, 0] for a in parts])

    def backward(self, doutput: Any = None, dstate_n: Any = None) -> Trace:
        """Fill in "dh" and "dc", from doutput like output and dstate_n like state_n, each None for zeros. The layer's
        gradients stay as they are."""
        layer, (_, N, _) = self._layer, self._shape
        S, dy = layer.state_spec.directions, None
        if doutput is not None:
            dy = read_doutput(doutput, self._shape, self._batched, layer.batch_first, layer.dtype)
        dstate = layer._unpack("dstate_n", dstate_n, N, self._batched)
        for k, level in reversed(list(enumerate(self._runs))):
            both = None if S == 1 else np.concatenate([run.seen["h"] for run in level], axis=2)
            dx: Any = 0
            for s, (run, dh) in enumerate(zip(level, split_directions(dy, layer.merge, S, both))):
                dx = dx + run.backward(dh, [a if a is None else a[k * S + s] for a in dstate])
                self[f"l{k}" + ("_reverse" if s else "")].update(self._laid_out(run.arrived))
            dy = dx
        return self

    def _laid_out(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: as_given(a, self._batched, self._layer.batch_first) for name, a in arrays.items()}

    def __repr__(self) -> str:
        lines = [f"Trace of {self._layer!r}"]
        for where, arrays in self.items():
            lines.append(f"  {where}: " + ", ".join(f"{name} {a.shape}" for name, a in arrays.items()))
        return "\n".join(lines)


class _Direction:
    """One level in one direction, step after step: the loop of `fastrnn.reference`, with what each step saw kept."""

    def __init__(
        self,
        layer: RecurrentLayer,
        index: int,
        x: Array,
        first: list[Any],
        lengths: Array,
        resets: Array | None,
        real: Array | None,
    ) -> None:
        spec, (T, N, _) = layer.spec, x.shape
        self.cell, self.states, self.dtype = spec.cell, spec.states, layer.dtype
        self.reversed = bool(index % layer.state_spec.directions)
        widths = spec.widths(layer.hidden_size, layer._h_size)
        weights: dict[str, Any] = {kind: layer.params.get(name) for kind, name in layer._names[index].items()}
        weights |= spec.options
        forward = getattr(reference, f"{spec.cell}_cell_forward")
        gates = CELLS[spec.cell].gates[: spec.gates if spec.gates > 1 else 0]  # the one gate of an RNN is h
        sizes = dict.fromkeys(gates, layer.hidden_size) | dict(zip(spec.states, widths))
        self.seen = {name: np.zeros((T, N, width), layer.dtype) for name, width in sizes.items()}
        self.last = [np.zeros((N, w), layer.dtype) if a is None else a.copy() for a, w in zip(first, widths)]
        anew = [np.zeros(w, layer.dtype) for w in widths]
        if layer.learn_initial_state:
            anew = [layer.params[f"initial_{name}"][index] for name in spec.states]
        self.keeps = layer.noise.zoneout  # in inference a state keeps this share of what it was
        self.steps: list[tuple[Any, Any, Array, Any]] = []
        for k in range(T):
            rows = np.flatnonzero(k < lengths)
            if not rows.size:
                break
            at = (lengths[rows] - 1 - k if self.reversed else np.full(len(rows), k)), rows
            reset = np.zeros(len(rows), bool) if resets is None else resets[at]
            for a, fresh in zip(self.last, anew):
                a[rows[reset]] = fresh
            moves = np.ones(len(rows), bool) if real is None else real[at]
            moving = at[0][moves], rows[moves]
            before, cache = [a[moving[1]] for a in self.last], None
            if moving[1].size:
                *after, cache = forward(x[moving], *before, **weights)
                for a, was, values, keeps in zip(self.last, before, after, self.keeps):
                    a[moving[1]] = keeps * was + (1 - keeps) * values if keeps else values
                for name, values in zip(gates, cache.kept[2]):
                    self.seen[name][moving] = values
            for a, name in zip(self.last, spec.states):
                self.seen[name][at] = a[rows]
            self.steps.append((at, moving, reset, cache))
        self.x_shape = x.shape
        self.arrived: dict[str, Array] = {}

    def backward(self, doutput: Array | None, dlast: list[Any]) -> Array:
        """dx; fills `arrived`."""
        back = getattr(reference, f"{self.cell}_cell_backward")
        carried = [np.zeros_like(a) if d is None else d.copy() for a, d in zip(self.last, dlast)]
        dx = np.zeros(self.x_shape, self.dtype)
        self.arrived = {f"d{name}": np.zeros_like(self.seen[name]) for name in self.states}
        for at, moving, reset, cache in reversed(self.steps):
            rows = at[1]
            if doutput is not None:
                carried[0][rows] += doutput[at]
            for name, d in zip(self.states, carried):
                self.arrived[f"d{name}"][at] = d[rows]
            if cache is not None:
                after, kept = [d[moving[1]] for d in carried], cache.kept
                grads = back(*((1 - keeps) * d for d, keeps in zip(after, self.keeps)), cache)
                cache.kept = kept  # a trace may be asked again
                dx[moving] = grads["x"]
                for d, d_after, name, keeps in zip(carried, after, self.states, self.keeps):
                    d[moving[1]] = grads[f"{name}0"] + keeps * d_after if keeps else grads[f"{name}0"]
            for d in carried:
                d[rows[reset]] = 0
        return dx
