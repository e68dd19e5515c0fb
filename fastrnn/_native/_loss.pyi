"""Losses. N rows, M classes."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def count_classes(classes: Array, M: int, ignored: int) -> int: ...
def cross_entropy(
    logits: Array,
    classes: Array,
    ignored: int,
    share: float,
    *,
    row_weights: Array | None = None,
    class_weights: Array | None = None,
    smoothing: float = 0,
) -> tuple[Array, Array]: ...
def ctc(
    logits: Array,
    dlogits: Array,
    labels: Array,
    ends: Array,
    lengths: Array,
    blank: int,
    shares: Array,
    zero_infinity: bool,
) -> Array: ...
