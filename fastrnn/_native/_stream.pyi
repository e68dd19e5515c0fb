"""Layers that run step by step."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

class Chain:
    """Layers with their weights packed once, which take a step of all of them in one call.

    N batch, D features that the first layer reads, P width of the last one's output.
    """

    N: int
    D: int
    P: int

    def __init__(self, N: int, layers: list[dict[str, Any]], embedding: Array | None = None) -> None:
        """layers: dicts of a `CompiledCell` ("cell") and its weights by the names of `forward`."""

    def step(self, x: Any, out: Array | None = None, rows: Any = None) -> Array:
        """One time step: x (N, D), or (D,) where N is 1, or tokens (N,) behind an embedding -> (N, P), or (P,).

        rows: indices (n,) or a mask (N,) of those that step, x (n, D) -> (n, P); the others stay as they are. Each has
            the bits then of a stream of its own.
        out: an array of that shape that receives the result and is returned: the step then allocates nothing.
        Raises TypeError for a wrong dtype, ValueError for a wrong shape.
        """

    def step_frames(self, rows: dict[Any, int], frames: Mapping[Any, Any]) -> dict[Any, Array]:
        """A step of the rows that have a frame: rows is id -> row, frames id -> x_t (D,) or a token; id -> y_t (P,)."""

    def run(self, x: Any) -> Array:
        """A block of steps: x (T, N, D), or tokens (T, N) -> (T, N, P); the bits of that many calls of `step`."""

    def states(self, rows: Any = None) -> list[Any]:
        """For each layer None or a tuple of copies, (h (N, P),), of an LSTM (h, c (N, H)); of some rows (n, ...)."""

    def set_states(self, states: list[Any], rows: Any = None) -> None:
        """Take over what `states` gave, of a chain of the same layers and batch."""

    def generate(self, y: Array, steps: int, uniform: Array | None, temperature: float, top_k: int, end: int) -> Array:
        """Tokens (steps, N): the first chosen from logits y (N, P), then each from what follows the token before."""

    def feed_back(self, y: Array, steps: int) -> Array:
        """Outputs (steps, N, P): y (N, P), then what follows when each output is the next input; P = D."""
