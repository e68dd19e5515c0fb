"""The stateless core in plain NumPy: the specification that `fastrnn.functional` is tested against.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates (RNN 1, GRU 3, LSTM 4), M outputs.
All arrays of a call share one dtype, float32 or float64, and results have it too. Sequences are time-major:
x (T, N, D), output (T, N, H), states (N, H). Weights have PyTorch's layout: weight_ih (G*H, D),
weight_hh (G*H, H), bias_ih and bias_hh (G*H,) or None, gates stacked in the order given with each cell.

In the equations x_t, h_t are column vectors, * is elementwise, s is the logistic sigmoid and d<name> is the
gradient of the loss with respect to <name>. For the notation of RNN textbooks: W_hx = W_ih, W_hh = W_hh,
b_h = b_ih + b_hh, W_hy = weight_hy, b_y = bias_y. Two rules carry every derivation:

    a = W v + b      =>  dv = W^T da,   dW = sum over the batch of da v^T,   db = sum over the batch of da
    y = g(a)         =>  da = dy * g'(a), with s' = s (1 - s), tanh' = 1 - tanh^2

A cell is one step. A sequence is the cell cascaded over time, each step starting from the state before it;
its backward (backpropagation through time) cascades the cell's backward in reverse: the gradient that arrives
at h_t is doutput_t plus the dh that step t+1 hands back, and weight gradients add up over the steps. What the
three cells share is written once, at the end of this file.

Bad arguments raise one error that names the argument: TypeError for a wrong type or dtype, ValueError for a
wrong shape or an unknown option, RuntimeError for a cache that an earlier backward has consumed.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "rnn_cell_forward", "rnn_cell_backward", "rnn_forward", "rnn_backward",
    "gru_cell_forward", "gru_cell_backward", "gru_forward", "gru_backward",
    "lstm_cell_forward", "lstm_cell_backward", "lstm_forward", "lstm_backward",
    "linear_forward", "linear_backward",
]  # fmt: skip

Array = NDArray[Any]
Maybe = Optional[Array]

# Infinities and NaN follow IEEE arithmetic without a warning, as in the compiled kernels.
_ieee = np.errstate(over="ignore", invalid="ignore")


# --- Activations: g and, directly under it, dy -> da in terms of y = g(a) ---------------------------------------------


def _sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), written so that neither exponential can overflow; NaN stays NaN."""
    return np.exp(np.minimum(a, 0)) / (1 + np.exp(-np.abs(a)))


def _sigmoid_backward(dy: Array, y: Array) -> Array:
    return dy * y * (1 - y)


def _tanh_backward(dy: Array, y: Array) -> Array:
    return dy * (1 - y * y)


def _relu(a: Array) -> Array:
    return np.maximum(a, 0)


def _relu_backward(dy: Array, y: Array) -> Array:
    """The subgradient at 0 is 0."""
    return np.where(y <= 0, 0, dy).astype(y.dtype, copy=False)


def _softmax(a: Array) -> Array:
    """e^a_i / sum_j e^a_j over the last axis, shifted by the largest entry so that it cannot overflow."""
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_backward(dy: Array, y: Array) -> Array:
    """The Jacobian is diag(y) - y y^T, so da = y * (dy - y.dy)."""
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


_NONLINEARITIES: dict[str, tuple[Callable, Callable]] = {
    "tanh": (np.tanh, _tanh_backward),
    "relu": (_relu, _relu_backward),
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "identity": (lambda a: a, lambda dy, y: dy),
}
_ACTIVATIONS = _NONLINEARITIES | {"softmax": (_softmax, _softmax_backward)}


# --- Linear -----------------------------------------------------------------------------------------------------------


def _affine(v: Array, weight: Array, bias: Maybe) -> Array:
    a = v @ weight.T
    return a if bias is None else a + bias


def _affine_backward(da: Array, v: Array, weight: Array, bias: Maybe) -> tuple[Array, Array, Maybe]:
    return da @ weight, da.T @ v, None if bias is None else da.sum(axis=0)


