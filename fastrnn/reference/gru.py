"""The gated recurrent unit. Letters: T time steps, N batch, D input_size, H hidden_size, M outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._validate import (
    Array,
    GateActivation,
    Maybe,
    Nonlinearity,
    OutputActivation,
    check_array,
    check_recurrent_weights,
)
from .activations import GATE_ACTIVATIONS, NONLINEARITIES, Activation, activation_of
from .cache import check_states
from .linear import affine, affine_backward
from .scan import Cell, Checked, Rows, States, Weights, backward, cell_backward, cell_forward, forward


class _Options(NamedTuple):
    reset_after: bool
    gate: Activation
    candidate: Activation


def _step(x: Array, state: States, w: Weights, options: _Options, m: Any = 1) -> tuple[States, States]:
    (h,) = state
    (W_rz, b_rz), (W_n, b_n) = _recurrent(w)
    (s, _), (g, _) = options.gate, options.candidate
    H2 = len(W_rz)
    a = affine(x, w.weight_ih, w.bias_ih)
    v = m * h  # what the recurrent weights see
    r, z = np.split(s(a[:, :H2] + affine(v, W_rz, b_rz)), 2, axis=1)
    q = affine(v if options.reset_after else r * v, W_n, b_n)
    n = g(a[:, H2:] + (r * q if options.reset_after else q))
    return ((1 - z) * n + z * h,), (r, z, n, q)


def _step_backward(
    dstate: States, x: Array, state: States, gates: States, w: Weights, options: _Options, m: Any = 1
) -> tuple[Array, States, Weights]:
    (dh_next,), (h,), (r, z, n, q) = dstate, state, gates
    (W_rz, b_rz), (W_n, b_n) = _recurrent(w)
    (_, s_backward), (_, g_backward) = options.gate, options.candidate
    da_n = g_backward(dh_next * (1 - z), n)
    da_z = s_backward(dh_next * (h - n), z)
    v = m * h
    if options.reset_after:
        dv, dW_n, db_n = affine_backward(da_n * r, v, W_n, b_n)
        dr = da_n * q
    else:
        drv, dW_n, db_n = affine_backward(da_n, r * v, W_n, b_n)
        dr, dv = drv * v, drv * r
    da_rz = np.concatenate([s_backward(dr, r), da_z], axis=1)
    dv_rz, dW_rz, db_rz = affine_backward(da_rz, v, W_rz, b_rz)
    dh = dh_next * z + m * (dv + dv_rz)
    dx, dweight_ih, dbias_ih = affine_backward(np.concatenate([da_rz, da_n], axis=1), x, w.weight_ih, w.bias_ih)
    dbias_hh = None if w.bias_hh is None else np.concatenate([db_rz, db_n])
    return dx, (dh,), Weights(dweight_ih, np.concatenate([dW_rz, dW_n]), dbias_ih, dbias_hh)


def _recurrent(w: Weights) -> tuple[tuple[Array, Maybe], tuple[Array, Maybe]]:
    """weight_hh and bias_hh of the gates r, z and of the candidate n, whose input may be r * h instead of h."""
    H2 = 2 * w.weight_hh.shape[1]
    b_rz, b_n = (None, None) if w.bias_hh is None else (w.bias_hh[:H2], w.bias_hh[H2:])
    return (w.weight_hh[:H2], b_rz), (w.weight_hh[H2:], b_n)


_GRU = Cell("gru", ("h",), _step, _step_backward)


def _checked(
    leading: str,
    x: Array,
    h0: Maybe,
    weights: tuple[Any, Any, Maybe, Maybe],
    reset_after: bool,
    gate_activation: str,
    activation: str,
) -> Checked:
    """What `cell_forward` and `forward` take; `leading` names the axes of x before D."""
    H, D, dtype = check_recurrent_weights(3, *weights)
    check_array("x", x, (*leading, D), dtype)
    state = check_states(["h0"], (h0,), [(x.shape[-2], H)], dtype)
    gate = activation_of("gate_activation", gate_activation, GATE_ACTIVATIONS)
    candidate = activation_of("activation", activation, NONLINEARITIES)
    return _GRU, x, state, Weights(*weights), _Options(bool(reset_after), gate, candidate)


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
    """One step of the gated recurrent unit, gates in the order r, z, n:

        r = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                    reset gate
        z = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                    update gate
        n = g(W_in x_t + b_in + r * q),  q = W_hn h_{t-1} + b_hn        candidate, reset_after=True
        n = g(W_in x_t + b_in + q),  q = W_hn (r * h_{t-1}) + b_hn      candidate, reset_after=False
        h_t = (1 - z) * n + z * h_{t-1}

    reset_after=False is Cho et al. (2014, Learning phrase representations using RNN encoder-decoder), whose z and
    1 - z are swapped in some texts; reset_after=True is the form of PyTorch and cuDNN.
    s is gate_activation: sigmoid; hard_sigmoid, 0.2 a + 0.5 clipped to [0, 1], as in ONNX and Keras 2; or
    hard_sigmoid_6, relu6(a + 3) / 6, as in PyTorch and Keras 3. g is activation: tanh, relu, sigmoid or identity.
    Shapes, y and returned values as in `rnn_cell_forward` with 3H rows for H.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    checked = _checked("N", x, h0, weights, reset_after, gate_activation, activation)
    return cell_forward(*checked, weight_hy, bias_y, output_activation)


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step; dh_t = dh_next + the part from dy, and shapes, as in `rnn_cell_backward`.

        dn = dh_t * (1 - z),       da_n = dn * g'       tanh: 1 - n^2
        dz = dh_t * (h_{t-1} - n), da_z = dz * s'       sigmoid: z (1 - z); hard: its slope where 0 < z < 1
        dq = da_n * r, dr = da_n * q                                    reset_after=True
        dq = da_n,     dr = (W_hn^T dq) * h_{t-1}                       reset_after=False
        da_r = dr * s'
        dx_t = W_ih^T [da_r, da_z, da_n]
        dh_{t-1} = dh_t * z + W_hr^T da_r + W_hz^T da_z + W_hn^T dq     (last term times r if not reset_after)

    and W_hn sees h_{t-1} or r * h_{t-1}, as its forward did. Keys as in `rnn_cell_backward`.
    """
    return cell_backward(_GRU, (dh_next,), cache, dy)


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
    """`gru_cell_forward` cascaded over time; arguments and returned values as in `rnn_forward`.

    recurrent_mask is on the h_{t-1} that W_hr, W_hz and W_hn see, r * h_{t-1} included, not on z * h_{t-1}.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    checked = _checked("TN", x, h0, weights, reset_after, gate_activation, activation)
    told = Rows(lengths, reset_mask, mask, recurrent_mask, (zoneout_h,))
    return forward(*checked, told, reverse, out, training)


def gru_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`."""
    return backward(_GRU, doutput, (dh_n,), cache, into)
