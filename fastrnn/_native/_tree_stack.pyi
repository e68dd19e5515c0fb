"""The weights of a layer over trees, packed once."""

from typing import Any

from ._sequence import CompiledCell
from ._watched import Watched

class TreeStack(Watched):
    def __init__(self, params: Any, names: dict[str, str], children: int, cell: CompiledCell) -> None: ...
    def look(self) -> bool: ...
