"""CellSpec: which recurrent cell, with which options. It is made once, then handed down.

`_native.CompiledCell` turns it into the numbers by which the kernels call cells and activations.

Letters: D input_size, H hidden_size, P width of h (proj_size with a projection, else H), G gates.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

from .. import _native
from .._validate import GateActivation, Nonlinearity, OutputActivation, check_choice, check_positive

NONLINEARITIES: tuple[str, ...] = get_args(Nonlinearity)
OUTPUT_ACTIVATIONS: tuple[str, ...] = get_args(OutputActivation)
GATE_ACTIVATIONS: tuple[str, ...] = get_args(GateActivation)

CellName = Literal["rnn", "gru", "lstm"]


class CellForm(NamedTuple):
    """What all cells of a name have in common. gates: in the order of the weights. options: what users call an option
    -> the field of `CellSpec`."""

    gates: tuple[str, ...]
    options: dict[str, str]
    states: tuple[str, ...] = ("h",)


_ACTIVATIONS = {"gate_activation": "gate_activation", "activation": "activation"}
CELLS: dict[CellName, CellForm] = {
    "rnn": CellForm(("h",), {"nonlinearity": "activation"}),
    "gru": CellForm(("r", "z", "n"), {"reset_after": "reset_after", **_ACTIVATIONS}),
    "lstm": CellForm(("i", "f", "g", "o"), {**_ACTIVATIONS, "cell_clip": "clip"}, ("h", "c")),
}
# Fields of a CellSpec that say which products there are, not what is done with their sums.
FORM = ("cell", "reset_after", "projection", "output_activation", "recurrent")


@dataclass(frozen=True)
class CellSpec:
    """A recurrent cell and its options, checked.

    activation: of the RNN's h, the GRU's candidate, the LSTM's g and c. gate_activation: of the GRU's and LSTM's gates.
    clip: a positive number that all that goes into an LSTM's activations is clipped to, or None. reset_after: the GRU's
    form. projection, peephole: whether there are weight_hr and weight_peephole. output_activation: of a projection; all
    but Jordan's have "identity". recurrent: whether there is a weight_hh; without it, an RNN is a linear map.
    """

    cell: CellName
    activation: Nonlinearity = "tanh"
    gate_activation: GateActivation = "sigmoid"
    clip: float | None = None
    reset_after: bool = True
    projection: bool = False
    peephole: bool = False
    output_activation: OutputActivation = "identity"
    recurrent: bool = True

    def __post_init__(self) -> None:
        check_choice("cell", self.cell, CELLS)
        check_choice("nonlinearity" if self.cell == "rnn" else "activation", self.activation, NONLINEARITIES)
        check_choice("gate_activation", self.gate_activation, GATE_ACTIVATIONS)
        check_choice("output_activation", self.output_activation, OUTPUT_ACTIVATIONS)
        if self.clip is not None:
            object.__setattr__(self, "clip", check_positive("cell_clip", self.clip))
        for name in ("reset_after", "projection", "peephole", "recurrent"):
            object.__setattr__(self, name, bool(getattr(self, name)))

    @cached_property
    def generic(self) -> bool:
        """Whether it differs from the cells that the fastest epilogues are compiled for."""
        epilogue = [field for field in fields(self) if field.name not in FORM]
        return any(getattr(self, field.name) != field.default for field in epilogue)

    @cached_property
    def gates(self) -> int:
        return len(CELLS[self.cell].gates)

    @cached_property
    def states(self) -> tuple[str, ...]:
        return CELLS[self.cell].states

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options as keywords of the cell's functions and layer."""
        return {name: getattr(self, field) for name, field in CELLS[self.cell].options.items()}

    @cached_property
    def family(self) -> str:
        """Which functions run it: "rnn" stands for rnn_forward, which makes caches for rnn_backward."""
        if not self.recurrent:
            return "linear"
        return "jordan" if self.cell == "rnn" and self.projection else self.cell

    @cached_property
    def compiled(self) -> _native.CompiledCell:
        return _native.CompiledCell(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return CellSpec, tuple(getattr(self, field.name) for field in fields(self))

    def shapes(self, D: int, H: int, P: int | None = None) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by the names of the functional core."""
        GH, P = self.gates * H, H if P is None else P
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (GH, D),
            "weight_hh": (GH, P),
            "bias_ih": (GH,),
            "bias_hh": (GH,),
        }
        if self.projection:
            shapes["weight_hr"] = (P, H)
        if self.peephole:
            shapes["weight_peephole"] = (3 * H,)
        return shapes

    def widths(self, H: int, P: int | None = None) -> tuple[int, ...]:
        """The width of each state."""
        return (H if P is None else P, H)[: len(self.states)]


_SPECS: dict[tuple[Any, ...], CellSpec] = {}


def spec_of(*options: Any) -> CellSpec:
    """`CellSpec(*options)`, made once for each choice of options: calls that take options find theirs in 0.1 us.

    A clip has to be a float: 1 and True are equal, but True is no clip.
    """
    try:
        return _SPECS[options]
    except (KeyError, TypeError):  # new, or with what cannot be hashed and so is no option
        spec = CellSpec(*options)
        if len(_SPECS) >= 1000:  # many different clips
            _SPECS.clear()
        _SPECS[options] = spec
        return spec


LINEAR = CellSpec("rnn", activation="identity", recurrent=False)  # y = W x + b
