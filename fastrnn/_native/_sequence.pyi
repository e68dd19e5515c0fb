"""The loops over time."""

from typing import Any

class CompiledCell:
    """A `fastrnn.functional.spec.CellSpec` in the numbers of the kernels."""

    family: str

    def __init__(self, spec: Any) -> None: ...
