"""Some rows of a batch."""

from typing import Any

from numpy.typing import NDArray

def row_indices(rows: Any, N: int) -> NDArray[Any]: ...
