"""What training reports, epoch by epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any


class History(dict[str, "list[Any]"]):
    """Name -> one number per epoch: loss, metrics, val_loss, val_..., seconds, samples_per_second.

    loss and metrics are means over the epoch's training batches while the weights changed; seconds and
    samples_per_second tell of the training pass, without validation. All lists are of the same length, of floats; None
    stands where an epoch has no such number. A plain dict of lists, so `json.dumps` takes it.
    """

    @property
    def epochs(self) -> int:
        return max(map(len, self.values()), default=0)

    def append(self, logs: Mapping[str, float]) -> None:
        """Add one epoch."""
        before = self.epochs
        for name in logs:
            self.setdefault(name, [None] * before)
        for name, values in self.items():
            values.append(logs.get(name))

    def epoch(self, index: int) -> dict[str, float]:
        """The numbers of one epoch, counted from 0; -1 is the last."""
        numbers = {name: values[index] for name, values in self.items()}
        return {name: value for name, value in numbers.items() if value is not None}

    def plot(self, path: str | os.PathLike[str] | None = None, *, dark: bool = False) -> Any:
        """Learning curves as a figure of matplotlib: see `fastrnn.plot.learning_curve`."""
        from ..plot import learning_curve

        return learning_curve(self, path, dark=dark)

    def to_json(self) -> str:
        return json.dumps(self)
