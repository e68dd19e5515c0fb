"""FinalState: what each direction of a recurrent layer ends with, out of the layer's output.

Letters: T time steps, N batch, H hidden_size, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_choice
from ..layers.module import Array
from ..layers.pooling import Pool


class FinalState(Pool):
    """y (N, S*H) from the output (T, N, S*H) of a recurrent layer, or (N, T, S*H) with batch_first: the forward half at
    each sequence's last step, the backward half at its first, where it ends. Keras's return_sequences=False.

    directions: "forward", "backward" or "both". With lengths (N,) the last step of row n is lengths[n] - 1, and y is
    zero where that length is 0. `LastStep` takes both halves at the last step instead.
    """

    def __init__(self, directions: str = "both", *, batch_first: bool = False) -> None:
        super().__init__(batch_first=batch_first)
        self.directions = check_choice("directions", directions, ("forward", "backward", "both"))

    def arguments(self) -> dict[str, Any]:
        return {"directions": self.directions, "batch_first": self.batch_first}

    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        width = steps.shape[-1]
        half = {"forward": width, "backward": 0, "both": width // 2}[self.directions]
        last: Any = -1 if lengths is None else (np.maximum(lengths, 1) - 1, np.arange(len(lengths)))
        return np.concatenate([steps[last][..., :half], steps[0][..., half:]], axis=-1), (last, half)

    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        last, half = kept
        forward = np.zeros_like(dy)
        forward[..., :half] = dy[..., :half]
        steps[last] = forward
        steps[0][..., half:] += dy[..., half:]
