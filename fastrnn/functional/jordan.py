"""The recurrence of an output that is fed back: an Elman step whose state is projected. Letters as in the package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .. import _native
from .checks import NONLINEARITIES, OUTPUT_ACTIVATIONS, Array, Maybe, need, option

_RNN = _native.CELLS["rnn"]
# What the compiled core calls the arguments: its state is h, projected by weight_hr.
_NAMES = {
    "x": "x",
    "y0": "h0",
    "weight_ih": "weight_ih",
    "weight_yh": "weight_hh",
    "bias_h": "bias_ih",
    "weight_hy": "weight_hr",
    "bias_y": "bias_hr",
}
_OURS = {theirs: ours for ours, theirs in _NAMES.items()} | {"doutput": "dy", "dh_n": "dy_n"}


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Errors of the compiled core name the argument: by the name that it has here."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(":")
        inner = name.removeprefix("into['").removesuffix("']")
        raise type(error)(name.replace(inner, _OURS.get(inner, inner)) + colon + rest) from None


def jordan_forward(
    x: Array,
    y0: Maybe,
    weight_ih: Array,
    weight_yh: Array,
    bias_h: Maybe,
    weight_hy: Array,
    bias_y: Maybe,
    *,
    nonlinearity: str = "tanh",
    output_activation: str = "identity",
    lengths: Any = None,
    reset_mask: Any = None,
    out: Maybe = None,
    training: bool = True,
) -> tuple[Any, ...]:
    """The recurrence of Jordan (1986, Serial order: a parallel distributed processing approach), whose state is its
    own output, over x (T, N, D) from y0 (N, M), running freely:

        h_t = f(W_ih x_t + W_yh y_{t-1} + b_h)      f = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g(W_hy h_t + b_y)                     g = output_activation, any of these or softmax

    weight_ih (H, D); weight_yh (H, M); bias_h (H,) or None; weight_hy (M, H); bias_y (M,) or None.
    Returns y (T, N, M), y_n (N, M) and the cache for one `jordan_backward`, which is None unless training.
    """
    f = option("nonlinearity", nonlinearity, NONLINEARITIES)
    g = option("output_activation", output_activation, OUTPUT_ACTIVATIONS)
    need(weight_yh=weight_yh, weight_hy=weight_hy)
    with _own_names():
        y, y_n, _, cache = _native.forward(
            _RNN,
            f,
            x,
            y0,
            None,
            weight_ih,
            weight_yh,
            bias_h,
            None,
            out,
            training,
            weight_hr=weight_hy,
            bias_hr=bias_y,
            output_activation=g,
            lengths=lengths,
            reset_mask=reset_mask,
        )
    return y, y_n, cache


def jordan_backward(dy: Maybe, dy_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Exact backpropagation through time, through the outputs that were fed back, from dy (T, N, M) and dy_n (N, M),
    each None for zeros. Returns a dict with keys x, y0, weight_ih, weight_yh, bias_h, weight_hy, bias_y; `into` as in
    `rnn_backward`."""
    for name in into or ():
        if name not in _NAMES:
            raise ValueError(f"into: expected keys among {', '.join(_NAMES)}, got {name!r}")
    given = {_NAMES[name]: array for name, array in (into or {}).items()}
    with _own_names():
        gradients = _native.backward("jordan_forward", (_RNN,), cache, dy, dy_n, None, given)
    return {name: gradients.get(ours) for name, ours in _NAMES.items()}
