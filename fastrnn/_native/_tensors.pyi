"""Calls without training on the tensors of another library."""

from collections.abc import Callable
from typing import Any

from ._stack import Stack

class TensorCalls:
    """The calls of one module, the weights of which are those of a `Stack`; None for what has to be looked at."""

    def __init__(
        self,
        table: Any,
        types: tuple[type, type],
        is_lazy: Callable[[Any], bool],
        stack: Stack,
        names: tuple[str, ...],
        weights: tuple[Any, ...],
    ) -> None: ...
    def step(self, parameters: dict[str, Any], x: Any, hx: Any) -> Any: ...
    def run(self, parameters: dict[str, Any], x: Any, hx: Any, batch_first: bool) -> Any: ...
