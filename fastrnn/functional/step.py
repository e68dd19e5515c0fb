"""One step of any cell, with the output of RNN textbooks: y = g2(W_hy h + b_y). Letters as in the package."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._validate import Array, Maybe, OutputActivation, check_array, check_choice
from .activations import ACTIVATIONS
from .linear import LinearCache, linear_backward, linear_map
from .sequence import Grads, sequence_backward, sequence_forward
from .spec import CellName, CellSpec


class _Head(NamedTuple):
    """The output y of a step, and what its backward needs."""

    linear: LinearCache
    activation: OutputActivation
    y: Array


class _StepCache:
    """What one step keeps: the cache of its sequence of T = 1, and its output, if it has one."""

    __slots__ = ("cell", "dtype", "head", "sequence", "shapes")

    def __init__(self, cell: CellName, sequence: Any, h: Array, c: Maybe, head: _Head | None) -> None:
        self.cell, self.sequence, self.head, self.dtype = cell, sequence, head, h.dtype
        self.shapes = h.shape, None if c is None else c.shape


def step_forward(
    spec: CellSpec,
    x: Any,
    state: tuple[Maybe, Maybe],
    weights: tuple[Any, ...],
    weight_hy: Maybe,
    bias_y: Maybe,
    output_activation: OutputActivation,
) -> tuple[Any, ...]:
    if output_activation != "identity":
        check_choice("output_activation", output_activation, ACTIVATIONS)
    if weight_hy is None and bias_y is not None:
        raise ValueError("bias_y: expected None, as weight_hy is None")
    w = weights[0]
    if type(x) is not np.ndarray or type(w) is not np.ndarray or x.ndim != 2 or x.shape[1:] != w.shape[1:]:
        _check_x(x, w)
    _, h, c, sequence = sequence_forward(spec, x[None], *state, *weights)
    after = (h,) if c is None else (h, c)
    if weight_hy is None:
        return *after, _StepCache(spec.cell, sequence, h, c, None)
    check_array("weight_hy", weight_hy, ("M", h.shape[1]), h.dtype)
    a, linear = linear_map(h, weight_hy, bias_y, ("h", "weight_hy", "bias_y"))
    y = ACTIVATIONS[output_activation][0](a)
    return *after, y, _StepCache(spec.cell, sequence, h, c, _Head(linear, output_activation, y))


def _check_x(x: Any, weight_ih: Any) -> None:
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected shape (N, D), got {np.shape(x)}")
    if np.ndim(weight_ih) == 2 and np.shape(x)[1] != np.shape(weight_ih)[1]:
        raise ValueError(f"x: expected shape (N, {np.shape(weight_ih)[1]}), got {np.shape(x)}")


def step_backward(cell: CellName, dh_next: Maybe, dc_next: Maybe, cache: Any, dy: Maybe) -> Grads:
    if not isinstance(cache, _StepCache) or cache.cell != cell:
        got = f"{cache.cell}_cell_forward" if isinstance(cache, _StepCache) else type(cache).__name__
        raise TypeError(f"cache: expected the cache of {cell}_cell_forward, got {got}")
    for name, array, shape in zip(("dh_next", "dc_next"), (dh_next, dc_next), cache.shapes):
        if array is not None and shape is not None:
            check_array(name, array, shape, cache.dtype)
    if cache.head is None:
        if dy is not None:
            raise ValueError("dy: expected None, as the forward had no weight_hy")
        gradients = sequence_backward(cell, None, dh_next, dc_next, cache.sequence)
        return gradients | {"x": gradients["x"][0]}
    linear, activation, y = cache.head
    if dy is None:
        dy = np.zeros_like(y)
    check_array("dy", dy, y.shape, y.dtype)
    da = ACTIVATIONS[activation][1](dy, y)
    head: Grads = linear_backward(da, linear)
    gradients = sequence_backward(cell, head["x"][None], dh_next, dc_next, cache.sequence)
    return gradients | {"x": gradients["x"][0], "weight_hy": head["weight"], "bias_y": head["bias"]}
