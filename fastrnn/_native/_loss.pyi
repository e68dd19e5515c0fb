"""Losses. N rows, M classes."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def count_classes(classes: Array, M: int, ignored: int) -> int: ...
def cross_entropy(logits: Array, classes: Array, ignored: int, share: float) -> tuple[Array, Array]: ...
