"""RNN, GRU and LSTM. Letters as in `stacked`, which has all that they share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from .._validate import GateActivation, Nonlinearity, check_number, check_size
from ..functional.spec import CellSpec
from .gates import for_each, levels_of, make_layer, read_gates, read_peepholes
from .merge import Merge
from .stacked import RecurrentLayer


class RNN(RecurrentLayer):
    """Elman network: h_t = g(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), g = nonlinearity, stacked L times.

    nonlinearity: "tanh", "relu", "sigmoid" or "identity".
    bias: False for a layer without bias_ih and bias_hh; "input" for one without bias_hh, as most of Keras's are.
    batch_first: x and output are (N, T, ...) rather than (T, N, ...); states stay (L*S, N, H).
    dropout: probability of dropping each entry of a layer's output, except the last layer's, in training.
    bidirectional: a second direction with weights of its own reads the sequence from its end.
    merge: what each layer makes of its two directions: "concat", forward first, or "sum", "mul" or "ave", their sum,
        product or mean, H wide (Keras's merge_mode).
    dtype: float32 or float64, of parameters, inputs and outputs.
    rng: None, a seed or a numpy Generator, for the weights; dropout gets a Generator of its own, seeded from it.
    learn_initial_state: parameters initial_h (L*S, P) (LSTM: initial_c (L*S, H) too), zeros at first, are the state
        that sequences start from where none is given.
    recurrent_dropout: probability of dropping a unit of h before it meets the recurrent weights, in training: the same
        units at all steps of a sequence (Gal & Ghahramani 2016, Keras's recurrent_dropout; one mask for all gates).
    zoneout: probability that a unit of h keeps its value at a step (Krueger et al. 2017), in training; in evaluation
        and streams h is the expectation. Both are drawn anew for each call in training, layer and direction, from the
        Generator that dropout has.
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
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        learn_initial_state: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
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
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
        )
        self.nonlinearity = nonlinearity

    @classmethod
    def from_gates(cls, *, h: Any, transposed: bool = False, **options: Any) -> RNN:
        """A layer from the weights of its one gate, h, or of a list of them: see `LSTM.from_gates`."""
        layer: RNN = make_layer(cls, [read_gates(gates, transposed) for gates in levels_of({"h": h})], 1, options)
        return layer


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
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        learn_initial_state: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
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
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
        )
        self.reset_after = bool(reset_after)
        self.gate_activation = gate_activation
        self.activation = activation

    @classmethod
    def from_gates(
        cls, *, r: Any, z: Any, n: Any, transposed: bool = False, invert_z: bool = False, **options: Any
    ) -> GRU:
        """A layer from the weights of each gate, or lists of them: see `LSTM.from_gates`.

        r: reset, z: update, n: candidate. invert_z: for weights of the form h_t = (1 - z) h_{t-1} + z n, in which z
            lets the new in; here it keeps the old, h_t = (1 - z) n + z h_{t-1}. A single bias of n counts as bias_ih.
        """
        levels = [read_gates(gates, transposed) for gates in levels_of({"r": r, "z": z, "n": n})]
        if invert_z:  # sigmoid(-a) = 1 - sigmoid(a), of the hard ones too
            for params in levels:
                for value in params.values():
                    H = len(value) // 3
                    value[H : 2 * H] *= -1
        layer: GRU = make_layer(cls, levels, 3, options)
        return layer


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
    zoneout: a probability for h and c, or (zoneout_h, zoneout_c).
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
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
        init: Literal["uniform", "orthogonal"] = "uniform",
        forget_bias: float | None = None,
        learn_initial_state: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
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
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
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
            if self.bias is True:
                self._params[names["bias_hh"]][forget] = 0

    def arguments(self) -> dict[str, Any]:
        own = {"proj_size": self.proj_size, "peephole": self.peephole, "forget_bias": self.forget_bias}
        return super().arguments() | own

    @classmethod
    def from_gates(
        cls,
        *,
        i: Any,
        f: Any,
        g: Any,
        o: Any,
        transposed: bool = False,
        forget_bias: float = 0.0,
        peepholes: Any = None,
        weight_hr: Any = None,
        **options: Any,
    ) -> LSTM:
        """A layer from the weights of each gate, whatever their order elsewhere.

        i, f, g, o: input, forget, candidate and output gate, each (weight_ih (H, D), weight_hh (H, P)), with a bias
            (H,) or bias_ih and bias_hh behind them; or a dict with these names, "bias" for a single one.
        transposed: matrices are (D, H) and (P, H), as in Keras and where x stands in front of them.
        forget_bias: what the other program adds to f's bias when it runs, such as 1.0 in TensorFlow 1 and Haiku.
        peepholes: {"i": (H,), "f": (H,), "o": (H,)}. weight_hr: the projection, (P, H), transposed (H, P).
        Several levels: a list of these for each gate, peepholes and weight_hr, level by level; with bidirectional=True
            that of the forward direction before that of the backward one.
        options: those of the constructor, but for sizes and `bias`. dtype: that of the weights if it is None.
        Raises TypeError and ValueError that name the gate and what about it does not fit.
        """
        levels = levels_of({"i": i, "f": f, "g": g, "o": o})
        peeps, projections = for_each("peepholes", peepholes, levels), for_each("weight_hr", weight_hr, levels)
        read = []
        for gates, peephole, projection in zip(levels, peeps, projections):
            params = read_gates(gates, transposed)
            H = len(params["weight_ih"]) // 4
            if forget_bias:
                for name in ("bias_ih", "bias_hh"):
                    params.setdefault(name, np.zeros(4 * H, params["weight_ih"].dtype))
                params["bias_ih"][H : 2 * H] += check_number("forget_bias", forget_bias)
            if peephole is not None:
                params["weight_peephole"] = read_peepholes(peephole, H)
            if projection is not None:
                hr = np.asarray(projection).T if transposed else np.asarray(projection)
                params["weight_hr"], options["proj_size"] = hr, len(hr)
            read.append(params)
        layer: LSTM = make_layer(cls, read, 4, {"peephole": peepholes is not None, **options})
        return layer
