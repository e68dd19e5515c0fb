"""Rows of a table by token. V rows of D numbers, N tokens, K different ones."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def take_rows(table: Array, tokens: Array) -> Array: ...
def sum_rows(rows: Array, order: Array, starts: Array) -> Array: ...
