"""What becomes of the outputs of two directions, and its gradient.

Letters: T time steps, N batch, P width of h.
"""

from __future__ import annotations

from typing import Literal

from .module import Array

Merge = Literal["concat", "sum", "mul", "ave"]
MERGES = ("concat", "sum", "mul", "ave")
"""The directions side by side, forward first; their sum, product or mean. Keras's merge_mode."""


def merge_directions(both: Array, merge: str) -> Array:
    """(T, N, 2P), or P where the directions are merged into one, from both (T, N, 2P), the forward half first."""
    if merge == "concat":
        return both
    P = both.shape[-1] // 2
    forward, backward = both[..., :P], both[..., P:]
    if merge == "mul":
        return forward * backward
    y = forward + backward
    if merge == "ave":
        y *= both.dtype.type(0.5)
    return y


def split_directions(dy: Array | None, merge: str, directions: int, both: Array | None) -> list[Array | None]:
    """The gradient of each direction's output from that of the merged one, None for zeros. both: as it was merged, for
    merge="mul"."""
    if dy is None or directions == 1:
        return [dy] * directions
    if merge == "concat":
        P = dy.shape[-1] // 2
        return [dy[..., :P], dy[..., P:]]
    if merge == "mul":
        assert both is not None
        P = dy.shape[-1]
        return [dy * both[..., P:], dy * both[..., :P]]
    if merge == "ave":
        dy = dy * dy.dtype.type(0.5)
    return [dy, dy]
