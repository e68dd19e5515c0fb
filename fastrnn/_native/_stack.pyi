"""Layers and directions that run in one call without training."""

from typing import Any

from numpy.typing import NDArray

from ._sequence import CompiledCell
from ._watched import Watched

Array = NDArray[Any]

class Stack(Watched):
    def __init__(self, params: Any, names: list[dict[str, str]], directions: int, cell: CompiledCell) -> None: ...
    def run(self, x: Any, state: Any, lengths: Any, reset_mask: Any, batch_first: bool) -> tuple[Array, Any] | None: ...
    def map(self, x: Any) -> Array | None: ...
    def kept_bytes(self) -> int: ...
