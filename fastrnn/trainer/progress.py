"""What training shows while it runs: means of what the batches gave, and a progress bar."""

from __future__ import annotations

import math
from typing import Any


class Means:
    """Weighted means of what the batches of an epoch gave."""

    def __init__(self) -> None:
        self._sums = {"loss": 0.0}
        self._weights = {"loss": 0}

    def add(self, values: dict[str, tuple[float, int]]) -> None:
        for name, (value, weight) in values.items():
            if weight:
                self._sums[name] = self._sums.get(name, 0.0) + value * weight
                self._weights[name] = self._weights.get(name, 0) + weight

    def result(self) -> dict[str, float]:
        """The loss is nan where nothing counted."""
        weights = self._weights
        return {name: total / weights[name] if weights[name] else math.nan for name, total in self._sums.items()}


class Bar:
    """A progress bar for one epoch, or nothing."""

    def __init__(self, total: int, title: str, visible: bool) -> None:
        self.total = total
        self._bar = None
        if visible:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="batch")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, means: Means) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_said(means.result()), refresh=False)
            self._bar.update()

    def show(self, logs: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_said(logs))


def _said(logs: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if name != "seconds")
