"""Every cell over a sequence, and one step of each with the output of RNN textbooks.

Letters, and what all sequence functions take, as in the package.
"""

from __future__ import annotations

from typing import Any

from .._native import cell_forward
from .._validate import Array, GateActivation, Maybe, Nonlinearity, OutputActivation, check_positive
from .sequence import sequence_backward, sequence_forward
from .spec import CellSpec, spec_of
from .step import step_backward, step_forward


def rnn_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: Any = None,
    reset_mask: Any = None,
    mask: Any = None,
    recurrent_mask: Maybe = None,
    zoneout_h: Maybe = None,
    reverse: bool = False,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """An Elman network (Elman, 1990, Finding structure in time) over a sequence:

        h_t = g(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)        g = nonlinearity: tanh, relu, sigmoid or identity

    Returns output (T, N, H), h_n (N, H) and the cache for one `rnn_backward`, which is None unless training. `out`, an
    array of output's shape, receives output and is returned. The cache refers to x, output and the weights: leave them
    as they are until the backward.
    """
    spec = spec_of("rnn", nonlinearity)
    output, h_n, _, cache = sequence_forward(
        spec,
        x,
        h0,
        None,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        None,
        None,
        lengths,
        reset_mask,
        reverse,
        out,
        training,
        mask,
        recurrent_mask,
        zoneout_h,
    )
    return output, h_n, cache


def rnn_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time, from doutput (T, N, H) and dh_n (N, H), each None for zeros.

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh; biases that were None have None. `into`, a
    dict of arrays under any of these keys, has the gradients of that name added to it; the returned dict then holds
    those arrays. With into["x"] = None the gradient of x is not computed.
    """
    return sequence_backward("rnn", doutput, dh_n, None, cache, into)


def gru_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    reset_after: bool = True,
    gate_activation: GateActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    lengths: Any = None,
    reset_mask: Any = None,
    mask: Any = None,
    recurrent_mask: Maybe = None,
    zoneout_h: Maybe = None,
    reverse: bool = False,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """A gated recurrent unit over a sequence, gates in the order r, z, n (s is the logistic sigmoid):

        r = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                     reset gate
        z = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                     update gate
        n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn))            candidate, reset_after=True
        n = tanh(W_in x_t + b_in + W_hn (r * h_{t-1}) + b_hn)            candidate, reset_after=False
        h_t = (1 - z) * n + z * h_{t-1}

    gate_activation is s: "sigmoid", "hard_sigmoid", clip(0.2 a + 0.5, 0, 1) of ONNX and Keras 2, or "hard_sigmoid_6",
    clip(a / 6 + 0.5, 0, 1) of PyTorch and Keras 3; activation stands for tanh: "tanh", "relu", "sigmoid" or "identity".
    reset_after=True is the form of PyTorch, cuDNN and Keras; False that of Cho et al. (2014, Learning phrase
    representations using RNN encoder-decoder) and ONNX's default. Arguments and returned values as in `rnn_forward`.
    """
    spec = spec_of("gru", activation, gate_activation, None, bool(reset_after))
    output, h_n, _, cache = sequence_forward(
        spec,
        x,
        h0,
        None,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        None,
        None,
        lengths,
        reset_mask,
        reverse,
        out,
        training,
        mask,
        recurrent_mask,
        zoneout_h,
    )
    return output, h_n, cache


def gru_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`."""
    return sequence_backward("gru", doutput, dh_n, None, cache, into)


