"""Recurrent nodes of ONNX Runtime that Python computes."""

from collections.abc import Callable
from typing import Any

from ._stack import Stack

nodes: dict[int, Callable[..., tuple[Any, ...]]]

class Node:
    """A node of one direction and X (T, N, D): what computes it from arrays, and the stack that may do it at once."""

    def __init__(self, from_arrays: Callable[..., tuple[Any, ...]], stack: Stack) -> None: ...
    def __call__(self, *given: Any) -> tuple[Any, ...]: ...
