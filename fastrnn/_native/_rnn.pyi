"""A recurrent layer over a sequence. `fastrnn.functional` says what the arrays are."""

from typing import Any

from ._runtime import Cache
from ._sequence import CompiledCell

class SequenceCache(Cache):
    family: str

def forward(
    cell: CompiledCell,
    x: Any,
    weight_ih: Any,
    weight_hh: Any = None,
    bias_ih: Any = None,
    bias_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    weight_hr: Any = None,
    bias_hr: Any = None,
    weight_peephole: Any = None,
    scale_ih: Any = None,
    scale_hh: Any = None,
    scale_hr: Any = None,
    lengths: Any = None,
    reset_mask: Any = None,
    mask: Any = None,
    recurrent_mask: Any = None,
    zoneout_h: Any = None,
    zoneout_c: Any = None,
    reverse: bool = False,
    out: Any = None,
    training: bool = False,
    table: Any = None,
) -> tuple[Any, Any, Any, SequenceCache | None]: ...
def backward(cache: SequenceCache, doutput: Any, dh_n: Any, dc_n: Any, into: Any) -> dict[str, Any]: ...
