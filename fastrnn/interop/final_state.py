"""FinalState: what each direction of a recurrent layer ends with, out of the layer's output.

Letters: T time steps, N batch, H hidden_size, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import check_choice
from ..layers.merge import MERGES, Merge, merge_directions, split_directions
from ..layers.module import Array
from ..layers.pooling import Pool


class FinalState(Pool):
    """y (N, S*H) from the output (T, N, S*H) of a recurrent layer, or (N, T, S*H) with batch_first: the forward half at
    each sequence's last step, the backward half at its first, where it ends. Keras's return_sequences=False.

    directions: "forward", "backward" or "both". merge: what becomes of both, as of a layer's own: "concat", or "sum",
    "mul" or "ave" for y (N, H). With lengths (N,) the last step of row n is lengths[n] - 1, and y is
    zero where that length is 0. `LastStep` takes both halves at the last step instead.
    """

    def __init__(self, directions: str = "both", *, merge: Merge = "concat", batch_first: bool = False) -> None:
        super().__init__(batch_first=batch_first)
        self.directions = check_choice("directions", directions, ("forward", "backward", "both"))
        self.merge_mode = merge
        check_choice("merge", merge, MERGES if directions == "both" else MERGES[:1])

    def arguments(self) -> dict[str, Any]:
        merge = {} if self.merge_mode == "concat" else {"merge": self.merge_mode}
        return {"directions": self.directions, **merge, "batch_first": self.batch_first}

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        if self.merge_mode != "concat":
            _, _, both = self._kept()[-1]
            if dy.shape != (*both.shape[:-1], both.shape[-1] // 2):
                raise ValueError(f"dy: expected shape {(*both.shape[:-1], both.shape[-1] // 2)}, got {dy.shape}")
            halves = split_directions(dy, self.merge_mode, 2, both)
            dy = np.concatenate([half for half in halves if half is not None], axis=-1)
        return super().backpropagate(dy, dstate_n, need_dx=need_dx)

    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        width = steps.shape[-1]
        half = {"forward": width, "backward": 0, "both": width // 2}[self.directions]
        last: Any = -1 if lengths is None else (np.maximum(lengths, 1) - 1, np.arange(len(lengths)))
        both = np.concatenate([steps[last][..., :half], steps[0][..., half:]], axis=-1)
        return merge_directions(both, self.merge_mode), (last, half, both)

    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        last, half, _ = kept
        forward = np.zeros_like(dy)
        forward[..., :half] = dy[..., :half]
        steps[last] = forward
        steps[0][..., half:] += dy[..., half:]
