"""Any cell over a sequence: where a CellSpec meets the compiled core. Letters as in the package."""

from __future__ import annotations

from typing import Any

from .. import _native
from .._validate import Array, Maybe
from .spec import CellName, CellSpec

Grads = dict[str, Any]  # Maybe, but what the user asked for is there


def sequence_forward(
    spec: CellSpec,
    x: Array,
    h0: Maybe,
    c0: Maybe,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Maybe,
    bias_hh: Maybe,
    weight_hr: Maybe = None,
    weight_peephole: Maybe = None,
    lengths: Any = None,
    reset_mask: Any = None,
    reverse: bool = False,
    out: Maybe = None,
    training: bool = True,
    mask: Any = None,
    recurrent_mask: Maybe = None,
    zoneout_h: Maybe = None,
    zoneout_c: Maybe = None,
    scale_ih: Maybe = None,
    scale_hh: Maybe = None,
    scale_hr: Maybe = None,
    table: Maybe = None,
) -> tuple[Array, Array, Maybe, Any]:
    """Any cell over a sequence: output, h_n, c_n (None where the cell has no c) and the cache, None unless training.

    scale_ih, scale_hh, scale_hr: of the rows of int8 weights, in inference.
    table: (V, D), x then being tokens (T, N), int64 in 0..V-1, that stand for its rows; `sequence_backward` returns the
    tokens met (K,) and the gradients (K, D) of their rows for "x"."""
    if weight_hh is None:
        raise TypeError("weight_hh: expected a NumPy array, got NoneType")
    # By position: with so many names, their look-up would be a fifth of a small call.
    result: tuple[Array, Array, Maybe, Any] = _native.forward(
        spec.compiled,
        x,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        h0,
        c0,
        weight_hr,
        None,
        weight_peephole,
        scale_ih,
        scale_hh,
        scale_hr,
        lengths,
        reset_mask,
        mask,
        recurrent_mask,
        zoneout_h,
        zoneout_c,
        reverse,
        out,
        training,
        table,
    )
    return result


def sequence_backward(
    cell: CellName, doutput: Maybe, dh_n: Maybe, dc_n: Maybe, cache: Any, into: dict[str, Any] | None = None
) -> Grads:
    """The gradients of `sequence_forward` for a cell of that name."""
    if not isinstance(cache, _native.SequenceCache) or cache.family != cell:
        another = " of another cell" if isinstance(cache, _native.SequenceCache) else ""
        raise TypeError(f"cache: expected the cache of {cell}_forward in training, got {type(cache).__name__}{another}")
    grads: Grads = _native.backward(cache, doutput, dh_n, dc_n, into)
    return grads
