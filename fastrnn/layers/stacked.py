"""What RNN, GRU and LSTM share: they stack and turn round the sequences of `fastrnn.functional`.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h (proj_size where there is one, else H), G
gates (RNN 1, GRU 3, LSTM 4), L num_layers, S directions (2 if bidirectional, otherwise 1), F output features (S*P, or P
where directions are merged into one).

Parameters have PyTorch's names and layouts, for layer k = 0, 1, ... and with "_reverse" for the second direction:
weight_ih_l{k} (G*H, D; from k = 1 on G*H, F), weight_hh_l{k} (G*H, P), bias_ih_l{k} and bias_hh_l{k} (G*H,), with
bias="input" the first of both alone.
Gates are stacked in the order r, z, n (GRU) and i, f, g, o (LSTM); the equations stand in `fastrnn.reference`.

Nothing is copied where strides will do: batch_first is a view of time-major arrays, both directions write into one
output, and gradients add up where they belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._validate import (
    check_bias,
    check_choice,
    check_dtype,
    check_lengths,
    check_probability,
    check_reset_mask,
    check_size,
    own_generator,
)
from ..functional.sequence import sequence_backward, sequence_forward
from ..functional.spec import CellSpec
from ..streaming.builder import ChainBuilder
from .episodes import Episodes, InEpisodes
from .episodes import backward as run_episodes_back
from .episodes import forward as run_episodes
from .init import orthogonal_gates, uniform
from .layout import as_given, read_doutput, resets_of_directions, time_major_mask
from .lookup import Lookup, LookupGradient
from .merge import MERGES, merge_directions, split_directions
from .module import Array
from .noise import Noise
from .protocol import NOTHING, Context, StateSpec
from .stack_calls import StackCalls
from .stateful import Stateful

if TYPE_CHECKING:
    from .trace import Trace

State = Any  # an array (RNN, GRU) or a tuple of arrays (LSTM)


class RecurrentLayer(StackCalls):
    """What RNN, GRU and LSTM share.

    The state is h, or (h, c) for the LSTM: h (L*S, N, P), c (L*S, N, H), without a batch axis (L*S, ...). The output is
    (T, N, F), laid out as x; of a bidirectional layer that is the forward half first, or what `merge` makes of both.
    """

    batch_first: bool
    optional_input_grad = True
    accepts = Stateful.accepts | {"mask"}

    reads = "features"

    def __init__(
        self,
        spec: CellSpec,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool | str,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        merge: str,
        dtype: Any,
        rng: Any,
        init: str,
        learn_initial_state: bool,
        recurrent_dropout: float,
        zoneout: float | tuple[float, float],
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_bias(bias)
        self.batch_first = bool(batch_first)
        self.dropout = check_probability("dropout", dropout)
        self.bidirectional = bool(bidirectional)
        self.merge = check_choice("merge", merge, MERGES)
        if not self.bidirectional and self.merge != "concat":
            raise ValueError(f"merge: expected 'concat' for a layer of one direction, got {merge!r}")
        self.dtype = check_dtype("dtype", dtype)
        self.init = check_choice("init", init, ("uniform", "orthogonal"))
        self.learn_initial_state = bool(learn_initial_state)
        self.spec, self.gates, self.states = spec, spec.gates, spec.states
        self.noise = Noise.of(recurrent_dropout, zoneout, self.states)
        self._directions = 2 if self.bidirectional else 1
        self._h_size = proj_size or self.hidden_size
        self._width = self._h_size * (self._directions if self.merge == "concat" else 1)
        self.features = self.input_size
        sizes = self.input_size, self.hidden_size, self.num_layers, self._directions, self._width
        rng = self._generator(rng, *sizes, kind=spec.cell)
        kinds = spec.shapes(self.input_size, self.hidden_size, self._h_size)
        # [k*S + s]: what the functional core calls the parameters of layer k, direction s -> their names here.
        self._names = [
            {kind: f"{kind}_l{k}{suffix}" for kind in kinds}
            for k in range(self.num_layers)
            for suffix in ("", "_reverse")[: self._directions]
        ]
        for index, names in enumerate(self._names):
            self._start_weights(rng, index, names)
        if self.learn_initial_state:
            for name, width in zip(self.states, (self._h_size, self.hidden_size)):
                rows = self.num_layers * self._directions
                self.add_param(f"initial_{name}", np.zeros((rows, width), self.dtype))
        self._plain = self.merge == "concat" and not any(self.noise.zoneout) and not self.learn_initial_state
        if (self.dropout and self.num_layers > 1) or self.noise:
            self._rng = own_generator(rng)

    def _start_weights(self, rng: np.random.Generator, index: int, names: dict[str, str]) -> None:
        """All U(-1/sqrt(H), 1/sqrt(H)) as in PyTorch; init="orthogonal" changes square recurrent weights."""
        H, P = self.hidden_size, self._h_size
        columns = self.input_size if index < self._directions else self._width
        shapes = self.spec.shapes(columns, H, P)
        for kind, name in names.items():
            if kind == "weight_hh" and self.init == "orthogonal" and P == H:
                self.add_param(name, orthogonal_gates(rng, self.gates, H, self.dtype))
            elif self._has(kind):
                self.add_param(name, uniform(rng, shapes[kind], H**-0.5, self.dtype))

    def _has(self, kind: str) -> bool:
        """Whether the layer has a parameter that the functional core calls so."""
        return self.bias is True or (self.bias == "input" and kind == "bias_ih") or not kind.startswith("bias")

    @property
    def state_spec(self) -> StateSpec:
        names = self.states
        return StateSpec(names, self._state_widths(), self.num_layers, self._directions, len(names) == 1)

    def arguments(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            **self.spec.options,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            **self.noise.arguments(),
            "bidirectional": self.bidirectional,
            **({} if self.merge == "concat" else {"merge": self.merge}),
            "dtype": self.dtype.name,
            "init": self.init,
            "learn_initial_state": self.learn_initial_state,
        }

    @property
    def reads_lookup(self) -> bool:  # type: ignore[override]
        return not self.learn_initial_state and type(self)._own_forward is RecurrentLayer.forward

    # --- forward and, under it, backward ------------------------------------------------------------------------------

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        found = self._train(x, state, context) if training else self._infer(x, state, context)
        if found is not None:
            return found
        lengths, reset_mask = context.lengths, context.reset_mask
        y, batched = self._read_input(x, state, context.steps)
        T, N, _ = y.shape
        P, S = self._h_size, self._directions
        state0, learned = self._first_state(state, N, batched)
        if not N:
            return self._of_no_rows(T, lengths, x is None, training)
        mask = time_major_mask(context.mask, T, N, batched, self.batch_first)
        episodes = self._episodes(reset_mask, lengths, T, N)
        if episodes is not None:
            read = None if x is None else y
            return run_episodes(self, read, state0, episodes, mask, training, batched, learned)
        resets = resets_of_directions(reset_mask, lengths, S, T, N)
        state_n: list[list[Array]] = []  # [k*S + s] -> h_n, (c_n), each (N, P or H)
        caches: list[Any] = []
        masks: dict[int, Array] = {}  # of dropout, in front of layer k
        halves: dict[int, Array] = {}  # of directions that are multiplied
        for k in range(self.num_layers):
            if k and training and self.dropout:
                masks[k] = self._draw_mask(y.shape)
                y = y * masks[k]
            both: Array | None = np.empty((T, N, 2 * P), self.dtype) if S == 2 else None
            for s in range(S):
                index = k * S + s
                weights = self._weights_of(index, x is None, T, N, training)
                h0, c0 = [a if a is None else a[index] for a in state0]
                read, table = (y.tokens, y.table) if isinstance(y, Lookup) else (y, None)
                output, h_n, c_n, cache = sequence_forward(
                    self.spec,
                    read,
                    h0,
                    c0,
                    **weights,
                    lengths=lengths,
                    reset_mask=resets[s],
                    mask=mask,
                    reverse=bool(s),
                    out=both if both is None else both[:, :, s * P : (s + 1) * P],
                    training=training,
                    table=table,
                )
                state_n.append([h_n] if c_n is None else [h_n, c_n])
                caches.append(cache)
            y = output if both is None else merge_directions(both, self.merge)
            if both is not None and self.merge == "mul":
                halves[k] = both
        if training:
            self._cache = caches, masks, halves, (T, N, self._width), batched, x is None, learned
        return as_given(y, batched, self.batch_first), self._pack(state_n, batched)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        kept = self._kept()
        if isinstance(kept, InEpisodes):
            return run_episodes_back(self, kept, dy, dstate_n, need_dx)
        caches, masks, halves, shape, batched, without_input, learned = kept
        found = self._back_at_once(caches, masks, dy, dstate_n, batched, need_dx)
        if found is not None:
            return found
        N = shape[1]
        if dy is not None:
            dy = read_doutput(dy, shape, batched, self.batch_first, self.dtype)
        dstate = self._unpack("dstate_n", dstate_n, N, batched)
        self._cache = None
        dx: Any
        if not N:
            dx = np.zeros((*shape[:2], self.input_size), self.dtype)
            dx = None if without_input or not need_dx else as_given(dx, batched, self.batch_first)
            return dx, self._state_of_no_rows()
        dstate0: list[list[Array]] = [[] for _ in caches]  # [k*S + s] -> dh0, (dc0)
        for k in reversed(range(self.num_layers)):
            dys = split_directions(dy, self.merge, self._directions, halves.get(k))
            dy = self._backward_of_layer(k, dys, dstate, dstate0, caches, without_input, need_dx)
            if k in masks:
                dy *= masks[k]
            dx = dy
        if learned:
            self._add_learned(learned, [np.stack(rows) for rows in zip(*dstate0)])
        if not isinstance(dx, LookupGradient):
            dx = None if without_input or not need_dx else as_given(dx, batched, self.batch_first)
        return dx, self._pack(dstate0, batched)

    def _backward_of_layer(
        self,
        k: int,
        dys: list[Array | None],
        dstate: list[Array | None],
        dstate0: list[list[Array]],
        caches: list[Any],
        without_input: bool,
        need_dx: bool,
    ) -> Any:
        """dx of layer k from the gradient of each direction's output; puts its own into dstate0."""
        dx: Any = None
        for s, dy in enumerate(dys):
            index = k * self._directions + s
            dh_n, dc_n = [a if a is None else a[index] for a in dstate]
            into: dict[str, Any] = {
                kind: self._grads[name] for kind, name in self._names[index].items() if name in self._grads
            }
            if without_input and not k:
                del into["weight_ih"]
            if (s and not isinstance(dx, LookupGradient)) or not (k or need_dx):
                into["x"] = dx  # added to; None, of the first layer: not wanted
            grads = sequence_backward(self.spec.cell, dy, dh_n, dc_n, caches[index], into=into)
            dstate0[index] = [grads[f"{name}0"] for name in self.states]
            if isinstance(grads["x"], tuple):
                dx = LookupGradient([*(dx.parts if s else ()), grads["x"]])
            else:
                dx = dx if s else grads["x"]
        return dx

    def _weights_of(self, index: int, without_input: bool, T: int, N: int, training: bool) -> dict[str, Any]:
        """What the functional core is told of one layer and direction: its weights, and the noise of this call."""
        weights: dict[str, Any] = {kind: self._params.get(name) for kind, name in self._names[index].items()}
        if without_input and index < self._directions:
            weights["weight_ih"] = weights["weight_ih"][:, :0]
        if not self.noise:
            return weights
        widths = self._state_widths()
        if training:
            return weights | self.noise.draw(self._rng, T, N, widths, self.dtype)
        return weights | self.noise.expectation(T, N, widths, self.dtype)

    def _add_learned(self, learned: list[int], dstate0: list[Array]) -> None:
        """The gradient of the learned state, where sequences started from it: in these parts of the state."""
        for part in learned:
            self._grads[f"initial_{self.states[part]}"] += dstate0[part].sum(axis=1)

    def _of_no_rows(self, T: int, lengths: Any, without_input: bool, training: bool) -> tuple[Array, Any]:
        """Of a batch of no sequences."""
        if lengths is not None:
            check_lengths(lengths, T, 0)
        if training:
            self._cache = [], {}, {}, (T, 0, self._width), True, without_input, []
        y = np.zeros((T, 0, self._width), self.dtype)
        return as_given(y, True, self.batch_first), self._state_of_no_rows()

    def _episodes(self, reset_mask: Any, lengths: Any, T: int, N: int) -> Episodes | None:
        """Where resets go to a learned state; None where there are none, or they go to zeros."""
        if not self.learn_initial_state or check_reset_mask(reset_mask, T, N) is None:
            return None
        steps = np.full(N, T) if lengths is None else check_lengths(lengths, T, N)
        return Episodes(reset_mask, steps) if (reset_mask & (np.arange(T)[:, None] < steps)).any() else None

    def trace(
        self,
        x: Any,
        state: State = None,
        *,
        lengths: Any = None,
        reset_mask: Any = None,
        mask: Any = None,
        doutput: Any = None,
        dstate_n: Any = None,
    ) -> Trace:
        """What happens inside a call in inference with these arguments: a `fastrnn.layers.trace.Trace` of gates and
        states at each step and, with doutput or dstate_n, of the gradients that arrive at them. In NumPy, for looking:
        it is slow, and changes nothing on the layer."""
        from .trace import Trace

        trace = Trace(self, x, state, lengths, reset_mask, mask)
        return trace if doutput is None and dstate_n is None else trace.backward(doutput, dstate_n)

    def check_trainable(self, *, alone: bool = True) -> None:
        if alone:
            got = type(self).__name__
            raise TypeError(f"model: expected a layer that returns one array, got {got}; put it in a Sequential")

    # --- streams ------------------------------------------------------------------------------------------------------

    def compile_into(self, builder: ChainBuilder) -> bool:
        for index, names in enumerate(self._names):
            weights = {kind: self._params.get(name) for kind, name in names.items()}
            learned = None
            if self.learn_initial_state:
                learned = [self._params[f"initial_{name}"][index] for name in self.states]
            builder.add_recurrence(
                self.spec, weights, learned, self.noise.zoneout, stack=self.open_stack(), index=index
            )
        return True
