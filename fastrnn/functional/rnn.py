"""Every cell over a sequence, and one step of each with the output of RNN textbooks. Letters, and what all sequence functions take, as in the package."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from .. import _native
from .activations import ACTIVATIONS
from .checks import GATE_ACTIVATIONS, NONLINEARITIES, Array, Maybe, check, need, option, positive
from .linear import linear_backward, linear_map

_LSTM, _RNN = _native.CELLS["lstm"], _native.CELLS["rnn"]
_GRU = {True: _native.CELLS["gru"], False: _native.CELLS["gru_reset_before"]}
_GRUS = tuple(_GRU.values())


def rnn_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    reset_mask: Any = None,
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
    activation = option("nonlinearity", nonlinearity, NONLINEARITIES)
    need(weight_hh=weight_hh)
    output, h_n, _, cache = _native.forward(
        _RNN,
        activation,
        x,
        h0,
        None,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        out,
        training,
        lengths=lengths,
        reset_mask=reset_mask,
        reverse=reverse,
    )
    return output, h_n, cache


def rnn_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time, from doutput (T, N, H) and dh_n (N, H), each None for zeros.

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh; biases that were None have None. `into`, a
    dict of arrays under any of these keys, has the gradients of that name added to it; the returned dict then holds
    those arrays. With into["x"] = None the gradient of x is not computed.
    """
    return _native.backward("rnn_forward", (_RNN,), cache, doutput, dh_n, None, into)


def gru_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    reset_after: bool = True,
    gate_activation: str = "sigmoid",
    activation: str = "tanh",
    lengths: Any = None,
    reset_mask: Any = None,
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
    need(weight_hh=weight_hh)
    output, h_n, _, cache = _native.forward(
        _GRU[bool(reset_after)],
        option("activation", activation, NONLINEARITIES),
        x,
        h0,
        None,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        out,
        training,
        gate_activation=option("gate_activation", gate_activation, GATE_ACTIVATIONS),
        lengths=lengths,
        reset_mask=reset_mask,
        reverse=reverse,
    )
    return output, h_n, cache


