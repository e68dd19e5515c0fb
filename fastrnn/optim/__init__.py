"""Optimisers with PyTorch's names, defaults and formulas, and gradient clipping.

``optimizer.step(params, grads)`` updates the arrays of ``params`` in place. Both are dicts of arrays by
name, as every layer's ``params`` and ``grads`` are. The formulas are compiled: one pass over parameter, gradient and
state.
"""

from .base import Optimizer
from .clipping import clip_grad_norm, clip_grad_value
from .rules import SGD, Adagrad, Adam, AdamW, RMSprop, from_config, get

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm",
    "clip_grad_value",
    "from_config",
    "get",
]
