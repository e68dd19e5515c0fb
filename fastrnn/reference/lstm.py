"""Long short-term memory. Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, M outputs.

Without a projection P = H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._validate import (
    Array,
    GateActivation,
    Maybe,
    Nonlinearity,
    OutputActivation,
    check_array,
    check_positive,
    check_recurrent_weights,
)
from .activations import GATE_ACTIVATIONS, NONLINEARITIES, Activation, activation_of, clipped
from .cache import check_states
from .linear import affine, affine_backward
from .scan import Cell, Checked, Rows, States, backward, cell_backward, cell_forward, forward


class _Weights(NamedTuple):
    weight_ih: Array  # (4H, D)
    weight_hh: Array  # (4H, P)
    bias_ih: Maybe  # (4H,)
    bias_hh: Maybe  # (4H,)
    weight_hr: Maybe  # (P, H)
    weight_peephole: Maybe  # (3H,): i, f, o


class _Options(NamedTuple):
    """s and g with their clip inside: the step needs to know no more of it."""

    gate: Activation
    cell: Activation


def _step(x: Array, state: States, w: _Weights, options: _Options, m: Any = 1) -> tuple[States, States]:
    h, c = state
    (s, _), (g, _) = options
    a_i, a_f, a_g, a_o = np.split(affine(x, w.weight_ih, w.bias_ih) + affine(m * h, w.weight_hh, w.bias_hh), 4, axis=1)
    p_i, p_f, p_o = _peepholes(w)
    i, f, g_t = s(_add(a_i, p_i, c)), s(_add(a_f, p_f, c)), g(a_g)
    c_next = f * c + i * g_t
    o, e = s(_add(a_o, p_o, c_next)), g(c_next)
    h_next = o * e if w.weight_hr is None else affine(o * e, w.weight_hr, None)
    return (h_next, c_next), (i, f, g_t, o, c_next, e)


def _step_backward(
    dstate: States, x: Array, state: States, gates: States, w: _Weights, options: _Options, m: Any = 1
) -> tuple[Array, States, _Weights]:
    (dh_next, dc_next), (h, c), (i, f, g, o, c_next, e) = dstate, state, gates
    (_, s_backward), (_, g_backward) = options
    p_i, p_f, p_o = _peepholes(w)
    dm, dweight_hr = dh_next, None
    if w.weight_hr is not None:
        dm, dweight_hr, _ = affine_backward(dh_next, o * e, w.weight_hr, None)
    da_o = s_backward(dm * e, o)
    dc = _add(dc_next + g_backward(dm * o, e), p_o, da_o)
    da_i, da_f, da_g = s_backward(dc * g, i), s_backward(dc * c, f), g_backward(dc * i, g)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
    dx, dweight_ih, dbias_ih = affine_backward(da, x, w.weight_ih, w.bias_ih)
    dh, dweight_hh, dbias_hh = affine_backward(da, m * h, w.weight_hh, w.bias_hh)
    dweight_peephole = None
    if w.weight_peephole is not None:
        dweight_peephole = np.concatenate([(da_i * c).sum(0), (da_f * c).sum(0), (da_o * c_next).sum(0)])
    dc = _add(_add(dc * f, p_i, da_i), p_f, da_f)
    return dx, (m * dh, dc), _Weights(dweight_ih, dweight_hh, dbias_ih, dbias_hh, dweight_hr, dweight_peephole)


def _peepholes(w: _Weights) -> Sequence[Maybe]:
    return (None, None, None) if w.weight_peephole is None else np.split(w.weight_peephole, 3)


def _add(a: Array, p: Maybe, v: Array) -> Array:
    """a + p * v. Without p just a: 0 * v would make NaN of a v that is infinite."""
    return a if p is None else a + p * v


_LSTM = Cell("lstm", ("h", "c"), _step, _step_backward)


def _checked(
    leading: str,
    x: Array,
    state: tuple[Maybe, Maybe],
    weights: tuple[Any, Any, Maybe, Maybe, Maybe, Maybe],
    gate_activation: str,
    activation: str,
    cell_clip: float | None,
) -> Checked:
    """What `cell_forward` and `forward` take; `leading` names the axes of x before D."""
    w = _Weights(*weights)
    H, D, dtype = check_recurrent_weights(
        4, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, None if w.weight_hr is None else "P"
    )
    P = w.weight_hh.shape[1]
    if w.weight_hr is not None:
        check_array("weight_hr", w.weight_hr, (P, H), dtype)
    if w.weight_peephole is not None:
        check_array("weight_peephole", w.weight_peephole, (3 * H,), dtype)
    check_array("x", x, (*leading, D), dtype)
    N = x.shape[-2]
    states = check_states(["h0", "c0"], state, [(N, P), (N, H)], dtype)
    gate = activation_of("gate_activation", gate_activation, GATE_ACTIVATIONS)
    cell = activation_of("activation", activation, NONLINEARITIES)
    if cell_clip is not None:
        check_positive("cell_clip", cell_clip)
    return _LSTM, x, states, w, _Options(clipped(gate, cell_clip, dtype), clipped(cell, cell_clip, dtype))


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
    """One step of long short-term memory (Hochreiter & Schmidhuber, 1997) with the forget gate of Gers et al.
    (2000, Learning to forget), gates in the order i, f, g, o:

        i = s(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i * c_{t-1})    input gate
        f = s(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f * c_{t-1})    forget gate
        g = u(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)                    candidate
        c_t = f * c_{t-1} + i * g
        o = s(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o * c_t)        output gate
        h_t = W_hr (o * u(c_t))                                         without weight_hr: o * u(c_t)

    weight_peephole (3H,) is p_i, p_f, p_o, a diagonal view of the cell (Gers & Schmidhuber, 2000, Recurrent nets
    that time and count; ONNX's input P, there in the order i, o, f). weight_hr (P, H) is the projection of Sak et
    al. (2014, Long short-term memory recurrent neural network architectures), PyTorch's proj_size: h is (N, P) and
    weight_hh (4H, P). s is gate_activation, as in `gru_cell_forward`; u is activation: tanh, relu, sigmoid or identity.
    cell_clip, a positive number: every argument of s and u is clipped to [-cell_clip, cell_clip], as ONNX defines its
    clip: the four sums, biases and peepholes included, and c_t inside u(c_t) (which ONNX Runtime does not clip). The
    c_t that is carried on and that the peepholes see is not clipped.

    h0 (N, P), c0 (N, H) are h_{t-1}, c_{t-1}, None for zeros; shapes and y as in `rnn_cell_forward` with 4H rows for H.
    Returns h_next, c_next, cache; with weight_hy (M, P): h_next, c_next, y, cache.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole)
    checked = _checked("N", x, (h0, c0), weights, gate_activation, activation, cell_clip)
    return cell_forward(*checked, weight_hy, bias_y, output_activation)


