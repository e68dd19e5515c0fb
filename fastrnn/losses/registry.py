"""The losses by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._validate import Array
from .classes import binary_cross_entropy_with_logits, cross_entropy
from .ctc import ctc
from .given import nll
from .regression import huber, mae, mse, quantile

LOSSES: dict[str, Callable[..., tuple[Any, Array]]] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy_with_logits,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "quantile": quantile,
    "ctc": ctc,
    "nll": nll,
}


def get(loss: str | Callable[..., tuple[Any, Array]]) -> Callable[..., tuple[Any, Array]]:
    """The loss of that name; a callable ``(prediction, targets) -> (loss, gradient)`` is returned as it is.

    Raises ValueError for an unknown name and TypeError for what is neither a name nor callable.
    """
    if callable(loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or a callable, got {type(loss).__name__}")
    try:
        return LOSSES[loss]
    except KeyError:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}") from None