@_ieee
def linear_forward(x: Array, weight: Array, bias: Maybe = None, *, training: bool = True) -> tuple[Array, Any]:
    """y = W x + b on the last axis: x (..., D), weight (M, D), bias (M,) or None -> y (..., M) and the cache, which is
    None unless training."""
    M, D = _check("weight", weight, ("M", "D"))
    _check("x", x, (*np.shape(x)[:-1], D), weight.dtype, "weight")
    if bias is not None:
        _check("bias", bias, (M,), weight.dtype, "weight")
    return _affine(x, weight, bias), _Cache("linear_forward", (x, weight, bias)) if training else None


@_ieee
def linear_backward(dy: Array, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """dx = W^T dy, dW = sum of dy x^T, db = sum of dy: a dict with keys x, weight, bias. `into` as in rnn_backward."""
    x, weight, bias = _kept(cache, "linear_forward")
    _check("dy", dy, (*x.shape[:-1], len(weight)), weight.dtype, "weight")
    dx, dweight, dbias = _affine_backward(dy.reshape(-1, len(weight)), x.reshape(-1, x.shape[-1]), weight, bias)
    grads = _add_into(into, {"x": dx.reshape(x.shape), "weight": dweight, "bias": dbias}, "weight")
    cache.kept = None
    return grads


# --- RNN --------------------------------------------------------------------------------------------------------------


def _rnn_step(x, state, w, nonlinearity):
    (h,) = state
    g, _ = _NONLINEARITIES[nonlinearity]
    h_next = g(_affine(x, w.weight_ih, w.bias_ih) + _affine(h, w.weight_hh, w.bias_hh))
    return (h_next,), h_next


def _rnn_step_backward(dstate, x, state, h_next, w, nonlinearity):
    (dh_next,), (h,) = dstate, state
    _, g_backward = _NONLINEARITIES[nonlinearity]
    da = g_backward(dh_next, h_next)
    dx, dweight_ih, dbias_ih = _affine_backward(da, x, w.weight_ih, w.bias_ih)
    dh, dweight_hh, dbias_hh = _affine_backward(da, h, w.weight_hh, w.bias_hh)
    return dx, (dh,), _Weights(dweight_ih, dweight_hh, dbias_ih, dbias_hh)


def rnn_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    nonlinearity: str = "tanh", weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of the Elman network (Elman, 1990, Finding structure in time):

        a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        h_t = g(a_t)                    g = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g2(W_hy h_t + b_y)        if weight_hy is given; g2 = output_activation, any of these or softmax

    x (N, D); h0 (N, H) is h_{t-1}, None for zeros; weight_ih (H, D); weight_hh (H, H); bias_ih, bias_hh (H,)
    or None; weight_hy (M, H); bias_y (M,) or None.
    Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    return _cell_forward(_RNN, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), nonlinearity,
                         weight_hy, bias_y, output_activation)  # fmt: skip


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, from dh_next (N, H) and dy (N, M), None for zeros.

        da2 = g2'(dy),  dW_hy = da2 h_t^T,  db_y = da2       (softmax: da2 = y * (dy - y.dy))
        dh_t = dh_next + W_hy^T da2
        da   = dh_t * g'(a_t)
        dx_t = W_ih^T da,  dh_{t-1} = W_hh^T da,  dW_ih = da x_t^T,  dW_hh = da h_{t-1}^T,  db_ih = db_hh = da

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh and, if the forward had it, weight_hy
    and bias_y. Keys of biases that were None hold None.
    """
    return _cell_backward(_RNN, (dh_next,), cache, dy)


def rnn_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    nonlinearity: str = "tanh", out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """`rnn_cell_forward` cascaded over x (T, N, D) from h0 (N, H), None for zeros.

    Returns output (T, N, H), h_n (N, H) and the cache for one `rnn_backward`, which is None unless training.
    `out`, an array of output's shape, receives output and is returned. The cache refers to x, output and the
    weights: leave them as they are until the backward.
    """
    return _forward(_RNN, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), nonlinearity, out, training)


def rnn_backward(
    doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time, from doutput (T, N, H) and dh_n (N, H), each None for zeros.

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh. `into`, a dict of arrays under any of
    these keys, has the gradients of that name added to it; the returned dict then holds those arrays.
    """
    return _backward(_RNN, doutput, (dh_n,), cache, into)


# --- GRU --------------------------------------------------------------------------------------------------------------