def lstm_forward(
    x: Array,
    h0: Maybe,
    c0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    weight_hr: Maybe = None,
    weight_peephole: Maybe = None,
    gate_activation: GateActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    cell_clip: float | None = None,
    lengths: Any = None,
    reset_mask: Any = None,
    mask: Any = None,
    recurrent_mask: Maybe = None,
    zoneout_h: Maybe = None,
    zoneout_c: Maybe = None,
    reverse: bool = False,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate of Gers et al., 2000):

        i, f, o = s(W_i* x_t + b_i* + W_h* h_{t-1} + b_h*)              gates in the order i, f, g, o
        g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    weight_hr (P, H): a projection, h_t = W_hr (o * tanh(c_t)), PyTorch's proj_size (Sak et al., 2014); h0, h_n and
    output are P wide then, and weight_hh is (4H, P). weight_peephole (3H,), p_i, p_f, p_o: i and f see p * c_{t-1}, o
    sees p_o * c_t (Gers & Schmidhuber, 2000; ONNX's P in another order). gate_activation and activation (of g and of
    c_t) as in `gru_forward`. cell_clip: a positive number that what goes into any activation is clipped to (ONNX's).

    Returns output (T, N, H), h_n (N, H), c_n (N, H) and the cache; the rest as in `rnn_forward`.
    """
    return sequence_forward(
        _lstm_spec(activation, gate_activation, cell_clip, weight_hr, weight_peephole),
        x,
        h0,
        c0,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        weight_hr,
        weight_peephole,
        lengths,
        reset_mask,
        reverse,
        out,
        training,
        mask,
        recurrent_mask,
        zoneout_h,
        zoneout_c,
    )


def _lstm_spec(
    activation: str, gate_activation: str, cell_clip: float | None, weight_hr: Maybe, weight_peephole: Maybe
) -> CellSpec:
    if cell_clip is not None:
        cell_clip = check_positive("cell_clip", cell_clip)
    projection, peephole = weight_hr is not None, weight_peephole is not None
    return spec_of("lstm", activation, gate_activation, cell_clip, True, projection, peephole)


def lstm_backward(
    doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time, also from dc_n (N, H); the dict has c0 too and, where the forward had them,
    weight_hr and weight_peephole. The rest is as in `rnn_backward`."""
    return sequence_backward("lstm", doutput, dh_n, dc_n, cache, into)


# --- One step ----------------------------------------------------------------------------------------------------

# The defaults, which a step finds by identity: to look a spec up takes a tenth of a small one. A word that is equal but
# another object takes the longer way.
_TANH, _SIGMOID, _IDENTITY = "tanh", "sigmoid", "identity"
_RNN, _GRU, _LSTM = CellSpec("rnn").compiled, CellSpec("gru").compiled, CellSpec("lstm").compiled


def rnn_cell_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    nonlinearity: Nonlinearity = "tanh",
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: OutputActivation = "identity",
) -> tuple[Any, ...]:
    """One step of `rnn_forward`: x (N, D) and the state before it, h0 (N, H).

    With weight_hy (M, H) and bias_y (M,) or None it also computes y_t = g2(W_hy h_t + b_y), g2 = output_activation:
    identity, tanh, relu, sigmoid or softmax. Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    if weight_hy is None and bias_y is None and output_activation is _IDENTITY:
        compiled = _RNN if nonlinearity is _TANH else spec_of("rnn", nonlinearity).compiled
        plain = cell_forward(compiled, x, h0, None, weight_ih, weight_hh, bias_ih, bias_hh)
        if plain is not None:
            return plain
    spec = spec_of("rnn", nonlinearity)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return step_forward(spec, x, (h0, None), weights, weight_hy, bias_y, output_activation)


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step from dh_next (N, H) and dy (N, M), None for zeros: a dict with the keys of `rnn_backward`
    and, where the forward had it, weight_hy and bias_y."""
    return step_backward("rnn", dh_next, None, cache, dy)


def gru_cell_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    reset_after: bool = True,
    gate_activation: GateActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: OutputActivation = "identity",
) -> tuple[Any, ...]:
    """One step of `gru_forward`; arguments and returned values as in `rnn_cell_forward`."""
    if weight_hy is None and bias_y is None and output_activation is _IDENTITY:
        usual = reset_after is True and gate_activation is _SIGMOID and activation is _TANH
        compiled = _GRU if usual else spec_of("gru", activation, gate_activation, None, bool(reset_after)).compiled
        plain = cell_forward(compiled, x, h0, None, weight_ih, weight_hh, bias_ih, bias_hh)
        if plain is not None:
            return plain
    spec = spec_of("gru", activation, gate_activation, None, bool(reset_after))
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return step_forward(spec, x, (h0, None), weights, weight_hy, bias_y, output_activation)


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, as in `rnn_cell_backward`."""
    return step_backward("gru", dh_next, None, cache, dy)


def lstm_cell_forward(
    x: Array,
    h0: Maybe,
    c0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    weight_hr: Maybe = None,
    weight_peephole: Maybe = None,
    gate_activation: GateActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    cell_clip: float | None = None,
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: OutputActivation = "identity",
) -> tuple[Any, ...]:
    """One step of `lstm_forward`: returns h_next, c_next, cache; with weight_hy: h_next, c_next, y, cache."""
    has_head = weight_hy is not None or bias_y is not None or output_activation is not _IDENTITY
    if not has_head and weight_hr is None and weight_peephole is None and cell_clip is None:
        usual = gate_activation is _SIGMOID and activation is _TANH
        compiled = _LSTM if usual else spec_of("lstm", activation, gate_activation).compiled
        plain = cell_forward(compiled, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        if plain is not None:
            return plain
    spec = _lstm_spec(activation, gate_activation, cell_clip, weight_hr, weight_peephole)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole)
    return step_forward(spec, x, (h0, c0), weights, weight_hy, bias_y, output_activation)


def lstm_cell_backward(dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, also from dc_next (N, H); the dict has c0 too."""
    return step_backward("lstm", dh_next, dc_next, cache, dy)