def lstm_cell_backward(dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step; dh_t = dh_next + the part from dy, and shapes, as in `rnn_cell_backward`.

        dm   = W_hr^T dh_t,  dW_hr = dh_t (o * u(c_t))^T      without weight_hr: dm = dh_t
        da_o = dm * u(c_t) * s'                               sigmoid: s' = o (1 - o)
        dc_t = dc_next + dm * o * u' + p_o * da_o             tanh: u' = 1 - u(c_t)^2
        da_i = dc_t * g * s'
        da_f = dc_t * c_{t-1} * s'
        da_g = dc_t * i * u'
        dc_{t-1} = dc_t * f + p_i * da_i + p_f * da_f
        dp_i = da_i * c_{t-1},  dp_f = da_f * c_{t-1},  dp_o = da_o * c_t      summed over the batch
        dx_t = W_ih^T da,  dh_{t-1} = W_hh^T da,  dW_ih = da x_t^T,  dW_hh = da h_{t-1}^T,  db_ih = db_hh = da

    with da the four stacked i, f, g, o. c_t reaches the loss through c_{t+1}, through h_t and through p_o. Clipping
    makes s' and u' 0 unless the function's value lies strictly between its values at -cell_clip and cell_clip.
    Keys as in `rnn_cell_backward`, with c0 after h0, and with weight_hr and weight_peephole after bias_hh where the
    forward had them.
    """
    return cell_backward(_LSTM, (dh_next, dc_next), cache, dy)


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
    """`lstm_cell_forward` cascaded over time: output (T, N, P), h_n (N, P), c_n (N, H), cache; arguments as there and
    in `rnn_forward`. c starts at c0, ends with the row, is reset and is carried over masked steps, as h is.

    recurrent_mask (N, P) and zoneout_h (T, N, P) are as there; c has zoneout_c (T, N, H) of its own, k'_t:

        c'_t = f * c_{t-1} + i * g,  c_t = k'_t * c_{t-1} + (1 - k'_t) * c'_t

    and h_t is made from c'_t, with its own k_t, as Krueger et al. have it."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole)
    checked = _checked("TN", x, (h0, c0), weights, gate_activation, activation, cell_clip)
    told = Rows(lengths, reset_mask, mask, recurrent_mask, (zoneout_h, zoneout_c))
    return forward(*checked, told, reverse, out, training)


def lstm_backward(
    doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time; arguments as in `rnn_backward`, keys of the returned dict as in
    `lstm_cell_backward`."""
    return backward(_LSTM, doutput, (dh_n, dc_n), cache, into)