def _gru_step(x, state, w, reset_after):
    (h,) = state
    (W_rz, b_rz), (W_n, b_n) = _gru_recurrent(w)
    H2 = len(W_rz)
    a = _affine(x, w.weight_ih, w.bias_ih)
    r, z = np.split(_sigmoid(a[:, :H2] + _affine(h, W_rz, b_rz)), 2, axis=1)
    q = _affine(h if reset_after else r * h, W_n, b_n)
    n = np.tanh(a[:, H2:] + (r * q if reset_after else q))
    return ((1 - z) * n + z * h,), (r, z, n, q)


def _gru_step_backward(dstate, x, state, gates, w, reset_after):
    (dh_next,), (h,), (r, z, n, q) = dstate, state, gates
    (W_rz, b_rz), (W_n, b_n) = _gru_recurrent(w)
    da_n = _tanh_backward(dh_next * (1 - z), n)
    da_z = _sigmoid_backward(dh_next * (h - n), z)
    dh = dh_next * z
    if reset_after:
        dv, dW_n, db_n = _affine_backward(da_n * r, h, W_n, b_n)
        dr, dh = da_n * q, dh + dv
    else:
        dv, dW_n, db_n = _affine_backward(da_n, r * h, W_n, b_n)
        dr, dh = dv * h, dh + dv * r
    da_rz = np.concatenate([_sigmoid_backward(dr, r), da_z], axis=1)
    dv, dW_rz, db_rz = _affine_backward(da_rz, h, W_rz, b_rz)
    dx, dweight_ih, dbias_ih = _affine_backward(np.concatenate([da_rz, da_n], axis=1), x, w.weight_ih, w.bias_ih)
    dbias_hh = None if w.bias_hh is None else np.concatenate([db_rz, db_n])
    return dx, (dh + dv,), _Weights(dweight_ih, np.concatenate([dW_rz, dW_n]), dbias_ih, dbias_hh)


def _gru_recurrent(w: _Weights):
    """weight_hh and bias_hh of the gates r, z and of the candidate n, whose input may be r * h instead of h."""
    H2 = 2 * w.weight_hh.shape[1]
    b_rz, b_n = (None, None) if w.bias_hh is None else (w.bias_hh[:H2], w.bias_hh[H2:])
    return (w.weight_hh[:H2], b_rz), (w.weight_hh[H2:], b_n)


def gru_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    reset_after: bool = True, weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of the gated recurrent unit, gates in the order r, z, n:

        r = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                    reset gate
        z = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                    update gate
        n = tanh(W_in x_t + b_in + r * q),  q = W_hn h_{t-1} + b_hn     candidate, reset_after=True
        n = tanh(W_in x_t + b_in + q),  q = W_hn (r * h_{t-1}) + b_hn   candidate, reset_after=False
        h_t = (1 - z) * n + z * h_{t-1}

    reset_after=False is Cho et al. (2014, Learning phrase representations using RNN encoder-decoder), whose z and
    1 - z are swapped in some texts; reset_after=True is the form of PyTorch and cuDNN. Shapes, y and returned
    values as in `rnn_cell_forward` with 3H rows for H.
    """
    return _cell_forward(_GRU, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), reset_after,
                         weight_hy, bias_y, output_activation)  # fmt: skip


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step; dh_t = dh_next + the part from dy, and shapes, as in `rnn_cell_backward`.

        dn = dh_t * (1 - z),       da_n = dn * (1 - n^2)
        dz = dh_t * (h_{t-1} - n), da_z = dz * z (1 - z)
        dq = da_n * r, dr = da_n * q                                    reset_after=True
        dq = da_n,     dr = (W_hn^T dq) * h_{t-1}                       reset_after=False
        da_r = dr * r (1 - r)
        dx_t = W_ih^T [da_r, da_z, da_n]
        dh_{t-1} = dh_t * z + W_hr^T da_r + W_hz^T da_z + W_hn^T dq     (last term times r if not reset_after)

    and W_hn sees h_{t-1} or r * h_{t-1}, as its forward did. Keys as in `rnn_cell_backward`.
    """
    return _cell_backward(_GRU, (dh_next,), cache, dy)


