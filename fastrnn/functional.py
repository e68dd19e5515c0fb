"""The stateless core: forward and backward of every cell and sequence, compiled.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates (RNN 1, GRU 3, LSTM 4), M outputs.
`fastrnn.reference` has the same functions with the same signatures in plain NumPy, and the derivations; what stands here
are the shapes and equations that a caller needs.

Arrays of one call share one dtype, float32 or float64. Sequences are time-major, x (T, N, D), output (T, N, H), and may
be strided views (`x[::-1]`, a batch-first array's `swapaxes(0, 1)`, a slice of a wider output): only the last axis has to
be contiguous, other arrays are copied first. weight_ih is (G*H, D), weight_hh (G*H, H), bias_ih and bias_hh (G*H,) or
None, gates stacked in PyTorch's order. States are (N, H); None stands for zeros.

Errors name the argument, what was expected and what came: TypeError for a wrong type or dtype, ValueError for a wrong
shape or an unknown option, RuntimeError for a cache that an earlier backward has consumed.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
from numpy.typing import NDArray

from . import _native
from .activations import ACTIVATIONS

__all__ = [
    "rnn_cell_forward", "rnn_cell_backward", "rnn_forward", "rnn_backward",
    "gru_cell_forward", "gru_cell_backward", "gru_forward", "gru_backward",
    "lstm_cell_forward", "lstm_cell_backward", "lstm_forward", "lstm_backward",
    "linear_forward", "linear_backward", "jordan_forward", "jordan_backward",
]  # fmt: skip

Array = NDArray[Any]
Maybe = Optional[Array]

_LSTM, _RNN = _native.CELLS["lstm"], _native.CELLS["rnn"]
_GRU = {True: _native.CELLS["gru"], False: _native.CELLS["gru_reset_before"]}
_GRUS = tuple(_GRU.values())
_NONLINEARITIES = _native.ACTIVATIONS


# --- Sequences --------------------------------------------------------------------------------------------------------


def rnn_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    nonlinearity: str = "tanh", out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """An Elman network (Elman, 1990, Finding structure in time) over a sequence:

        h_t = g(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)        g = nonlinearity: tanh, relu, sigmoid or identity

    Returns output (T, N, H), h_n (N, H) and the cache for one `rnn_backward`, which is None unless training. `out`, an
    array of output's shape, receives output and is returned. The cache refers to x, output and the weights: leave them
    as they are until the backward.
    """
    activation = _option("nonlinearity", nonlinearity, _NONLINEARITIES)
    _need(weight_hh)
    output, h_n, _, cache = _native.forward(
        _RNN, activation, x, h0, None, weight_ih, weight_hh, bias_ih, bias_hh, out, training)
    return output, h_n, cache


def rnn_backward(
    doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time, from doutput (T, N, H) and dh_n (N, H), each None for zeros.

    Returns a dict with keys x, h0, weight_ih, weight_hh, bias_ih, bias_hh; biases that were None have None. `into`, a
    dict of arrays under any of these keys, has the gradients of that name added to it; the returned dict then holds
    those arrays.
    """
    return _native.backward("rnn_forward", (_RNN,), cache, doutput, dh_n, None, into)


def gru_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    reset_after: bool = True, out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """A gated recurrent unit over a sequence, gates in the order r, z, n (s is the logistic sigmoid):

        r = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                     reset gate
        z = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                     update gate
        n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn))            candidate, reset_after=True
        n = tanh(W_in x_t + b_in + W_hn (r * h_{t-1}) + b_hn)            candidate, reset_after=False
        h_t = (1 - z) * n + z * h_{t-1}

    reset_after=True is the form of PyTorch, cuDNN and Keras; False that of Cho et al. (2014, Learning phrase
    representations using RNN encoder-decoder) and ONNX's default. Arguments and returned values as in `rnn_forward`.
    """
    _need(weight_hh)
    output, h_n, _, cache = _native.forward(
        _GRU[bool(reset_after)], 0, x, h0, None, weight_ih, weight_hh, bias_ih, bias_hh, out, training)
    return output, h_n, cache


