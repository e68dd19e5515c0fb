"""Gradient clipping, by the common norm and by value."""

from __future__ import annotations

from collections.abc import Mapping

from .. import _native
from .._validate import Array, check_not_negative
from . import flat_state
from .tied import each_once


def clip_grad_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale all gradients in place so that their common Euclidean norm is at most ``max_norm`` (Pascanu et al. 2013).

    Returns the norm before clipping. The factor is PyTorch's, min(1, max_norm / (norm + 1e-6)). So is what
    happens to a norm that is not finite: nan makes every gradient nan; infinity makes the infinite entries
    nan and all others 0. The norm returned tells.
    """
    norm: float = _native.clip_gradients(
        each_once(grads), flat_state.BLOCK, check_not_negative("max_norm", max_norm, finite=False), None
    )
    return norm


def clip_grad_value(grads: Mapping[str, Array], value: float) -> None:
    """Limit every entry of every gradient to [-value, value], in place. A nan stays nan."""
    _native.clip_gradients(each_once(grads), flat_state.BLOCK, None, check_not_negative("value", value, finite=False))
