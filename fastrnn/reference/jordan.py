"""Output feedback. Letters: T time steps, N batch, D input_size, H hidden_size, M outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._validate import Array, Maybe, Nonlinearity, OutputActivation, check_jordan_arrays
from .activations import NONLINEARITIES, OUTPUT_ACTIVATIONS, Activation, activation_of
from .cache import check_states
from .linear import affine, affine_backward
from .scan import Cell, Rows, States, backward, forward


class _Weights(NamedTuple):
    weight_ih: Array  # (H, D)
    weight_yh: Array  # (H, M)
    bias_h: Maybe  # (H,)
    weight_hy: Array  # (M, H)
    bias_y: Maybe  # (M,)


def _step(x: Array, state: States, w: _Weights, options: tuple[Activation, Activation]) -> tuple[States, States]:
    (y,) = state
    (f, _), (g, _) = options
    h = f(affine(x, w.weight_ih, w.bias_h) + affine(y, w.weight_yh, None))
    y_next = g(affine(h, w.weight_hy, w.bias_y))
    return (y_next,), (h, y_next)


def _step_backward(
    dstate: States, x: Array, state: States, gates: States, w: _Weights, options: tuple[Activation, Activation]
) -> tuple[Array, States, _Weights]:
    (dy_next,), (y,), (h, y_next) = dstate, state, gates
    (_, f_backward), (_, g_backward) = options
    dh, dweight_hy, dbias_y = affine_backward(g_backward(dy_next, y_next), h, w.weight_hy, w.bias_y)
    da = f_backward(dh, h)
    dx, dweight_ih, dbias_h = affine_backward(da, x, w.weight_ih, w.bias_h)
    dy, dweight_yh, _ = affine_backward(da, y, w.weight_yh, None)
    return dx, (dy,), _Weights(dweight_ih, dweight_yh, dbias_h, dweight_hy, dbias_y)


_JORDAN = Cell("jordan", ("y",), _step, _step_backward, output="y")


def jordan_forward(
    x: Array,
    y0: Maybe,
    weight_ih: Array,
    weight_yh: Array,
    bias_h: Maybe,
    weight_hy: Array,
    bias_y: Maybe,
    *,
    nonlinearity: Nonlinearity = "tanh",
    output_activation: OutputActivation = "identity",
    lengths: Any = None,
    reset_mask: Any = None,
    mask: Any = None,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """The recurrence of Jordan (1986, Serial order: a parallel distributed processing approach), whose state is its
    own output, over x (T, N, D) from y0 (N, M), None for zeros, running freely:

        h_t = f(W_ih x_t + W_yh y_{t-1} + b_h)      f = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g(W_hy h_t + b_y)                     g = output_activation, any of these or softmax

    weight_ih (H, D); weight_yh (H, M); bias_h (H,) or None; weight_hy (M, H); bias_y (M,) or None.
    Returns y (T, N, M), y_n (N, M) and the cache for one `jordan_backward`, which is None unless training. lengths,
    reset_mask, mask and out as in `rnn_forward`; a reset zeroes the output that is fed back.

    With targets in the place of y_{t-1} (teacher forcing) the steps no longer depend on each other: one linear map
    of the concatenated [x_t; target_{t-1}] and f, then a second and g, for all t at once.
    """
    w = _Weights(weight_ih, weight_yh, bias_h, weight_hy, bias_y)
    M, dtype = check_jordan_arrays(x, y0, *w)
    state = check_states(["y0"], (y0,), [(x.shape[1], M)], dtype)
    f = activation_of("nonlinearity", nonlinearity, NONLINEARITIES)
    g = activation_of("output_activation", output_activation, OUTPUT_ACTIVATIONS)
    return forward(_JORDAN, x, state, w, (f, g), Rows(lengths, reset_mask, mask), False, out, training)


def jordan_backward(dy: Maybe, dy_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Exact backpropagation through time, through the outputs that were fed back, from dy (T, N, M) and dy_n (N, M),
    each None for zeros. With dy_t the sum of both kinds of gradient that reach y_t:

        da_y = dy_t * g',  dW_hy = da_y h_t^T,  db_y = da_y           (softmax: da_y = y_t * (dy_t - y_t.dy_t))
        da_h = (W_hy^T da_y) * f'
        dx_t = W_ih^T da_h,  dy_{t-1} = W_yh^T da_h,  dW_ih = da_h x_t^T,  dW_yh = da_h y_{t-1}^T,  db_h = da_h

    Returns a dict with keys x, y0, weight_ih, weight_yh, bias_h, weight_hy, bias_y; `into` as in `rnn_backward`.
    """
    return backward(_JORDAN, dy, (dy_n,), cache, into)
