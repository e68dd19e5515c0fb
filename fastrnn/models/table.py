"""Table: columns of numbers by name, as a CSV file has them.

Letters: R rows, C columns.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """names of C columns, and values (R, C), float64."""

    names: tuple[str, ...]
    values: Array

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Table:
        """A file with names in its first line and a row in each other one, separated by commas, semicolons or tabs.
        columns: those to read; None for all that hold numbers in the first row (dates and words are left out).

        Raises OSError for a file that cannot be read, ValueError that names the file, the line and what is wrong."""
        name = os.fspath(path)
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                head = file.readline()
                separator = max(",;\t", key=head.count)
                names = [title.strip() for title in next(csv.reader([head], delimiter=separator), [])]
                rows = [row for row in csv.reader(file, delimiter=separator) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{name}: expected a CSV file in UTF-8, got {error}") from None
        if not names or not rows:
            raise ValueError(f"{name}: expected a line of names and at least one row, got {len(rows)} rows")
        wanted = [k for k, field in enumerate(rows[0]) if k < len(names) and _is_number(field)]
        if columns is not None:
            missing = [column for column in columns if column not in names]
            if missing:
                raise ValueError(f"{name}: expected a column {missing[0]!r}, got {', '.join(names)}")
            wanted = [names.index(column) for column in columns]
        if not wanted:
            raise ValueError(f"{name}: expected columns of numbers, got none in its first row")
        values = np.empty((len(rows), len(wanted)))
        for r, row in enumerate(rows):
            if len(row) != len(names):
                raise ValueError(f"{name}: expected {len(names)} fields in row {r + 1}, got {len(row)}")
            for c, k in enumerate(wanted):
                if not _is_number(row[k]):
                    raise ValueError(f"{name}: expected a number for {names[k]!r} in row {r + 1}, got {row[k]!r}")
                values[r, c] = float(row[k])
        return cls(tuple(names[k] for k in wanted), values)

    def select(self, names: Sequence[str]) -> Array:
        """(R, len(names)): those columns, in that order. Raises ValueError that names one that is missing."""
        for name in names:
            if name not in self.names:
                raise ValueError(f"table: expected a column {name!r}, got {', '.join(self.names)}")
        return self.values[:, [self.names.index(name) for name in names]]

    def __len__(self) -> int:
        return len(self.values)


def _is_number(field: str) -> bool:
    """A finite one."""
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False
