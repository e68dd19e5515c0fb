"""What the sequences of a stateful `fit` and of `partial_fit` have come to, from where the next call goes on."""

from __future__ import annotations

from dataclasses import dataclass

from .bptt import State


@dataclass
class CarriedState:
    """The state of N = rows sequences side by side. None is that of zeros, and rows None is any number of them."""

    state: State = None
    rows: int | None = None
