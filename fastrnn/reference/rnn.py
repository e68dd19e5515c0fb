"""The Elman network. Letters: T time steps, N batch, D input_size, H hidden_size, M outputs."""

from __future__ import annotations

from typing import Any

from .._validate import Array, Maybe, Nonlinearity, OutputActivation, check_array, check_recurrent_weights
from .activations import NONLINEARITIES, Activation, activation_of
from .cache import check_states
from .linear import affine, affine_backward
from .scan import Cell, Checked, Rows, States, Weights, backward, cell_backward, cell_forward, forward


def _step(x: Array, state: States, w: Weights, nonlinearity: Activation, m: Any = 1) -> tuple[States, Array]:
    (h,) = state
    g, _ = nonlinearity
    h_next = g(affine(x, w.weight_ih, w.bias_ih) + affine(m * h, w.weight_hh, w.bias_hh))
    return (h_next,), h_next


def _step_backward(
    dstate: States, x: Array, state: States, h_next: Array, w: Weights, nonlinearity: Activation, m: Any = 1
) -> tuple[Array, States, Weights]:
    (dh_next,), (h,) = dstate, state
    _, g_backward = nonlinearity
    da = g_backward(dh_next, h_next)
    dx, dweight_ih, dbias_ih = affine_backward(da, x, w.weight_ih, w.bias_ih)
    dh, dweight_hh, dbias_hh = affine_backward(da, m * h, w.weight_hh, w.bias_hh)
    return dx, (m * dh,), Weights(dweight_ih, dweight_hh, dbias_ih, dbias_hh)


_RNN = Cell("rnn", ("h",), _step, _step_backward)


def _checked(leading: str, x: Array, h0: Maybe, weights: tuple[Any, Any, Maybe, Maybe], nonlinearity: str) -> Checked:
    """What `cell_forward` and `forward` take; `leading` names the axes of x before D."""
    H, D, dtype = check_recurrent_weights(1, *weights)
    check_array("x", x, (*leading, D), dtype)
    state = check_states(["h0"], (h0,), [(x.shape[-2], H)], dtype)
    return _RNN, x, state, Weights(*weights), activation_of("nonlinearity", nonlinearity, NONLINEARITIES)


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
    """One step of the Elman network (Elman, 1990, Finding structure in time):

        a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        h_t = g(a_t)                    g = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g2(W_hy h_t + b_y)        if weight_hy is given; g2 = output_activation, any of these or softmax

    x (N, D); h0 (N, H) is h_{t-1}, None for zeros; weight_ih (H, D); weight_hh (H, H); bias_ih, bias_hh (H,)
    or None; weight_hy (M, H); bias_y (M,) or None.
    Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    checked = _checked("N", x, h0, (weight_ih, weight_hh, bias_ih, bias_hh), nonlinearity)
    return cell_forward(*checked, weight_hy, bias_y, output_activation)


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, from dh_next (N, H) and dy (N, M), None for zeros.

        da2 = g2'(dy),  dW_hy = da2 h_t^T,  db_y = da2       (softmax: da2 = y * (dy - y.dy))
        dh_t = dh_next + W_hy^T da2
        da   = dh_t * g'(a_t)
        dx_t = W_ih^T da,  dh_{t-1} = W_hh^T da,  dW_ih = da x_t^T,  dW_hh = da h_{t-1}^T,  db_ih = db_hh = da

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh and, if the forward had it, weight_hy
    and bias_y. Keys of biases that were None hold None.
    """
    return cell_backward(_RNN, (dh_next,), cache, dy)


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
    """`rnn_cell_forward` cascaded over x (T, N, D) from h0 (N, H), None for zeros.

    Returns output (T, N, H), h_n (N, H) and the cache for one `rnn_backward`, which is None unless training.
    `out`, an array of output's shape, receives output and is returned. The cache refers to x, output and the
    weights: leave them as they are until the backward.

    lengths, N integers from 0 to T in any order: row n is x[:lengths[n], n] only. Its output is 0 from there on,
    h_n holds its state after its last step (h0 if it has none), and what x holds beyond is never looked at.
    reset_mask (T, N), bool: where it is True the state is zeroed before the step that takes that x; h0 too.
    reverse: time runs from each row's own last step to its first, while x, output and reset_mask stay in
    natural order. Without lengths this equals reversing x, reset_mask and output along T; h_n is the state after
    x[0].
    mask (T, N), bool: where it is False the step is not real. The row's state is carried over it unchanged, output
    there is that state, the output of the step before (before the first real step h0; where none is given zeros, as
    in Keras), and what x holds there is never looked at. A reset at such a step is applied, then the state is
    carried. All may be combined.

    Two kinds of noise for training, whose arrays the caller draws:

        h_{t-1} is m * h_{t-1} before W_hh, nowhere else        m = recurrent_mask (N, H), one for all steps
        h_t = k_t * h_{t-1} + (1 - k_t) * g(a_t)                k_t = zoneout_h[t], of (T, N, H)

    The first is the recurrent dropout of Gal & Ghahramani (2016, A theoretically grounded application of dropout in
    recurrent neural networks): m has 0 with probability p, else 1 / (1 - p). The second is zoneout (Krueger et al.,
    2017, Zoneout: regularizing RNNs by randomly preserving hidden activations): k has 1 with probability p, else 0,
    and in evaluation p. No gradient of either is given.
    """
    checked = _checked("TN", x, h0, (weight_ih, weight_hh, bias_ih, bias_hh), nonlinearity)
    told = Rows(lengths, reset_mask, mask, recurrent_mask, (zoneout_h,))
    return forward(*checked, told, reverse, out, training)


def rnn_backward(doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Backpropagation through time, from doutput (T, N, H) and dh_n (N, H), each None for zeros.

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh. `into`, a dict of arrays under any of
    these keys, has the gradients of that name added to it; the returned dict then holds those arrays.
    With into["x"] = None the gradient of x is left out.

    With lengths, dh_n enters at each row's last step (or goes to h0, where it has none), doutput beyond the end is
    never looked at and x's gradient there is 0. A reset cuts the gradient: none passes to the step before, or to h0.
    A step that mask marks as not real hands the gradient of its output on to the step before, and dx there is 0.
    """
    return backward(_RNN, doutput, (dh_n,), cache, into)
