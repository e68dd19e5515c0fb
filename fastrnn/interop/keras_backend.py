"""Keras 3's own LSTM and GRU layers on fastrnn's kernels, under its torch and numpy backends.

Design: a Keras layer asks its backend's `lstm` or `gru` for the whole sequence, and runs its own loop over time where
that raises NotImplementedError. `enable` puts functions of ours there, which leave to the backend's own what they do
not take. SimpleRNN has no such door: its loop calls a cell at each step, which may be a user's. Letters as in
`keras`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional

_before: dict[str, Any] = {}


def enable() -> None:
    """Run LSTM and GRU layers of Keras 3, those in Bidirectional included, on fastrnn from now on.

    It takes CPU tensors of float32 and float64, masks (N, T) included, with tanh and sigmoid (any `use_bias`; a GRU
    with reset_after=True); training under the torch backend, inference under both. All other calls run as before.
    Raises ImportError without Keras, RuntimeError for another backend and for a Keras without this door.
    """
    import keras

    try:
        from keras.src import backend
    except ImportError:
        backend = None
    kind = keras.backend.backend() if hasattr(keras, "backend") else "none"
    if kind not in ("torch", "numpy"):
        raise RuntimeError(f"KERAS_BACKEND: expected torch or numpy, got {kind}")
    if not all(hasattr(backend, name) for name in ("lstm", "gru")):
        raise RuntimeError(
            f"keras: expected a version whose layers ask their backend, such as 3.15, got {keras.__version__}"
        )
    if _before:
        return
    _before.update(lstm=backend.lstm, gru=backend.gru)
    run = _run_torch if kind == "torch" else _run_numpy
    plain = keras.activations.tanh, keras.activations.sigmoid

    def lstm(inputs: Any, h: Any, c: Any, mask: Any, *args: Any, **options: Any) -> Any:
        found = None if args else run("lstm", inputs, (h, c), mask, plain, **options)
        return _before["lstm"](inputs, h, c, mask, *args, **options) if found is None else found

    def gru(inputs: Any, h: Any, mask: Any, *args: Any, **options: Any) -> Any:
        found = None if args else run("gru", inputs, (h,), mask, plain, **options)
        return _before["gru"](inputs, h, mask, *args, **options) if found is None else found

    backend.lstm, backend.gru = lstm, gru


def disable() -> None:
    """Undo `enable`."""
    if _before:
        from keras.src import backend

        backend.lstm, backend.gru = _before.pop("lstm"), _before.pop("gru")


def _run_torch(kind: str, x: Any, states: tuple[Any, ...], mask: Any, plain: tuple[Any, Any], **options: Any) -> Any:
    """What backend.lstm returns, or None for what it shall do itself."""
    import keras
    import torch

    from .torch import _autograd, _layers, _rules

    tensors = [keras.ops.convert_to_tensor(options[name]) for name in ("kernel", "recurrent_kernel")]
    bias = options["bias"]
    bias = None if bias is None else keras.ops.convert_to_tensor(bias)
    dtype = tensors[0].dtype
    given = [x, *states, *tensors, *([] if bias is None else [bias])]
    if not _plain(options, plain) or dtype not in _rules.DTYPES or torch.compiler.is_compiling() or _rules.blocked():
        return None
    if any(not torch.is_tensor(t) or not t.is_cpu or t.dtype is not dtype for t in given) or not x.numel():
        return None
    if torch._C._get_tracing_state() is not None:
        return None
    rows = _layers.NO_ROWS
    if mask is not None:
        real = _real_steps(torch.as_tensor(mask).numpy(), x, states[0].detach().numpy(), options)
        if real is None or states[0].requires_grad:
            return None
        rows = _layers.Rows(mask=real)
    weights = [_gates(kind, t.T, torch.cat).contiguous() for t in tensors]
    if bias is not None:
        pair = bias if bias.ndim == 2 else torch.stack([bias, torch.zeros_like(bias)])
        weights += [_gates(kind, b, torch.cat) for b in pair]
    x = torch.flip(x, (1,)) if options.get("go_backwards") else x
    call = _layers.Call(kind, {}, 1, 1, bias is not None, False, _layers.BATCH_FIRST, rows, None)
    h, c = (states[0][None], states[1][None] if kind == "lstm" else None)
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        y, *last = _autograd.Sequence.apply(call, x, h, c, *weights)
    else:
        y, *last = _autograd.run_sequence(call, x, h, c, weights, False)[: 3 if kind == "lstm" else 2]
    last = [s[0] for s in last]
    return last[0], y if options.get("return_sequences") else last[0][:, None], last


def _run_numpy(kind: str, x: Any, states: tuple[Any, ...], mask: Any, plain: tuple[Any, Any], **options: Any) -> Any:
    kernel, recurrent = (np.asarray(options[name]) for name in ("kernel", "recurrent_kernel"))
    x, *states_ = (np.asarray(a) for a in (x, *states))
    given = [x, *states_, kernel, recurrent]
    if not _plain(options, plain) or kernel.dtype not in (np.float32, np.float64) or not x.size:
        return None
    if any(a.dtype != kernel.dtype for a in given):
        return None
    real = None if mask is None else _real_steps(np.asarray(mask), x, states_[0], options)
    if mask is not None and real is None:
        return None
    bias = None if options["bias"] is None else np.asarray(options["bias"])
    pair: Any = (None, None)
    if bias is not None:
        pair = [_gates(kind, b, np.concatenate) for b in (bias if bias.ndim == 2 else (bias, np.zeros_like(bias)))]
    weights = [np.ascontiguousarray(_gates(kind, a.T, np.concatenate)) for a in (kernel, recurrent)]
    x = (np.flip(x, 1) if options.get("go_backwards") else x).swapaxes(0, 1)
    forward: Any = functional.lstm_forward if kind == "lstm" else functional.gru_forward
    y, *last, _ = forward(x, *map(np.ascontiguousarray, states_), *weights, *pair, mask=real, training=False)
    return last[0], y.swapaxes(0, 1) if options.get("return_sequences") else last[0][:, None], last


def _real_steps(mask: Any, x: Any, h0: Any, options: dict[str, Any]) -> Any:
    """Keras's mask (N, T) as ours, (T, N), in the order of the steps. None for one of another shape, and where a row begins
    with a step that is not real from a state: its output is 0 in Keras, and the state here."""
    if mask.shape != tuple(x.shape[:2]):
        return None
    real = np.ascontiguousarray((mask[:, ::-1] if options.get("go_backwards") else mask).T.astype(bool))
    return None if h0[~real[0]].any() else real


def _plain(options: dict[str, Any], plain: tuple[Any, Any]) -> bool:
    """Whether it is the cell that the kernels have, called as Keras's layers call it."""
    activations = options.get("activation"), options.get("recurrent_activation")
    known = {"kernel", "recurrent_kernel", "bias", "activation", "recurrent_activation", "return_sequences"}
    known |= {"go_backwards", "unroll", "reset_after"}
    return activations == plain and options.get("reset_after", True) and set(options) <= known


def _gates(kind: str, a: Any, join: Any) -> Any:
    """(G*H, ...) in fastrnn's order of gates."""
    if kind == "lstm":
        return a
    H = len(a) // 3
    return join([a[H : 2 * H], a[:H], a[2 * H :]])