def gru_backward(
    doutput: Maybe, dh_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time; arguments and the returned dict as in `rnn_backward`."""
    return _native.backward("gru_forward", _GRUS, cache, doutput, dh_n, None, into)


def lstm_forward(
    x: Array, h0: Maybe, c0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate of Gers et al., 2000), gates i, f, g, o:

        i, f, o = s(W_i* x_t + b_i* + W_h* h_{t-1} + b_h*)
        g = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Returns output (T, N, H), h_n (N, H), c_n (N, H) and the cache; the rest as in `rnn_forward`.
    """
    _need(weight_hh)
    return _native.forward(_LSTM, 0, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, out, training)


def lstm_backward(
    doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time, also from dc_n (N, H); the dict has c0 too, the rest is as in `rnn_backward`."""
    return _native.backward("lstm_forward", (_LSTM,), cache, doutput, dh_n, dc_n, into)


# --- Cells: one step, with the output of RNN textbooks ----------------------------------------------------------------


def rnn_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    nonlinearity: str = "tanh", weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `rnn_forward`: x (N, D) and the state before it, h0 (N, H).

    With weight_hy (M, H) and bias_y (M,) or None it also computes y_t = g2(W_hy h_t + b_y), g2 = output_activation:
    identity, tanh, relu, sigmoid or softmax. Returns h_next (N, H), cache; with weight_hy: h_next, y (N, M), cache.
    """
    return _cell_forward("rnn", rnn_forward, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh),
                         {"nonlinearity": nonlinearity}, weight_hy, bias_y, output_activation)  # fmt: skip


def rnn_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step from dh_next (N, H) and dy (N, M), None for zeros: a dict with the keys of `rnn_backward`
    and, where the forward had it, weight_hy and bias_y."""
    return _cell_backward("rnn", rnn_backward, (dh_next,), cache, dy)


def gru_cell_forward(
    x: Array, h0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    reset_after: bool = True, weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `gru_forward`; arguments and returned values as in `rnn_cell_forward`."""
    return _cell_forward("gru", gru_forward, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh),
                         {"reset_after": reset_after}, weight_hy, bias_y, output_activation)  # fmt: skip


def gru_cell_backward(dh_next: Maybe, cache: Any, *, dy: Maybe = None) -> dict[str, Maybe]:
    """Gradients of one step, as in `rnn_cell_backward`."""
    return _cell_backward("gru", gru_backward, (dh_next,), cache, dy)


def lstm_cell_forward(
    x: Array, h0: Maybe, c0: Maybe, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, *,
    weight_hy: Maybe = None, bias_y: Maybe = None, output_activation: str = "identity",
) -> tuple[Any, ...]:  # fmt: skip
    """One step of `lstm_forward`: returns h_next, c_next, cache; with weight_hy: h_next, c_next, y, cache."""
    return _cell_forward("lstm", lstm_forward, x, (h0, c0), (weight_ih, weight_hh, bias_ih, bias_hh), {},
                         weight_hy, bias_y, output_activation)  # fmt: skip


def lstm_cell_backward(
    dh_next: Maybe, dc_next: Maybe, cache: Any, *, dy: Maybe = None
) -> dict[str, Maybe]:
    """Gradients of one step, also from dc_next (N, H); the dict has c0 too."""
    return _cell_backward("lstm", lstm_backward, (dh_next, dc_next), cache, dy)


class _CellCache:
    """What one step keeps: the cache of its sequence of T = 1, and its output, if it has one."""

    def __init__(self, kind: str, sequence: Any, h: Array, head: tuple | None):
        self.kind, self.sequence, self.head = kind, sequence, head
        self.state_shape, self.dtype = h.shape, h.dtype


