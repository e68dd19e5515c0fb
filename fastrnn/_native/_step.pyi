"""One step of a cell in training."""

from typing import Any

from ._sequence import CompiledCell

class StepCache:
    cell: str
    sequence: Any
    h: Any
    c: Any
    head: Any
    def __init__(self, cell: str, sequence: Any, h: Any, c: Any, head: Any) -> None: ...

def cell_forward(
    cell: CompiledCell, x: Any, h0: Any, c0: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any
) -> tuple[Any, ...] | None: ...