def gru_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    reset_after: bool = True, out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """`gru_cell_forward` cascaded over time; arguments and returned values as in `rnn_forward`."""
    return _forward(_GRU, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), reset_after, out, training)


def gru_backward(
    doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`."""
    return _backward(_GRU, doutput, (dh_n,), cache, into)


# --- LSTM -------------------------------------------------------------------------------------------------------------


def _lstm_step(x, state, w, _):
    h, c = state
    a_i, a_f, a_g, a_o = np.split(_affine(x, w.weight_ih, w.bias_ih) + _affine(h, w.weight_hh, w.bias_hh), 4, axis=1)
    i, f, g, o = _sigmoid(a_i), _sigmoid(a_f), np.tanh(a_g), _sigmoid(a_o)
    c_next = f * c + i * g
    tanh_c = np.tanh(c_next)
    return (o * tanh_c, c_next), (i, f, g, o, tanh_c)


def _lstm_step_backward(dstate, x, state, gates, w, _):
    (dh_next, dc_next), (h, c), (i, f, g, o, tanh_c) = dstate, state, gates
    dc = dc_next + _tanh_backward(dh_next * o, tanh_c)
    da = np.concatenate([
        _sigmoid_backward(dc * g, i),
        _sigmoid_backward(dc * c, f),
        _tanh_backward(dc * i, g),
        _sigmoid_backward(dh_next * tanh_c, o),
    ], axis=1)  # fmt: skip
    dx, dweight_ih, dbias_ih = _affine_backward(da, x, w.weight_ih, w.bias_ih)
    dh, dweight_hh, dbias_hh = _affine_backward(da, h, w.weight_hh, w.bias_hh)
    return dx, (dh, dc * f), _Weights(dweight_ih, dweight_hh, dbias_ih, dbias_hh)


def lstm_cell_forward(
    x: Array, h0: Maybe, c0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of long short-term memory (Hochreiter & Schmidhuber, 1997) with the forget gate of Gers et al.
    (2000, Learning to forget), gates in the order i, f, g, o:

        i = s(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)      input gate
        f = s(W_if x_t + b_if + W_hf h_{t-1} + b_hf)      forget gate
        g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)   candidate
        o = s(W_io x_t + b_io + W_ho h_{t-1} + b_ho)      output gate
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    h0, c0 (N, H) are h_{t-1}, c_{t-1}, None for zeros; shapes and y as in `rnn_cell_forward` with 4H rows for H.
    Returns h_next, c_next, cache; with weight_hy: h_next, c_next, y, cache.
    """
    return _cell_forward(_LSTM, x, (h0, c0), (weight_ih, weight_hh, bias_ih, bias_hh), None,
                         weight_hy, bias_y, output_activation)  # fmt: skip


def lstm_cell_backward(dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step; dh_t = dh_next + the part from dy, and shapes, as in `rnn_cell_backward`.

        dc_t = dc_next + dh_t * o * (1 - tanh(c_t)^2)     c_t reaches the loss through c_{t+1} and through h_t
        da_i = dc_t * g * i (1 - i)
        da_f = dc_t * c_{t-1} * f (1 - f)
        da_g = dc_t * i * (1 - g^2)
        da_o = dh_t * tanh(c_t) * o (1 - o)
        dc_{t-1} = dc_t * f
        dx_t = W_ih^T da,  dh_{t-1} = W_hh^T da,  dW_ih = da x_t^T,  dW_hh = da h_{t-1}^T,  db_ih = db_hh = da

    with da the four stacked. Keys as in `rnn_cell_backward`, with c0 after h0.
    """
    return _cell_backward(_LSTM, (dh_next, dc_next), cache, dy)


def lstm_forward(
    x: Array, h0: Maybe, c0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """`lstm_cell_forward` cascaded over time: output, h_n, c_n, cache; arguments as in `rnn_forward`."""
    return _forward(_LSTM, x, (h0, c0), (weight_ih, weight_hh, bias_ih, bias_hh), None, out, training)


def lstm_backward(
    doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`, with c0 after h0."""
    return _backward(_LSTM, doutput, (dh_n, dc_n), cache, into)


# --- What the cells share: one step with an output, and the cascade over time -----------------------------------------


class _Weights(NamedTuple):
    weight_ih: Array  # (G*H, D)
    weight_hh: Array  # (G*H, H)
    bias_ih: Maybe  # (G*H,)
    bias_hh: Maybe  # (G*H,)


class _Cell(NamedTuple):
    name: str
    gates: int
    states: tuple[str, ...]
    step: Callable  # x, state, weights, option -> next state, gates kept for the backward
    step_backward: Callable  # dstate, x, state, gates, weights, option -> dx, dstate before, dweights


_RNN = _Cell("rnn", 1, ("h",), _rnn_step, _rnn_step_backward)
_GRU = _Cell("gru", 3, ("h",), _gru_step, _gru_step_backward)
_LSTM = _Cell("lstm", 4, ("h", "c"), _lstm_step, _lstm_step_backward)


@_ieee
def _cell_forward(cell, x, state, weights, option, weight_hy, bias_y, output_activation):
    state, w = _check_inputs(cell, x, state, weights, option, ("N",))
    _check_option("output_activation", output_activation, _ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    state_next, gates = cell.step(x, state, w, option)
    if weight_hy is None:
        return *state_next, _Cache(cell.name + "_cell_forward", (x, state, gates, w, option, None))
    M, _ = _check("weight_hy", weight_hy, ("M", state[0].shape[1]), x.dtype)
    if bias_y is not None:
        _check("bias_y", bias_y, (M,), x.dtype)
    y = _ACTIVATIONS[output_activation][0](_affine(state_next[0], weight_hy, bias_y))
    head = (state_next[0], weight_hy, bias_y, output_activation, y)
    return *state_next, y, _Cache(cell.name + "_cell_forward", (x, state, gates, w, option, head))


@_ieee
def _cell_backward(cell, dstate, cache, dy):
    x, state, gates, w, option, head = _kept(cache, cell.name + "_cell_forward")
    dstate = _check_states(["d%s_next" % s for s in cell.states], dstate, state[0].shape, x.dtype)
    head_grads = {}
    if head is None and dy is not None:
        raise ValueError("dy: expected None, as the forward had no weight_hy")
    if head is not None:
        h_next, weight_hy, bias_y, output_activation, y = head
        (dy,) = _check_states(["dy"], (dy,), y.shape, x.dtype)
        da = _ACTIVATIONS[output_activation][1](dy, y)
        dh, dweight_hy, dbias_y = _affine_backward(da, h_next, weight_hy, bias_y)
        dstate = (dstate[0] + dh, *dstate[1:])
        head_grads = {"weight_hy": dweight_hy, "bias_y": dbias_y}
    dx, dstate, dw = cell.step_backward(dstate, x, state, gates, w, option)
    cache.kept = None
    return _name_grads(cell, dx, dstate, dw) | head_grads


@_ieee
def _forward(cell, x, state, weights, option, out, training):
    state, w = _check_inputs(cell, x, state, weights, option, ("T", "N"))
    shape = (len(x), *state[0].shape)
    if out is None:
        out = np.empty(shape, x.dtype)
    _check("out", out, shape, x.dtype, writable=True)
    kept = []
    for t in range(len(x)):
        state_next, gates = cell.step(x[t], state, w, option)
        if training:
            kept.append((x[t], state, gates))
        state = state_next
        out[t] = state[0]
    cache = _Cache(cell.name + "_forward", (x, state[0].shape, kept, w, option)) if training else None
    return out, *(s.copy() for s in state), cache


@_ieee
def _backward(cell, doutput, dstate, cache, into):
    x, state_shape, kept, w, option = _kept(cache, cell.name + "_forward")
    (doutput,) = _check_states(["doutput"], (doutput,), (len(x), *state_shape), x.dtype)
    dstate = _check_states(["d%s_n" % s for s in cell.states], dstate, state_shape, x.dtype)
    dx = np.empty(x.shape, x.dtype)
    dw = _Weights(*(None if a is None else np.zeros(a.shape, a.dtype) for a in w))
    for t in reversed(range(len(x))):
        dstate = (doutput[t] + dstate[0], *dstate[1:])
        dx[t], dstate, dw_t = cell.step_backward(dstate, *kept[t], w, option)
        for total, part in zip(dw, dw_t):
            if total is not None:
                total += part
    grads = _add_into(into, _name_grads(cell, dx, [d.copy() for d in dstate], dw), "weight_ih")
    cache.kept = None
    return grads


def _name_grads(cell, dx, dstate, dw):
    return {"x": dx} | {s + "0": d for s, d in zip(cell.states, dstate)} | dw._asdict()


def _add_into(into: dict[str, Array] | None, grads: dict[str, Maybe], like: str) -> dict[str, Maybe]:
    for name, target in (into or {}).items():
        if grads.get(name) is None:
            keys = ", ".join(key for key, grad in grads.items() if grad is not None)
            raise ValueError("into: expected keys among %s, came %r" % (keys, name))
        _check("into[%r]" % name, target, grads[name].shape, grads[name].dtype, like, writable=True)
    for name, target in (into or {}).items():
        target += grads[name]
    return grads | (into or {})


# --- Checks -----------------------------------------------------------------------------------------------------------


class _Cache:
    """What a forward keeps for its backward, which consumes it."""

    def __init__(self, owner: str, kept: tuple):
        self.owner, self.kept = owner, kept


def _kept(cache: Any, owner: str) -> tuple:
    came = cache.owner if isinstance(cache, _Cache) else type(cache).__name__
    if came != owner:
        raise TypeError("cache: expected the cache of %s in training, came %s" % (owner, came))
    if cache.kept is None:
        raise RuntimeError("cache: already consumed by an earlier backward; run %s again" % owner)
    return cache.kept


def _check_inputs(cell, x, state, weights, option, leading):
    """Check what a forward is given; `leading` names the axes of x before D. Returns the states and `_Weights`."""
    w = _Weights(*weights)
    G = cell.gates
    GH = "%d*H" % G if G > 1 else "H"
    _check("weight_ih", w.weight_ih, (GH, "D"))
    rows, D = w.weight_ih.shape
    if rows % G:
        raise ValueError("weight_ih: expected shape (%s, D), came %s" % (GH, w.weight_ih.shape))
    dtype, H = w.weight_ih.dtype, rows // G
    _check("weight_hh", w.weight_hh, (rows, H), dtype)
    for name, bias in (("bias_ih", w.bias_ih), ("bias_hh", w.bias_hh)):
        if bias is not None:
            _check(name, bias, (rows,), dtype)
    _check("x", x, (*leading, D), dtype)
    state = _check_states([s + "0" for s in cell.states], state, (x.shape[-2], H), dtype)
    if cell is _RNN:
        _check_option("nonlinearity", option, _NONLINEARITIES)
    return state, w


def _check_states(names, arrays, shape, dtype):
    """Arrays of a known shape, of which None stands for zeros."""
    for name, array in zip(names, arrays):
        if array is not None:
            _check(name, array, shape, dtype)
    return tuple(np.zeros(shape, dtype) if array is None else array for array in arrays)


def _check_option(name: str, value: Any, known: dict[str, Any]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError("%s: expected one of %s, came %r" % (name, ", ".join(map(repr, known)), value))


def _check(name, array, shape, dtype=None, like="weight_ih", writable=False):
    """Raise unless `array` is an array of `dtype` and `shape`, in which a letter stands for any size, of
    which only T may be 0. Returns its shape."""
    if not isinstance(array, np.ndarray):
        raise TypeError("%s: expected a NumPy array, came %s" % (name, type(array).__name__))
    if dtype is None and array.dtype not in (np.float32, np.float64):
        raise TypeError("%s: expected float32 or float64, came %s" % (name, array.dtype))
    if dtype is not None and array.dtype != dtype:
        raise TypeError("%s: expected %s like %s, came %s" % (name, dtype, like, array.dtype))
    fits = len(array.shape) == len(shape) and all(
        size == want or want == "T" or (isinstance(want, str) and size > 0) for size, want in zip(array.shape, shape)
    )
    if not fits:
        words = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        hint = " with every size at least 1" if 0 in array.shape else ""
        raise ValueError("%s: expected shape (%s)%s, came %s" % (name, words, hint, array.shape))
    if writable and not array.flags.writeable:
        raise ValueError("%s: expected a writable array, came a read-only one" % name)
    return array.shape
