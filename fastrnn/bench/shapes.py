"""What is timed: cells, shapes and the floating point operations they take.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, L num_layers, S directions.
"""

from __future__ import annotations

from typing import NamedTuple

from ..functional.spec import CELLS as CELL_FORMS

CELLS = ("lstm", "gru", "rnn")
GATES: dict[str, int] = {cell: len(form.gates) for cell, form in CELL_FORMS.items()}

FORWARD = "forward"
FORWARD_BACKWARD = "forward+backward"
STEP = "step"  # streaming: one time step per call, T calls, the state carried by the caller
MEMORY = "memory"  # not timed: the peak of one forward+backward in a fresh process
SEQUENCE_MODES = (FORWARD, FORWARD_BACKWARD)
MODES = (FORWARD, FORWARD_BACKWARD, STEP)

FORMAT = "T,N,D,H[,Ln][,bi][,len][,f64] (four whole numbers of at least 1; n layers; bidirectional; lengths; float64)"


class Shape(NamedTuple):
    """One problem size; written `T,N,D,H` on the command line, with `,L2`, `,bi`, `,len` and `,f64` for what is not
    usual. lengths: rows of different lengths, one of them T, the others drawn from 1..T."""

    T: int
    N: int
    D: int
    H: int
    num_layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"
    lengths: bool = False

    def __str__(self) -> str:
        options = [f"L{self.num_layers}"] if self.num_layers > 1 else []
        options += ["bi"] if self.bidirectional else []
        options += ["len"] if self.lengths else []
        options += ["f64"] if self.dtype == "float64" else []
        return ",".join([*map(str, self[:4]), *options])

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def suffixes(self) -> list[list[str]]:
        """For each layer the endings of its parameters' names, forward direction first: [["_l0", "_l0_reverse"]]."""
        return [[f"_l{k}{end}" for end in ("", "_reverse")[: self.directions]] for k in range(self.num_layers)]

    def inputs(self, layer: int) -> int:
        """How many columns layer 0, 1, ... reads."""
        return self.directions * self.H if layer else self.D

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape written as FORMAT says. Raises ValueError for anything else."""
        try:
            T, N, D, H, *options = text.split(",")
            numbers = (int(T), int(N), int(D), int(H))
            layers = [option for option in options if option[:1] == "L"]
            num_layers = int(layers[0][1:]) if layers else 1
            dtype = "float64" if "f64" in options else "float32"
            shape = cls(*numbers, num_layers, "bi" in options, dtype, "len" in options)
            known = {*layers[:1], "bi", "len", "f64"}
            if min(*numbers, num_layers) < 1 or set(options) - known or len(set(options)) < len(options):
                raise ValueError
        except ValueError:
            raise ValueError(f"shape: expected {FORMAT}, got {text!r}") from None
        if max(shape.T * shape.N, 4 * shape.H) * max(shape.D, shape.H) > LARGEST:
            raise ValueError(f"shape: expected arrays of at most {LARGEST} numbers, got {text!r}")
        return shape


LARGEST = 2**31  # numbers in an array: 8 GB of float32

SHAPES = (
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(28, 128, 28, 128),
    Shape(63, 1, 24, 32),
    Shape(100, 1, 64, 128),
    Shape(1000, 1, 64, 128),
    Shape(200, 1, 512, 512),
    Shape(2000, 4, 1, 16),
    Shape(1000, 16, 32, 32),
    Shape(50, 17, 30, 50),
    Shape(100, 32, 64, 128),
    Shape(28, 2000, 28, 128),
    Shape(100, 64, 128, 256),
    Shape(128, 128, 64, 256),
    Shape(20, 256, 300, 300),
    Shape(100, 64, 256, 512),
    Shape(50, 128, 512, 1024),
    Shape(100, 32, 64, 128, num_layers=2, bidirectional=True),
    Shape(100, 32, 4, 64, num_layers=3, dtype="float64"),
    Shape(100, 32, 64, 128, dtype="float64"),
    Shape(100, 64, 128, 256, dtype="float64"),
)

STEP_SHAPES = (Shape(100, 1, 1, 16), Shape(100, 1, 28, 64), Shape(100, 1, 64, 128), Shape(100, 1, 256, 256))

# Few steps of few rows, call upon call, as in interactive use: D = H.
SHORT_SHAPES = tuple(
    Shape(T, N, H, H, bidirectional=bidirectional, lengths=lengths)
    for bidirectional in (False, True)
    for lengths in (False, True)
    for H in (64, 128, 256, 512)
    for N in (1, 4)
    for T in (1, 2, 4, 8, 16)
)

QUICK_SHORT_SHAPES = tuple(s for s in SHORT_SHAPES if s.H in (64, 256) and s.T in (1, 8) and s.N == 1)

QUICK_SHAPES = (
    Shape(28, 1, 28, 64),
    Shape(28, 32, 28, 64),
    Shape(100, 32, 64, 128),
    Shape(200, 1, 512, 512),
    Shape(1000, 16, 32, 32),
)

QUICK_STEP_SHAPES = (Shape(100, 1, 28, 64),)


def products(cell: str, shape: Shape) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of the matrix products that make up a forward pass: (T*N, D + H, G*H) for each layer and
    direction, input and recurrent weights side by side."""
    T, N, _, H = shape[:4]
    each = [(T * N, shape.inputs(layer) + H, GATES[cell] * H) for layer in range(shape.num_layers)]
    return [sizes for sizes in each for _ in range(shape.directions)]


def flops(cell: str, shape: Shape, mode: str) -> int:
    """Multiplications and additions of the matrix products: 2*G*H*(D+H)*T*N forward, three times that with backward;
    in mode "step" those of all T steps together."""
    forward = sum(2 * rows * inner * columns for rows, inner, columns in products(cell, shape))
    return 3 * forward if mode == FORWARD_BACKWARD else forward
