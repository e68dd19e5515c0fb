"""Recurrent dropout and zoneout: the options of a recurrent layer, and what they draw for a call.

Letters: T time steps, N batch, P width of h, H hidden size.

# Design: noise is arrays that the functional core takes, drawn here, so that the core stays without randomness. One
call draws once for each layer and direction. Zoneout in evaluation is its expectation, one row that all steps share by
strides of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_probability, kind_of
from .dropout import dropout_mask

Array = NDArray[Any]


@dataclass(frozen=True)
class Noise:
    """recurrent_dropout: the probability of dropping a unit of h_{t-1} before the recurrent weights, once per sequence.
    zoneout: for each state the probability that a unit keeps its value at a step."""

    recurrent_dropout: float
    zoneout: tuple[float, ...]

    @classmethod
    def of(cls, recurrent_dropout: Any, zoneout: Any, states: tuple[str, ...]) -> Noise:
        """zoneout: one probability for all states, or one for each."""
        names = [f"zoneout_{state}" for state in states]
        if not isinstance(zoneout, (tuple, list)):
            each = (check_probability("zoneout", zoneout),) * len(states)
        elif len(zoneout) != len(states) or len(states) == 1:
            wanted = "a probability" if len(states) == 1 else f"a probability or ({', '.join(names)})"
            raise ValueError(f"zoneout: expected {wanted}, got {kind_of(zoneout)}")
        else:
            each = tuple(check_probability(name, p) for name, p in zip(names, zoneout))
        return cls(check_probability("recurrent_dropout", recurrent_dropout), each)

    def __bool__(self) -> bool:
        return bool(self.recurrent_dropout or any(self.zoneout))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the layer's constructor, without those that are as by default."""
        given: dict[str, Any] = {"recurrent_dropout": self.recurrent_dropout} if self.recurrent_dropout else {}
        if any(self.zoneout):
            given["zoneout"] = self.zoneout[0] if len(set(self.zoneout)) == 1 else list(self.zoneout)
        return given

    def draw(self, rng: np.random.Generator, T: int, N: int, widths: tuple[int, ...], dtype: Any) -> dict[str, Array]:
        """What one layer and direction is told for a call in training, by the names of the functional core."""
        arrays = {}
        if self.recurrent_dropout:
            arrays["recurrent_mask"] = dropout_mask(rng, (N, widths[0]), self.recurrent_dropout, dtype)
        for name, p, width in zip(("zoneout_h", "zoneout_c"), self.zoneout, widths):
            if p:
                arrays[name] = (rng.random((T, N, width), dtype=dtype) < p).astype(dtype)
        return arrays

    def expectation(self, T: int, N: int, widths: tuple[int, ...], dtype: Any) -> dict[str, Array]:
        """The same in evaluation."""
        parts = zip(("zoneout_h", "zoneout_c"), self.zoneout, widths)
        return {name: np.broadcast_to(np.full(width, p, dtype), (T, N, width)) for name, p, width in parts if p}
