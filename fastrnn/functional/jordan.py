"""The recurrence of an output that is fed back: an Elman step whose state is projected. Letters as in the package."""

from __future__ import annotations

from typing import Any

from .. import _native
from .._validate import Array, Maybe, Nonlinearity, OutputActivation, check_array, check_jordan_arrays
from .spec import spec_of

# What the compiled core calls the arrays: its state is h, projected by weight_hr.
_NAMES = {
    "x": "x",
    "y0": "h0",
    "weight_ih": "weight_ih",
    "weight_yh": "weight_hh",
    "bias_h": "bias_ih",
    "weight_hy": "weight_hr",
    "bias_y": "bias_hr",
}


class _JordanCache:
    """The compiled core's cache, and what tells in errors of the backward which argument was wrong."""

    __slots__ = ("arrays", "sequence", "y")

    def __init__(self, sequence: Any, y: Array, arrays: tuple[Any, ...]) -> None:
        self.sequence, self.y, self.arrays = sequence, y, arrays


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
    own output, over x (T, N, D) from y0 (N, M), running freely:

        h_t = f(W_ih x_t + W_yh y_{t-1} + b_h)      f = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g(W_hy h_t + b_y)                     g = output_activation, any of these or softmax

    weight_ih (H, D); weight_yh (H, M); bias_h (H,) or None; weight_hy (M, H); bias_y (M,) or None.
    Returns y (T, N, M), y_n (N, M) and the cache for one `jordan_backward`, which is None unless training.
    """
    if weight_yh is None or weight_hy is None:
        name = "weight_yh" if weight_yh is None else "weight_hy"
        raise TypeError(f"{name}: expected a NumPy array, got NoneType")
    spec = spec_of("rnn", nonlinearity, "sigmoid", None, True, True, False, output_activation)
    arrays = (x, y0, weight_ih, weight_yh, bias_h, weight_hy, bias_y)
    try:
        y, y_n, _, cache = _native.forward(
            spec.compiled,
            x,
            h0=y0,
            weight_ih=weight_ih,
            weight_hh=weight_yh,
            bias_ih=bias_h,
            weight_hr=weight_hy,
            bias_hr=bias_y,
            lengths=lengths,
            reset_mask=reset_mask,
            mask=mask,
            out=out,
            training=training,
        )
    except (TypeError, ValueError):
        check_jordan_arrays(*arrays)  # the same error by the names of this function
        raise
    return y, y_n, _JordanCache(cache, y, arrays) if training else None


def jordan_backward(dy: Maybe, dy_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """Exact backpropagation through time, through the outputs that were fed back, from dy (T, N, M) and dy_n (N, M),
    each None for zeros. Returns a dict with keys x, y0, weight_ih, weight_yh, bias_h, weight_hy, bias_y; `into` as in
    `rnn_backward`."""
    if not isinstance(cache, _JordanCache):
        raise TypeError(f"cache: expected the cache of jordan_forward in training, got {type(cache).__name__}")
    for name in into or ():
        if name not in _NAMES:
            raise ValueError(f"into: expected keys among {', '.join(_NAMES)}, got {name!r}")
    given = {_NAMES[name]: array for name, array in (into or {}).items()}
    try:
        gradients = _native.backward(cache.sequence, dy, dy_n, None, given)
    except (TypeError, ValueError):
        _check_gradients(dy, dy_n, cache, into or {})  # the same error by the names of this function
        raise
    cache.arrays = ()  # used up
    return {name: gradients.get(ours) for name, ours in _NAMES.items()}


def _check_gradients(dy: Maybe, dy_n: Maybe, cache: _JordanCache, into: dict[str, Array]) -> None:
    y, arrays = cache.y, dict(zip(_NAMES, cache.arrays))
    wanted: dict[str, tuple[Maybe, tuple[int, ...]]] = {"dy": (dy, y.shape), "dy_n": (dy_n, y.shape[1:])}
    for name, target in into.items():
        like = arrays[name]
        if like is None and name.startswith("bias"):
            keys = ", ".join(key for key in _NAMES if key == "y0" or arrays[key] is not None)
            raise ValueError(f"into: expected keys among {keys}, got {name!r}")
        wanted[f"into[{name!r}]"] = target, y.shape[1:] if like is None else like.shape
    for name, (array, shape) in wanted.items():
        if array is not None:
            check_array(name, array, shape, y.dtype, writable=name.startswith("into"))
