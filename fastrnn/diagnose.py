"""What goes on inside: how gradients shrink or grow on their way back, and what a target depends on.

`fastrnn.plot` draws what these return, and what `layer.trace(x)` does.

Letters: T time steps, T' target steps, N batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _state
from ._validate import as_generator, check_size
from .layers import EncoderDecoder, Module
from .layers.module import Array

__all__ = ["alignment", "gradient_norms"]


def gradient_norms(layer: Module, x: Any, dlast: Any = None) -> Array:
    """|dL/dstate_t| (T,), the norm of the gradient of the state after each step t, mean over the batch, for a loss L
    that looks at the last output only: the vanishing and exploding gradients of Bengio, Simard and Frasconi (1994).

    layer: one that carries a state forward from step to step, or a `Sequential` with such. x: as it reads it, with a
    batch axis. dlast: the gradient of the last output, (N, H); None for a unit vector of equal entries. The state of an
    LSTM is h and c. The weights' gradients of the layer are zero afterwards.
    Raises ValueError for a layer without a state or with a reverse direction, and for x without a batch axis.
    """
    layer.check_streams()
    if "state" not in layer.accepts:
        raise ValueError(f"layer: expected one with a state, got {type(layer).__name__}")
    x = np.asarray(x)
    axis = 1 if layer.batch_first else 0
    features = 0 if x.dtype.kind in "iu" else 1
    if x.ndim != 2 + features:
        raise ValueError(f"x: expected axes of time and batch{' and features' * features}, got shape {x.shape}")
    pieces = np.split(x, x.shape[axis], axis=axis)
    states: list[Any] = [None]
    y: Any = None
    for piece in pieces:
        y, state = layer.run(piece, states[-1])
        states.append(state)
    dy = np.full_like(y, y.shape[-1] ** -0.5) if dlast is None else np.asarray(dlast, y.dtype).reshape(y.shape)
    norms, dstate = np.empty(len(pieces)), None
    for t in reversed(range(len(pieces))):
        layer.run(pieces[t], states[t], training=True)
        if t == len(pieces) - 1:  # the gradient of the last output is one of the last state
            norms[t] = _norm([dy], 1 - axis)
        dstate = layer.run_backward(dy, dstate, need_dx=False)[1]
        dy = np.zeros_like(dy)
        if t:
            norms[t - 1] = _norm(_state.arrays(dstate), 1)
    layer.zero_grad()
    return norms


def _norm(arrays: Any, batch_axis: int) -> float:
    """Over all entries of a row of the batch, then the mean over the rows."""
    squares = 0.0
    for a in arrays:
        axes = tuple(k for k in range(a.ndim) if k != (batch_axis if a.ndim == 3 else 0))
        squares = squares + np.square(a, dtype=np.float64).sum(axis=axes)
    return float(np.sqrt(squares).mean())


def alignment(
    model: EncoderDecoder,
    source: Any,
    target: Any,
    *,
    alternatives: Any = None,
    samples: int = 8,
    rng: int | np.random.Generator | None = 0,
) -> Array:
    """(T', T): how much target step j depends on source step i, for a model that has no attention to look at.

    Measured by occlusion: the probability of target j, minus its mean where source token i is another one, at least 0
    (of logarithms one that is all but impossible would hide all others). The decoder is fed with the target. source
    (T,), target (T',): tokens of one sequence. alternatives: tokens to put in the place of others, drawn `samples`
    times by `rng`; None for those of the source.
    Raises TypeError and ValueError for what is no model or no tokens, and for a source without alternatives.
    """
    if not isinstance(model, EncoderDecoder):
        raise TypeError(f"model: expected an EncoderDecoder, got {type(model).__name__}")
    source, target = (_tokens(name, value) for name, value in (("source", source), ("target", target)))
    others = np.unique(source if alternatives is None else _tokens("alternatives", alternatives))
    if len(others) < 2:
        raise ValueError(f"alternatives: expected at least two different tokens, got {len(others)}")
    T, R, generator = len(source), check_size("samples", samples), as_generator("rng", rng)
    sources = np.tile(source, (1 + T * R, 1))
    for i in range(T):
        sources[1 + i * R : 1 + (i + 1) * R, i] = generator.choice(others[others != source[i]], R)
    targets = np.tile(target, (len(sources), 1))
    first = bool(model.batch_first)
    logits = model(sources if first else sources.T, targets=targets if first else targets.T)
    logits = (logits if first else logits.swapaxes(0, 1)).astype(np.float64)
    logits -= logits.max(axis=2, keepdims=True)
    p = np.exp(np.take_along_axis(logits, targets[..., None], 2)[..., 0]) / np.exp(logits).sum(axis=2)
    lost = p[0] - p[1:].reshape(T, R, -1).mean(axis=1)
    return np.maximum(lost.T, 0.0)


def _tokens(name: str, value: Any) -> Array:
    tokens = np.asarray(value)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer tokens, got {tokens.dtype}")
    if tokens.ndim != 1 or not tokens.size:
        raise ValueError(f"{name}: expected tokens of one sequence, shape (T,), got {tokens.shape}")
    return tokens
