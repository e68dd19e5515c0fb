"""RNN, GRU and LSTM. Letters as in `stacked`, which has all that they share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from .._validate import GateActivation, Nonlinearity, check_number, check_size
from ..functional.spec import CellSpec
from .merge import Merge
from .stacked import RecurrentLayer


class RNN(RecurrentLayer):
    """Elman network: h_t = g(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), g = nonlinearity, stacked L times.

    nonlinearity: "tanh", "relu", "sigmoid" or "identity".
    bias: False for a layer without bias_ih and bias_hh.
    batch_first: x and output are (N, T, ...) rather than (T, N, ...); states stay (L*S, N, H).
    dropout: probability of dropping each entry of a layer's output, except the last layer's, in training.
    bidirectional: a second direction with weights of its own reads the sequence from its end.
    merge: what each layer makes of its two directions: "concat", forward first, or "sum", "mul" or "ave", their sum,
        product or mean, H wide (Keras's merge_mode).
    dtype: float32 or float64, of parameters, inputs and outputs.
    rng: None, a seed or a numpy Generator, for the weights; dropout gets a Generator of its own, seeded from it.
    learn_initial_state: parameters initial_h (L*S, P) (LSTM: initial_c (L*S, H) too), zeros at first, are the state
        that sequences start from where none is given.
    init: "uniform", all U(-1/sqrt(H), 1/sqrt(H)), PyTorch's choice; "orthogonal": each gate's recurrent weights are a
        random orthogonal matrix instead.

    The state is h (L*S, N, H), S = 2 if bidirectional, otherwise 1; without a batch axis (L*S, H). The output is
    (T, N, S*H), or (T, N, H) where directions are merged into one. `__call__` and `backward` say what a call and its
    backward take.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(
            CellSpec("rnn", nonlinearity),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            merge=merge,
            dtype=dtype,
            rng=rng,
            init=init,
            learn_initial_state=learn_initial_state,
        )
        self.nonlinearity = nonlinearity


class GRU(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014), stacked L times; gates r, z, n.

    reset_after: True for the form of PyTorch and cuDNN, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)); False for the
        original, n = tanh(W_in x + b_in + W_hn (r * h) + b_hn).
    gate_activation: "sigmoid", "hard_sigmoid" (0.2 a + 0.5 within 0..1: ONNX, Keras 2) or "hard_sigmoid_6" (a / 6 +
        0.5: PyTorch, Keras 3), of r and z. activation: "tanh", "relu", "sigmoid" or "identity", of n.
    All other arguments, the state and the output are as for `RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        gate_activation: GateActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(
            CellSpec("gru", activation, gate_activation, reset_after=reset_after),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            merge=merge,
            dtype=dtype,
            rng=rng,
            init=init,
            learn_initial_state=learn_initial_state,
        )
        self.reset_after = bool(reset_after)
        self.gate_activation = gate_activation
        self.activation = activation


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), stacked L times;
    gates i, f, g, o.

    The state is the tuple (h, c): h (L*S, N, P), c (L*S, N, H), P = proj_size or H; without a batch axis (L*S, ...).

    forget_bias: a number to start the forget gate's total bias at, bias_ih + bias_hh; 1.0 is the "unit forget bias"
        of Jozefowicz et al. (2015), with which memory lasts from the first step of training. None leaves both as
        `init` has them.
    proj_size: P > 0 projects h to P units, h_t = W_hr (o * tanh(c_t)), as PyTorch's (Sak et al. 2014); parameters
        weight_hr_l{k} (P, H). 0: no projection.
    peephole: gates see the cell state through diagonal weights (Gers and Schmidhuber 2000), parameters
        weight_peephole_l{k} (3H,) in the order i, f, o.
    cell_clip: a positive number that all that goes into an activation is clipped to (ONNX's clip); None: no clip.
    gate_activation (i, f, o) and activation (g and h = o * activation(c)) as for `GRU`.
    All other arguments and the output are as for `RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        cell_clip: float | None = None,
        gate_activation: GateActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        forget_bias: float | None = None,
        learn_initial_state: bool = False,
    ) -> None:
        self.proj_size = check_size("proj_size", proj_size, least=0)
        if self.proj_size >= check_size("hidden_size", hidden_size):
            raise ValueError(f"proj_size: expected less than hidden_size, {hidden_size}, got {proj_size}")
        spec = CellSpec(
            "lstm", activation, gate_activation, cell_clip, projection=bool(self.proj_size), peephole=peephole
        )
        super().__init__(
            spec,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            merge=merge,
            dtype=dtype,
            rng=rng,
            init=init,
            learn_initial_state=learn_initial_state,
            proj_size=self.proj_size,
        )
        self.peephole = spec.peephole
        self.cell_clip = spec.clip
        self.gate_activation = gate_activation
        self.activation = activation
        self.forget_bias = None if forget_bias is None else check_number("forget_bias", forget_bias)
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
        own = {"proj_size": self.proj_size, "peephole": self.peephole, "forget_bias": self.forget_bias}
        return super().arguments() | own