def _cell_forward(kind: str, forward: Callable, x: Any, state: tuple, weights: tuple, options: dict,
                  weight_hy: Maybe, bias_y: Maybe, output_activation: str) -> tuple[Any, ...]:  # fmt: skip
    _option("output_activation", output_activation, ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected shape (N, D), came {np.shape(x)}")
    _, *next_state, sequence = forward(x[None], *state, *weights, **options)
    if weight_hy is None:
        return *next_state, _CellCache(kind, sequence, next_state[0], None)
    h = next_state[0]
    if np.ndim(weight_hy) != 2 or np.shape(weight_hy)[1] != h.shape[1]:
        raise ValueError(f"weight_hy: expected shape (M, {h.shape[1]}), came {np.shape(weight_hy)}")
    _check(weight_hy, "weight_hy", weight_hy.shape, h.dtype)
    a, linear = _linear_forward(h, weight_hy, bias_y, ("h", "weight_hy", "bias_y"))
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN follow IEEE arithmetic, silently
        y = ACTIVATIONS[output_activation][0](a)
    return *next_state, y, _CellCache(kind, sequence, h, (linear, output_activation, y))


def _cell_backward(kind: str, backward: Callable, dstate: tuple, cache: Any, dy: Maybe) -> dict[str, Maybe]:
    if not isinstance(cache, _CellCache) or cache.kind != kind:
        came = f"{cache.kind}_cell_forward" if isinstance(cache, _CellCache) else type(cache).__name__
        raise TypeError(f"cache: expected the cache of {kind}_cell_forward, came {came}")
    for name, array in zip(("dh_next", "dc_next"), dstate):
        if array is not None:
            _check(array, name, cache.state_shape, cache.dtype)
    if cache.head is None:
        if dy is not None:
            raise ValueError("dy: expected None, as the forward had no weight_hy")
        gradients = backward(None, *dstate, cache.sequence)
        return gradients | {"x": gradients["x"][0]}
    linear, output_activation, y = cache.head
    if dy is None:
        dy = np.zeros_like(y)
    _check(dy, "dy", y.shape, y.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        da = ACTIVATIONS[output_activation][1](dy, y)
    head = linear_backward(da, linear)
    gradients = backward(head["x"][None], *dstate, cache.sequence)
    return gradients | {"x": gradients["x"][0], "weight_hy": head["weight"], "bias_y": head["bias"]}


# --- Linear -----------------------------------------------------------------------------------------------------------


def linear_forward(x: Array, weight: Array, bias: Maybe = None, *, training: bool = True) -> tuple[Array, Any]:
    """y = W x + b on the last axis: x (..., D), weight (M, D), bias (M,) or None -> y (..., M) and the cache, which is
    None unless training.

    The recurrent kernels compute it too: no second library's threads wake up between two recurrent layers.
    """
    return _linear_forward(x, weight, bias, ("x", "weight", "bias"), training)


def linear_backward(dy: Array, cache: Any, *, into: dict[str, Array] | None = None) -> dict[str, Maybe]:
    """dx = W^T dy, dW = sum of dy x^T, db = sum of dy: a dict with keys x, weight, bias. `into` as in `rnn_backward`."""
    if not isinstance(cache, _LinearCache):
        raise TypeError(f"cache: expected the cache of linear_forward, came {type(cache).__name__}")
    _check(dy, "dy", (*cache.shape[:-1], cache.outputs), cache.dtype)
    given = {}
    for name, array in (into or {}).items():
        if name not in _LINEAR_KEYS:
            raise ValueError(f"into: expected keys among {', '.join(_LINEAR_KEYS)}, came {name!r}")
        given[_LINEAR_KEYS[name]] = array
    dx = given.pop("x", None)
    if dx is not None:
        _check(dx, "into['x']", cache.shape, cache.dtype)
        if dx.flags.c_contiguous:
            given["x"] = _rows(dx)
    gradients = _native.backward("linear_forward", (_RNN,), cache.sequence, _rows(dy), None, None, given)
    if dx is None:
        dx = gradients["x"].reshape(cache.shape)
    elif not dx.flags.c_contiguous:
        dx += gradients["x"].reshape(cache.shape)
    return {"x": dx, "weight": gradients["weight_ih"], "bias": gradients["bias_ih"]}


def _rows(x: Array) -> Array:
    """x (..., D) as one time step with all rows in its batch; no rows are a sequence of T = 0."""
    return x.reshape(1, -1, x.shape[-1]) if x.size else x.reshape(0, 1, x.shape[-1])


_LINEAR_KEYS = {"x": "x", "weight": "weight_ih", "bias": "bias_ih"}


class _LinearCache:
    def __init__(self, sequence: Any, shape: tuple[int, ...], outputs: int, dtype: np.dtype):
        self.sequence, self.shape, self.outputs, self.dtype = sequence, shape, outputs, dtype


def _linear_forward(
    x: Array, weight: Array, bias: Maybe, names: tuple[str, str, str], training: bool = True
) -> tuple[Array, Any]:
    if not isinstance(weight, np.ndarray) or weight.ndim != 2 or not weight.size:
        raise (ValueError if isinstance(weight, np.ndarray) else TypeError)(
            f"{names[1]}: expected an array of shape (M, D), came {np.shape(weight)}")
    if weight.dtype not in (np.float32, np.float64):
        raise TypeError(f"{names[1]}: expected float32 or float64, came {weight.dtype}")
    M, D = weight.shape
    _check(x, names[0], (*np.shape(x)[:-1], D), weight.dtype)
    if bias is not None:
        _check(bias, names[2], (M,), weight.dtype)
    y, _, _, sequence = _native.forward(
        _RNN, _NONLINEARITIES["identity"], _rows(x), None, None, weight, None, bias, None, None, training)
    return y.reshape(*x.shape[:-1], M), _LinearCache(sequence, x.shape, M, weight.dtype) if training else None


# --- Output feedback --------------------------------------------------------------------------------------------------


def jordan_forward(
    x: Array, y0: Maybe, weight_ih: Array, weight_yh: Array, bias_h: Maybe, weight_hy: Array, bias_y: Maybe, *,
    nonlinearity: str = "tanh", output_activation: str = "identity", lengths: Any = None, reset_mask: Any = None,
    out: Maybe = None, training: bool = True,
) -> tuple[Any, ...]:  # fmt: skip
    """The recurrence of Jordan (1986, Serial order: a parallel distributed processing approach), whose state is its own
    output, running freely over x (T, N, D) from y0 (N, M), None for zeros:

        h_t = f(W_ih x_t + W_yh y_{t-1} + b_h)      f = nonlinearity: tanh, relu, sigmoid or identity
        y_t = g(W_hy h_t + b_y)                     g = output_activation, any of these or softmax

    weight_ih (H, D); weight_yh (H, M); bias_h (H,) or None; weight_hy (M, H); bias_y (M,) or None.
    Returns y (T, N, M), y_n (N, M) and the cache for one `jordan_backward`, which is None unless training. lengths (N,)
    of 0..T: outputs past a length are 0, y_n is the last valid one. reset_mask (T, N) of booleans: where True the output
    that is fed back to that step is zeroed. `out` as in `rnn_forward`.
    """
    _option("nonlinearity", nonlinearity, _NONLINEARITIES)
    _option("output_activation", output_activation, ACTIVATIONS)
    for name, weight in (("weight_ih", weight_ih), ("weight_hy", weight_hy)):
        if not isinstance(weight, np.ndarray) or weight.ndim != 2:
            came = np.shape(weight) if isinstance(weight, np.ndarray) else type(weight).__name__
            letters = "(H, D)" if name == "weight_ih" else "(M, H)"
            raise (ValueError if isinstance(weight, np.ndarray) else TypeError)(
                f"{name}: expected an array of shape {letters}, came {came}")
    if weight_ih.dtype not in (np.float32, np.float64):
        raise TypeError(f"weight_ih: expected float32 or float64, came {weight_ih.dtype}")
    (H, D), M, dtype = weight_ih.shape, len(weight_hy), weight_ih.dtype
    _check(weight_hy, "weight_hy", (M, H), dtype)
    _check(weight_yh, "weight_yh", (H, M), dtype)
    for name, bias, size in (("bias_h", bias_h, H), ("bias_y", bias_y, M)):
        if bias is not None:
            _check(bias, name, (size,), dtype)
    if np.ndim(x) != 3:
        raise ValueError(f"x: expected shape (T, N, {D}), came {np.shape(x)}")
    T, N, _ = x.shape
    _check(x, "x", (T, N, D), dtype)
    if y0 is not None:
        _check(y0, "y0", (N, M), dtype)
    valid = None if lengths is None else _valid_steps(lengths, T, N)
    if reset_mask is not None:
        _check(reset_mask, "reset_mask", (T, N), np.dtype(bool))
    if out is None:
        out = np.empty((T, N, M), dtype)
    _check(out, "out", (T, N, M), dtype)

    f, g = ACTIVATIONS[nonlinearity][0], ACTIVATIONS[output_activation][0]
    if valid is not None:
        x = np.where(valid[:, :, None], x, 0)  # so that what lies past the end does not reach the weights' gradients
    if D:
        inputs, linear = linear_forward(x, weight_ih, bias_h, training=training)
    else:
        inputs, linear = np.broadcast_to(np.zeros(H, dtype) if bias_h is None else bias_h, (T, N, H)), None
    hidden, fed = (np.empty((T if training else 0, N, size), dtype) for size in (H, M))
    y = np.zeros((N, M), dtype) if y0 is None else y0
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(T):
            back = y if reset_mask is None else np.where(reset_mask[t][:, None], 0, y).astype(dtype, copy=False)
            h = f(inputs[t] + linear_forward(back, weight_yh, training=False)[0])
            y_next = g(linear_forward(h, weight_hy, bias_y, training=False)[0])
            if training:
                hidden[t], fed[t] = h, back
            if valid is None:
                out[t] = y = y_next
            else:
                v = valid[t][:, None]
                out[t], y = np.where(v, y_next, 0), np.where(v, y_next, y)
    y_n = y.copy()
    if not training:
        return out, y_n, None
    weights = (weight_ih, weight_yh, bias_h, weight_hy, bias_y)
    return out, y_n, _JordanCache((nonlinearity, output_activation), weights, linear, hidden, fed, out, valid, reset_mask)


def jordan_backward(
    dy: Maybe, dy_n: Maybe, cache: Any, *, into: dict[str, Array] | None = None
) -> dict[str, Maybe]:
    """Backpropagation through time and through the outputs that were fed back, from dy (T, N, M) and dy_n (N, M), each
    None for zeros. Returns a dict with keys x, y0, weight_ih, weight_yh, bias_h, weight_hy, bias_y; `into` as in
    `rnn_backward`."""
    if not isinstance(cache, _JordanCache):
        raise TypeError(f"cache: expected the cache of jordan_forward, came {type(cache).__name__}")
    if cache.kept is None:
        raise RuntimeError("cache: already consumed by an earlier backward; run jordan_forward again")
    (f, g), weights, linear, hidden, fed, out, valid, reset_mask = cache.kept
    weight_ih, weight_yh, bias_h, weight_hy, bias_y = weights
    (T, N, M), H, dtype = out.shape, len(weight_ih), out.dtype
    f_backward, g_backward = ACTIVATIONS[f][1], ACTIVATIONS[g][1]
    if dy is not None:
        _check(dy, "dy", (T, N, M), dtype)
    if dy_n is not None:
        _check(dy_n, "dy_n", (N, M), dtype)
    shapes = {"x": (T, N, weight_ih.shape[1]), "y0": (N, M)} | {
        name: None if w is None else w.shape for name, w in zip(_JORDAN_WEIGHTS, weights)}
    for name, array in (into or {}).items():
        if shapes.get(name) is None:
            known = ", ".join(key for key, shape in shapes.items() if shape is not None)
            raise ValueError(f"into: expected keys among {known}, came {name!r}")
        _check(array, f"into[{name!r}]", shapes[name], dtype)
    cache.kept = None

    da_h, da_y = np.empty((T, N, H), dtype), np.empty((T, N, M), dtype)
    to_hidden, to_fed = np.ascontiguousarray(weight_hy.T), np.ascontiguousarray(weight_yh.T)
    d = np.zeros((N, M), dtype) if dy_n is None else dy_n.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for t in reversed(range(T)):
            total = d if dy is None else d + dy[t]
            if valid is not None:
                total = np.where(valid[t][:, None], total, 0)
            da_y[t] = g_backward(total, out[t])
            da_h[t] = f_backward(linear_forward(da_y[t], to_hidden, training=False)[0], hidden[t])
            dfed = linear_forward(da_h[t], to_fed, training=False)[0]
            if reset_mask is not None:
                dfed[reset_mask[t]] = 0
            d = dfed if valid is None else np.where(valid[t][:, None], dfed, d)
    of_fed = linear_backward(da_h, linear_forward(fed, weight_yh)[1])
    of_output = linear_backward(da_y, linear_forward(hidden, weight_hy, bias_y)[1])
    if linear is None:
        of_input = {"x": np.zeros(shapes["x"], dtype), "weight": np.zeros(weight_ih.shape, dtype),
                    "bias": None if bias_h is None else da_h.sum(axis=(0, 1))}  # fmt: skip
    else:
        of_input = linear_backward(da_h, linear)
    grads = {
        "x": of_input["x"], "y0": d, "weight_ih": of_input["weight"], "weight_yh": of_fed["weight"],
        "bias_h": of_input["bias"], "weight_hy": of_output["weight"], "bias_y": of_output["bias"],
    }  # fmt: skip
    for name, array in (into or {}).items():
        array += grads[name]
    return grads | (into or {})


_JORDAN_WEIGHTS = ("weight_ih", "weight_yh", "bias_h", "weight_hy", "bias_y")


class _JordanCache:
    """What a forward keeps for its backward, which consumes it."""

    def __init__(self, *kept: Any):
        self.kept: Any = kept


def _valid_steps(lengths: Any, T: int, N: int) -> Array:
    """(T, N): whether step t is one of the first lengths[n]."""
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected an array of integers, came {lengths.dtype}")
    if lengths.shape != (N,):
        raise ValueError(f"lengths: expected shape ({N},), came {lengths.shape}")
    for n in (lengths.min(initial=0), lengths.max(initial=0)):
        if not 0 <= n <= T:
            raise ValueError(f"lengths: expected 0..{T}, came {n}")
    return np.arange(T)[:, None] < lengths


# --- Checks that the compiled core does not make ----------------------------------------------------------------------


def _option(name: str, value: Any, known: dict[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, came {value!r}")
    return known[value]


def _need(weight_hh: Any) -> None:
    if weight_hh is None:
        raise TypeError("weight_hh: expected a NumPy array, came NoneType")


def _check(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, came {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, came {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, came {array.shape}")
