"""What training reports, epoch by epoch."""

from __future__ import annotations

import csv
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

    def since(self, first: int) -> History:
        """The epochs from this one on, without numbers that none of them has."""
        parts = {name: values[first:] for name, values in self.items()}
        return History({name: values for name, values in parts.items() if any(v is not None for v in values)})

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each epoch, which are its index, from 1."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("history.to_frame() needs pandas: pip install pandas") from None
        return pd.DataFrame(dict(self), index=pd.RangeIndex(1, self.epochs + 1, name="epoch"))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """A line for each epoch, numbered from 1, under a line of names; empty where there is no number."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *self])
            for index in range(self.epochs):
                row = [values[index] for values in self.values()]
                writer.writerow([index + 1, *("" if value is None else repr(value) for value in row)])

    def to_json(self) -> str:
        return json.dumps(self)
