"""RNN, GRU and LSTM: layers that stack and turn round the sequences of `fastrnn.functional`.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates (RNN 1, GRU 3, LSTM 4), L num_layers,
S directions (2 if bidirectional, otherwise 1).

Parameters have PyTorch's names and layouts, for layer k = 0, 1, ... and with "_reverse" for the second direction:
weight_ih_l{k} (G*H, D; from k = 1 on G*H, S*H), weight_hh_l{k} (G*H, H), bias_ih_l{k} and bias_hh_l{k} (G*H,).
Gates are stacked in the order r, z, n (GRU) and i, f, g, o (LSTM); the equations stand in `fastrnn.reference`.

Nothing is copied where strides will do: batch_first is a view of time-major arrays, a reverse direction is a forward
one over views with time turned round, both directions write into one output, and gradients add up where they belong.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from .. import functional
from .checks import as_generator, check_choice, check_dtype, check_probability, check_size, own_generator
from .dropout import dropout_mask
from .initialisation import orthogonal_gates, uniform
from .module import Array, Module

State = Any  # an array (RNN, GRU) or a tuple of arrays (LSTM)


class RecurrentLayer(Module):
    """What RNN, GRU and LSTM share.

    output, state_n = layer(x, state=None, training=False)
        x (T, N, D), or (N, T, D) with batch_first, or (T, D) for one sequence without a batch axis; in the layer's
        dtype. state is h, or (h, c) for the LSTM, each (L*S, N, H), without a batch axis (L*S, H); None for zeros.
        output (T, N, S*H), laid out as x; of a bidirectional layer the forward half comes first. state_n is like
        state: what each direction of each layer ends with, the reverse one at t = 0.

    dx, dstate0 = layer.backward(doutput, dstate_n=None)
        Backpropagation through time, after a call with training=True, whose x and output must still be as they were.
        doutput is like output, dstate_n like state_n, each None for zeros. Parameter gradients are added to `grads`.

    Raises TypeError for what is no array or has another dtype, ValueError for a wrong shape, RuntimeError for a
    backward without a training call before it.
    """

    batch_first: bool
    takes_state = True
    gates: int
    states: tuple[str, ...] = ("h",)
    _forward: Callable[..., Any]
    _backward: Callable[..., dict[str, Any]]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, *, bias: bool, batch_first: bool, dropout: float,
        bidirectional: bool, dtype: Any, rng: Any, init: str, options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = check_probability("dropout", dropout)
        self.bidirectional = bool(bidirectional)
        self.dtype = check_dtype("dtype", dtype)
        self.init = check_choice("init", init, ("uniform", "orthogonal"))
        self._options = options or {}
        self._directions = 2 if self.bidirectional else 1
        rng = as_generator("rng", rng)
        # [k*S + s]: what the functional core calls the parameters of layer k, direction s -> their names here.
        self._names = [
            {name: f"{name}_l{k}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            for k in range(self.num_layers)
            for suffix in ("", "_reverse")[: self._directions]
        ]
        for index, names in enumerate(self._names):
            self._start_weights(rng, index, list(names.values()))
        if self.dropout and self.num_layers > 1:
            self._rng = own_generator(rng)

    def _start_weights(self, rng: np.random.Generator, index: int, names: list[str]) -> None:
        """All U(-1/sqrt(H), 1/sqrt(H)) as in PyTorch; init="orthogonal" changes the recurrent weights."""
        H, GH, bound = self.hidden_size, self.gates * self.hidden_size, self.hidden_size**-0.5
        columns = self.input_size if index < self._directions else self._directions * H
        weight_ih, weight_hh, *biases = names
        self.add_param(weight_ih, uniform(rng, (GH, columns), bound, self.dtype))
        if self.init == "orthogonal":
            self.add_param(weight_hh, orthogonal_gates(rng, self.gates, H, self.dtype))
        else:
            self.add_param(weight_hh, uniform(rng, (GH, H), bound, self.dtype))
        for name in biases if self.bias else ():
            self.add_param(name, uniform(rng, (GH,), bound, self.dtype))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
            **self._options, "bias": self.bias, "batch_first": self.batch_first, "dropout": self.dropout,
            "bidirectional": self.bidirectional, "dtype": self.dtype.name, "init": self.init,
        }  # fmt: skip

    # --- forward and, under it, backward ------------------------------------------------------------------------------

    def __call__(self, x: Array, state: State = None, *, training: bool = False) -> tuple[Array, State]:
        y, batched = self._time_major("x", x, self.input_size), x.ndim == 3
        T, N, _ = y.shape
        H, S = self.hidden_size, self._directions
        state0 = self._unpack("state", state, N, batched)
        state_n: list[list[Array]] = []  # [k*S + s] -> h_n, (c_n), each (N, H)
        caches, masks = [], [None] * self.num_layers
        for k in range(self.num_layers):
            if k and training and self.dropout:
                masks[k] = dropout_mask(self._rng, y.shape, self.dropout, self.dtype)
                y = y * masks[k]
            both = np.empty((T, N, 2 * H), self.dtype) if S == 2 else None
            for s in range(S):
                index = k * S + s
                output, *last, cache = self._forward(
                    y[::-1] if s else y,
                    *[a if a is None else a[index] for a in state0],
                    *map(self._params.get, self._names[index].values()),
                    out=both if both is None else _half(both, s),
                    training=training,
                    **self._options,
                )
                state_n.append(last)
                caches.append(cache)
            y = output if both is None else both
        if training:
            self._cache = caches, masks, (T, N, S * H), batched
        return self._as_given(y, batched), self._pack(state_n, batched)

    def backward(self, doutput: Array | None, dstate_n: State = None) -> tuple[Array, State]:
        caches, masks, shape, batched = self._kept()
        _, N, SH = shape
        H, S, dy = self.hidden_size, self._directions, None
        if doutput is not None:
            dy = self._time_major("doutput", doutput, SH)
            if dy.shape != shape or (doutput.ndim == 3) != batched:
                expected = self._as_given(np.empty(shape), batched).shape
                raise ValueError(f"doutput: expected shape {expected} like output, came {doutput.shape}")
            if dy.dtype != self.dtype:
                raise TypeError(f"doutput: expected {self.dtype} like output, came {dy.dtype}")
        dstate = self._unpack("dstate_n", dstate_n, N, batched)
        self._cache = None
        dstate0 = [np.zeros((S * self.num_layers, N, H), self.dtype) for _ in self.states]
        for k in reversed(range(self.num_layers)):
            dx = None
            for s in range(S):
                index = k * S + s
                into = {key: self._grads[name] for key, name in self._names[index].items() if name in self._grads}
                for key, a in zip(("h0", "c0"), dstate0):
                    into[key] = a[index]
                if s:
                    into["x"] = dx[::-1]
                grads = self._backward(
                    dy if dy is None or S == 1 else _half(dy, s),
                    *[a if a is None else a[index] for a in dstate],
                    caches[index],
                    into=into,
                )
                dx = dx if s else grads["x"]
            if masks[k] is not None:
                dx *= masks[k]
            dy = dx
        return self._as_given(dx, batched), self._as_state([a if batched else a[:, 0] for a in dstate0])

    # --- layouts ------------------------------------------------------------------------------------------------------

    def _time_major(self, name: str, a: Array, columns: int) -> Array:
        """The (T, N, columns) view of an array as the user gave it."""
        if not isinstance(a, np.ndarray):
            raise TypeError(f"{name}: expected a NumPy array, came {type(a).__name__}")
        if a.ndim not in (2, 3) or a.shape[-1] != columns:
            layout = "N, T" if self.batch_first else "T, N"
            raise ValueError(f"{name}: expected shape ({layout}, {columns}) or (T, {columns}), came {a.shape}")
        if a.ndim == 2:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _as_given(self, a: Array, batched: bool) -> Array:
        """The view of a time-major array that has the layout of x."""
        if not batched:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _unpack(self, name: str, state: State, N: int, batched: bool) -> list[Array | None]:
        """h, (c), each (L*S, N, H), or None each for zeros."""
        if state is None:
            return [None] * len(self.states)
        parts = [state] if len(self.states) == 1 else state
        if len(self.states) > 1 and not (isinstance(state, (tuple, list)) and len(state) == len(self.states)):
            raise TypeError(f"{name}: expected a tuple ({', '.join(self.states)}), came {_kind(state)}")
        rows = self.num_layers * self._directions
        shape = (rows, N, self.hidden_size) if batched else (rows, self.hidden_size)
        for part, letter in zip(parts, self.states):
            label = name if len(self.states) == 1 else f"{letter} of {name}"
            if not isinstance(part, np.ndarray):
                raise TypeError(f"{label}: expected a NumPy array, came {_kind(part)}")
            if part.dtype != self.dtype:
                raise TypeError(f"{label}: expected {self.dtype} like the parameters, came {part.dtype}")
            if part.shape != shape:
                raise ValueError(f"{label}: expected shape {shape}, came {part.shape}")
        return [part if batched else part[:, None] for part in parts]

    def _pack(self, state_n: list[list[Array]], batched: bool) -> State:
        if not batched:
            return self._as_state([np.concatenate(rows) for rows in zip(*state_n)])
        if len(state_n) == 1:
            return self._as_state([a[None] for a in state_n[0]])
        return self._as_state([np.stack(rows) for rows in zip(*state_n)])

    def _as_state(self, parts: list[Array]) -> State:
        return parts[0] if len(parts) == 1 else tuple(parts)


def _half(a: Array, s: int) -> Array:
    """What direction s reads or writes of (T, N, 2H): its half of the columns, time in its own order."""
    H = a.shape[2] // 2
    return a[::-1, :, H:] if s else a[:, :, :H]


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__


class RNN(RecurrentLayer):
    """Elman network: h_t = g(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), g = nonlinearity, stacked L times.

    nonlinearity: "tanh", "relu", "sigmoid" or "identity".
    bias: False for a layer without bias_ih and bias_hh.
    batch_first: x and output are (N, T, ...) rather than (T, N, ...); states stay (L*S, N, H).
    dropout: probability of dropping each entry of a layer's output, except the last layer's, in training.
    bidirectional: a second direction with weights of its own reads the sequence from its end.
    dtype: float32 or float64, of parameters, inputs and outputs.
    rng: None, a seed or a numpy Generator, for the weights; dropout gets a Generator of its own, seeded from it.
    init: "uniform", all U(-1/sqrt(H), 1/sqrt(H)), PyTorch's choice; "orthogonal", with recurrent weights orthogonal
        per gate instead (see `initialisation.orthogonal_gates`).
    How to call it: see `RecurrentLayer`.
    """

    gates = 1
    _forward = staticmethod(functional.rnn_forward)
    _backward = staticmethod(functional.rnn_backward)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, *, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None, init: str = "uniform",
    ) -> None:  # fmt: skip
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, ("tanh", "relu", "sigmoid", "identity"))
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng, init=init, options={"nonlinearity": nonlinearity},
        )  # fmt: skip


class GRU(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014), stacked L times; gates r, z, n.

    reset_after: True for the form of PyTorch and cuDNN, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)); False for the
        original, n = tanh(W_in x + b_in + W_hn (r * h) + b_hn).
    All other arguments as for `RNN`. How to call it: see `RecurrentLayer`.
    """

    gates = 3
    _forward = staticmethod(functional.gru_forward)
    _backward = staticmethod(functional.gru_backward)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, *, reset_after: bool = True, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None, init: str = "uniform",
    ) -> None:  # fmt: skip
        self.reset_after = bool(reset_after)
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng, init=init, options={"reset_after": self.reset_after},
        )  # fmt: skip


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), stacked L times;
    gates i, f, g, o; its state is the tuple (h, c).

    forget_bias: a number to start the forget gate's total bias at, bias_ih + bias_hh; 1.0 is the "unit forget bias"
        of Jozefowicz et al. (2015), with which memory lasts from the first step of training. None leaves both as
        `init` has them.
    All other arguments as for `RNN`. How to call it: see `RecurrentLayer`.
    """

    gates = 4
    states = ("h", "c")
    _forward = staticmethod(functional.lstm_forward)
    _backward = staticmethod(functional.lstm_backward)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, *, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None, init: str = "uniform", forget_bias: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng, init=init,
        )  # fmt: skip
        self.forget_bias = None if forget_bias is None else float(forget_bias)
        if self.forget_bias is not None:
            self._start_forget_gates(self.forget_bias)

    def _start_forget_gates(self, forget_bias: float) -> None:
        if not self.bias:
            raise ValueError("forget_bias: expected None, as bias is False")
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        for names in self._names:
            self._params[names["bias_ih"]][forget] = forget_bias
            self._params[names["bias_hh"]][forget] = 0

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"forget_bias": self.forget_bias}
