"""A recurrent layer over trees. `fastrnn.functional.tree` says what the arrays are."""

from typing import Any

from ._runtime import Cache
from ._sequence import CompiledCell
from ._tree_stack import TreeStack

class TreeCache(Cache): ...

def tree_forward(
    cell: CompiledCell,
    x: Any,
    *,
    children: int,
    levels: Any,
    num_trees: int,
    weight_ih: Any,
    weight_hh: Any,
    bias: Any,
    training: bool,
    stack: TreeStack | None = None,
) -> tuple[Any, Any, TreeCache | None]: ...
def tree_backward(lstm: bool, cache: Any, dh: Any, dh_root: Any, dc_root: Any, into: Any) -> dict[str, Any]: ...
