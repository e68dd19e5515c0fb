"""CellSpec: which recurrent cell, with which options. It is made once, then handed down.

Nothing else in Python knows the numbers by which the compiled core calls cells and activations.

Letters: D input_size, H hidden_size, P width of h (proj_size with a projection, else H), G gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from .. import _native
from .._validate import CellName, GateActivation, Nonlinearity, OutputActivation, check_choice, check_positive

NONLINEARITIES: tuple[str, ...] = get_args(Nonlinearity)
OUTPUT_ACTIVATIONS: tuple[str, ...] = get_args(OutputActivation)
GATE_ACTIVATIONS: tuple[str, ...] = get_args(GateActivation)

_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
# The options of each cell: what users call it -> the field here.
_OPTIONS: dict[str, dict[str, str]] = {
    "rnn": {"nonlinearity": "activation"},
    "gru": {"reset_after": "reset_after", "gate_activation": "gate_activation", "activation": "activation"},
    "lstm": {"gate_activation": "gate_activation", "activation": "activation", "cell_clip": "clip"},
}
# Where the caches of each cell's backward come from: the forward's name, and the compiled cells that it runs.
ORIGINS: dict[str, tuple[str, tuple[int, ...]]] = {
    "rnn": ("rnn_forward", (_native.CELLS["rnn"],)),
    "gru": ("gru_forward", (_native.CELLS["gru"], _native.CELLS["gru_reset_before"])),
    "lstm": ("lstm_forward", (_native.CELLS["lstm"],)),
    "jordan": ("jordan_forward", (_native.CELLS["rnn"],)),
    "linear": ("linear_forward", (_native.CELLS["rnn"],)),
}


@dataclass(frozen=True)
class CellSpec:
    """A recurrent cell and its options, checked.

    activation: of the RNN's h, the GRU's candidate, the LSTM's g and c. gate_activation: of the GRU's and LSTM's gates.
    clip: a positive number that all that goes into an LSTM's activations is clipped to, or None. reset_after: the GRU's
    form. projection, peephole: whether there are weight_hr and weight_peephole. output_activation: of a projection; all
    but Jordan's have "identity".
    """

    cell: CellName
    activation: Nonlinearity = "tanh"
    gate_activation: GateActivation = "sigmoid"
    clip: float | None = None
    reset_after: bool = True
    projection: bool = False
    peephole: bool = False
    output_activation: OutputActivation = "identity"

    def __post_init__(self) -> None:
        check_choice("cell", self.cell, _GATES)
        check_choice("nonlinearity" if self.cell == "rnn" else "activation", self.activation, NONLINEARITIES)
        check_choice("gate_activation", self.gate_activation, GATE_ACTIVATIONS)
        check_choice("output_activation", self.output_activation, OUTPUT_ACTIVATIONS)
        if self.clip is not None:
            object.__setattr__(self, "clip", check_positive("cell_clip", self.clip))
        for name in ("reset_after", "projection", "peephole"):
            object.__setattr__(self, name, bool(getattr(self, name)))

    @cached_property
    def gates(self) -> int:
        return _GATES[self.cell]

    @cached_property
    def states(self) -> tuple[str, ...]:
        return ("h", "c") if self.cell == "lstm" else ("h",)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options as keywords of the cell's functions and layer."""
        return {name: getattr(self, field) for name, field in _OPTIONS[self.cell].items()}

    @cached_property
    def kernel(self) -> tuple[int, int, int, float | None, int]:
        """By the numbers of the compiled core: cell, activation, gate_activation, clip, output_activation."""
        cell = "gru_reset_before" if self.cell == "gru" and not self.reset_after else self.cell
        activations = (self.activation, self.gate_activation, self.output_activation)
        activation, gate_activation, output_activation = (_native.ACTIVATIONS[name] for name in activations)
        return _native.CELLS[cell], activation, gate_activation, self.clip, output_activation

    def link(self) -> dict[str, Any]:
        """What a link of a compiled chain needs to know beside the weights."""
        cell, activation, gate_activation, clip, _ = self.kernel
        options = {"cell": cell, "activation": activation, "gate_activation": gate_activation, "clip": clip}
        return options | {"spec": self, "gates": self.gates}

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


def spec_of(*fields: Any) -> CellSpec:
    """`CellSpec(*fields)`, made once for each choice of fields: calls that take options find theirs in 0.1 us.

    A clip has to be a float: 1 and True are equal, but True is no clip.
    """
    try:
        return _SPECS[fields]
    except (KeyError, TypeError):  # new, or with what cannot be hashed and so is no option
        spec = CellSpec(*fields)
        if len(_SPECS) >= 1000:  # many different clips
            _SPECS.clear()
        _SPECS[fields] = spec
        return spec


LINEAR = CellSpec("rnn", activation="identity")  # without weight_hh: y = W x + b
