"""SeriesModel: tells one column of a table some rows ahead.

Letters: R rows, C columns, N samples, T = window.

Design: a `Sequential` that carries its columns and their means and deviations in its description, so that a model that
was loaded takes tables as they are and answers in the units of its target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._validate import as_generator, check_choice, check_probability, check_size
from ..layers import Dropout, LastStep, Linear, Sequential
from .language import CELLS
from .table import Table

Array = NDArray[Any]


class SeriesModel(Sequential):
    """A recurrent layer over the last `window` rows of all columns, and from its last output the target.

        table = fastrnn.models.Table.read_csv("series.csv")
        model = fastrnn.models.SeriesModel.of(table, "temperature", window=24)
        trainer = fastrnn.Trainer(model, "mse")
        trainer.fit(*model.samples(table), epochs=20)
        model.forecast(table)[-1]                        # the row after the last one

    columns: names of what it reads. target: the name of what it tells, `horizon` rows behind the last one that it has
    read. mean, deviation: of the columns and, last, of the target, by which all of them are standardised.
    """

    def __init__(
        self,
        columns: Sequence[str],
        target: str,
        *,
        window: int = 24,
        horizon: int = 1,
        cell: Literal["lstm", "gru", "rnn"] = "gru",
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        C, H, rng = len(columns), check_size("hidden_size", hidden_size), as_generator("rng", rng)
        kind, p = CELLS[check_choice("cell", cell, tuple(CELLS))], check_probability("dropout", dropout)
        num_layers = check_size("num_layers", num_layers)
        between: Any = {"dropout": p} if num_layers > 1 else {}
        super().__init__(
            kind(C, H, num_layers, batch_first=True, rng=rng, **between),
            LastStep(batch_first=True),
            *([Dropout(p, rng=rng)] if p else []),
            Linear(H, 1, rng=rng),
        )
        self.columns, self.target = tuple(columns), target
        self.window, self.horizon = check_size("window", window), check_size("horizon", horizon)
        self.mean = np.zeros(C + 1) if mean is None else np.asarray(mean, np.float64)
        self.deviation = np.ones(C + 1) if deviation is None else np.asarray(deviation, np.float64)
        for name, value in (("mean", self.mean), ("deviation", self.deviation)):
            if value.shape != (C + 1,):
                raise ValueError(f"{name}: expected {C + 1} numbers, of the columns and the target, got {value.shape}")
        self._options = {"cell": cell, "hidden_size": H, "num_layers": num_layers, "dropout": p}

    @classmethod
    def of(cls, table: Table, target: str, columns: Sequence[str] | None = None, **options: Any) -> SeriesModel:
        """A model for the columns of a table, None for all of them; means and deviations are those of its rows."""
        columns = table.names if columns is None else tuple(columns)
        values = table.select([*columns, target])
        deviation = values.std(axis=0)
        deviation[deviation == 0] = 1.0
        return cls(columns, target, mean=values.mean(axis=0), deviation=deviation, **options)

    def samples(self, table: Table) -> tuple[Array, Array]:
        """x (N, T, C) and y (N, 1), standardised, float32, with N = R - T - horizon + 1. Raises ValueError for a table
        without the model's columns or with too few rows."""
        x, count = self._windows(table), len(table) - self.window - self.horizon + 1
        if count < 1:
            least = self.window + self.horizon
            raise ValueError(f"table: expected at least window + horizon = {least} rows, got {len(table)}")
        y = (table.select([self.target]) - self.mean[-1]) / self.deviation[-1]
        return x[:count], y[self.window + self.horizon - 1 :].astype(np.float32)

    def forecast(self, table: Table, batch_size: int = 1024) -> Array:
        """(R - T + 1,): the target `horizon` rows behind each row that has a whole window, the last ones beyond the
        table's end. In the target's units, float64."""
        x = self._windows(table)
        y = [self(x[start : start + batch_size])[:, 0] for start in range(0, len(x), batch_size)]
        return np.concatenate(y).astype(np.float64) * self.deviation[-1] + self.mean[-1]

    def _windows(self, table: Table) -> Array:
        values = (table.select(self.columns) - self.mean[:-1]) / self.deviation[:-1]
        if len(values) < self.window:
            raise ValueError(f"table: expected at least window = {self.window} rows, got {len(values)}")
        rows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), self.window, axis=0)
        return np.ascontiguousarray(rows.swapaxes(1, 2))

    def arguments(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "target": self.target,
            "window": self.window,
            "horizon": self.horizon,
            **self._options,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SeriesModel:
        return cls(**{name: value for name, value in config.items() if name != "class"})

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"SeriesModel({list(self.columns)}, {self.target!r}, window={self.window}, {options})"
