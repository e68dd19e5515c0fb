"""What is timed: cells, shapes and the floating point operations they take.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates.
"""

from __future__ import annotations

from typing import NamedTuple

CELLS = ("lstm", "gru", "rnn")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}

FORWARD = "forward"
FORWARD_BACKWARD = "forward+backward"
MODES = (FORWARD, FORWARD_BACKWARD)


class Shape(NamedTuple):
    """One problem size; written `T,N,D,H` on the command line."""

    T: int
    N: int
    D: int
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape written as `T,N,D,H`. Raises ValueError unless these are four whole numbers of at least 1."""
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or min(numbers) < 1:
            raise ValueError(f"shape: expected T,N,D,H (four whole numbers of at least 1), came {text!r}")
        return cls(*numbers)


SHAPES = (
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(28, 128, 28, 128),
    Shape(100, 1, 64, 128),
    Shape(100, 32, 64, 128),
    Shape(100, 64, 128, 256),
    Shape(100, 64, 256, 512),
    Shape(50, 128, 512, 1024),
    Shape(200, 1, 512, 512),
    Shape(1000, 16, 32, 32),
    Shape(28, 2000, 28, 128),
)

QUICK_SHAPES = (
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(100, 32, 64, 128),
    Shape(200, 1, 512, 512),
    Shape(1000, 16, 32, 32),
)


def flops(cell: str, shape: Shape, mode: str) -> int:
    """Multiplications and additions of the matrix products: 2*G*H*(D+H)*T*N forward, three times that with backward."""
    T, N, D, H = shape
    forward = 2 * GATES[cell] * H * (D + H) * T * N
    return forward if mode == FORWARD else 3 * forward