def gru_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`."""
    return _native.backward("gru_forward", _GRUS, cache, doutput, dh_n, None, into)


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
    gate_activation: str = "sigmoid",
    activation: str = "tanh",
    cell_clip: float | None = None,
    lengths: Any = None,
    reset_mask: Any = None,
    reverse: bool = False,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate of Gers et al., 2000), gates i, f, g, o:

        i, f, o = s(W_i* x_t + b_i* + W_h* h_{t-1} + b_h*)
        g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    weight_hr (P, H): a projection, h_t = W_hr (o * tanh(c_t)), PyTorch's proj_size (Sak et al., 2014); h0, h_n and output
    are P wide then, and weight_hh is (4H, P). weight_peephole (3H,), p_i, p_f, p_o: i and f see p * c_{t-1}, o sees
    p_o * c_t (Gers & Schmidhuber, 2000; ONNX's P in another order). gate_activation and activation (of g and of c_t) as
    in `gru_forward`. cell_clip: a positive number that what goes into any activation is clipped to, ONNX's clip.

    Returns output (T, N, H), h_n (N, H), c_n (N, H) and the cache; the rest as in `rnn_forward`.
    """
    need(weight_hh=weight_hh)
    return _native.forward(
        _LSTM,
        option("activation", activation, NONLINEARITIES),
        x,
        h0,
        c0,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        out,
        training,
        gate_activation=option("gate_activation", gate_activation, GATE_ACTIVATIONS),
        clip=None if cell_clip is None else positive("cell_clip", cell_clip),
        weight_hr=weight_hr,
        weight_peephole=weight_peephole,
        lengths=lengths,
        reset_mask=reset_mask,
        reverse=reverse,
    )


def lstm_backward(
    doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time, also from dc_n (N, H); the dict has c0 too and, where the forward had them,
    weight_hr and weight_peephole. The rest is as in `rnn_backward`."""
    return _native.backward("lstm_forward", (_LSTM,), cache, doutput, dh_n, dc_n, into)


# --- One step ----------------------------------------------------------------------------------------------------


def rnn_cell_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    nonlinearity: str = "tanh",
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: str = "identity",
) -> tuple[Any, ...]:
    """One step of `rnn_forward`: x (N, D) and the state before it, h0 (N, H).

    With weight_hy (M, H) and bias_y (M,) or None it also computes y_t = g2(W_hy h_t + b_y), g2 = output_activation:
    identity, tanh, relu, sigmoid or softmax. Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    return _cell_forward(
        "rnn",
        rnn_forward,
        x,
        (h0,),
        (weight_ih, weight_hh, bias_ih, bias_hh),
        {"nonlinearity": nonlinearity},
        weight_hy,
        bias_y,
        output_activation,
    )


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step from dh_next (N, H) and dy (N, M), None for zeros: a dict with the keys of `rnn_backward`
    and, where the forward had it, weight_hy and bias_y."""
    return _cell_backward("rnn", rnn_backward, (dh_next,), cache, dy)


def gru_cell_forward(
    x: Array,
    h0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    *,
    reset_after: bool = True,
    gate_activation: str = "sigmoid",
    activation: str = "tanh",
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: str = "identity",
) -> tuple[Any, ...]:
    """One step of `gru_forward`; arguments and returned values as in `rnn_cell_forward`."""
    return _cell_forward(
        "gru",
        gru_forward,
        x,
        (h0,),
        (weight_ih, weight_hh, bias_ih, bias_hh),
        {"reset_after": reset_after, "gate_activation": gate_activation, "activation": activation},
        weight_hy,
        bias_y,
        output_activation,
    )


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, as in `rnn_cell_backward`."""
    return _cell_backward("gru", gru_backward, (dh_next,), cache, dy)


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
    gate_activation: str = "sigmoid",
    activation: str = "tanh",
    cell_clip: float | None = None,
    weight_hy: Maybe = None,
    bias_y: Maybe = None,
    output_activation: str = "identity",
) -> tuple[Any, ...]:
    """One step of `lstm_forward`: returns h_next, c_next, cache; with weight_hy: h_next, c_next, y, cache."""
    options = {
        "weight_hr": weight_hr,
        "weight_peephole": weight_peephole,
        "gate_activation": gate_activation,
        "activation": activation,
        "cell_clip": cell_clip,
    }
    return _cell_forward(
        "lstm",
        lstm_forward,
        x,
        (h0, c0),
        (weight_ih, weight_hh, bias_ih, bias_hh),
        options,
        weight_hy,
        bias_y,
        output_activation,
    )


def lstm_cell_backward(dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, also from dc_next (N, H); the dict has c0 too."""
    return _cell_backward("lstm", lstm_backward, (dh_next, dc_next), cache, dy)


class _CellCache:
    """What one step keeps: the cache of its sequence of T = 1, and its output, if it has one."""

    def __init__(self, kind: str, sequence: Any, state: list[Array], head: tuple | None):
        self.kind, self.sequence, self.head = kind, sequence, head
        self.state_shapes, self.dtype = [part.shape for part in state], state[0].dtype


def _cell_forward(
    kind: str,
    forward: Callable,
    x: Any,
    state: tuple,
    weights: tuple,
    options: dict,
    weight_hy: Maybe,
    bias_y: Maybe,
    output_activation: str,
) -> tuple[Any, ...]:
    option("output_activation", output_activation, ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected shape (N, D), got {np.shape(x)}")
    _, *next_state, sequence = forward(x[None], *state, *weights, **options)
    if weight_hy is None:
        return *next_state, _CellCache(kind, sequence, next_state, None)
    h = next_state[0]
    if np.ndim(weight_hy) != 2 or np.shape(weight_hy)[1] != h.shape[1]:
        raise ValueError(f"weight_hy: expected shape (M, {h.shape[1]}), got {np.shape(weight_hy)}")
    check(weight_hy, "weight_hy", weight_hy.shape, h.dtype)
    a, linear = linear_map(h, weight_hy, bias_y, ("h", "weight_hy", "bias_y"))
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN follow IEEE arithmetic, silently
        y = ACTIVATIONS[output_activation][0](a)
    return *next_state, y, _CellCache(kind, sequence, next_state, (linear, output_activation, y))


def _cell_backward(kind: str, backward: Callable, dstate: tuple, cache: Any, dy: Maybe) -> dict[str, Maybe]:
    if not isinstance(cache, _CellCache) or cache.kind != kind:
        got = f"{cache.kind}_cell_forward" if isinstance(cache, _CellCache) else type(cache).__name__
        raise TypeError(f"cache: expected the cache of {kind}_cell_forward, got {got}")
    for name, array, shape in zip(("dh_next", "dc_next"), dstate, cache.state_shapes):
        if array is not None:
            check(array, name, shape, cache.dtype)
    if cache.head is None:
        if dy is not None:
            raise ValueError("dy: expected None, as the forward had no weight_hy")
        gradients = backward(None, *dstate, cache.sequence)
        return gradients | {"x": gradients["x"][0]}
    linear, output_activation, y = cache.head
    if dy is None:
        dy = np.zeros_like(y)
    check(dy, "dy", y.shape, y.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        da = ACTIVATIONS[output_activation][1](dy, y)
    head = linear_backward(da, linear)
    gradients = backward(head["x"][None], *dstate, cache.sequence)
    return gradients | {"x": gradients["x"][0], "weight_hy": head["weight"], "bias_y": head["bias"]}
