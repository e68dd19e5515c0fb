"""What training shows while it runs: a progress bar or plain lines."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from .tally import Means


class Bar:
    """One epoch on stderr: a bar while it runs, then a line of what it gave, all within the terminal's width. Where
    stderr is no terminal, the line only."""

    def __init__(self, total: int | None, title: str, visible: bool, done: int = 0) -> None:
        self.total, self._title = total, title
        self._file = sys.stderr if visible else None  # which may be None itself, where there is no console
        self._begin = time.perf_counter()
        self._bar: Any = None
        if self._file is not None and self._file.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=title, unit="batch", file=self._file, dynamic_ncols=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, means: Means) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_said(means.result(), 4), refresh=False)
            self._bar.update()

    def show(self, logs: dict[str, float]) -> None:
        """The end of the epoch: its numbers take the place of the bar."""
        if self._file is None:
            return
        values = {name: value for name, value in logs.items() if name not in ("seconds", "samples_per_second")}
        batches = "" if self.total is None else f"{self.total}/{self.total}, "
        head = f"{self._title}: {batches}{time.perf_counter() - self._begin:.1f} s, "
        if self._bar is None:
            print(head + _said(values, 4), file=self._file, flush=True)
            return
        columns = _columns(self._file) - 1  # a full line would wrap
        candidates = [head + _said(values, digits) for digits in (4, 3)]
        candidates += [f"{self._title}: {_said(values, digits)}" for digits in (4, 3, 2)]
        fitting = [line for line in candidates if len(line) <= columns]
        self._bar.bar_format = "{desc}"
        self._bar.set_description_str(fitting[0] if fitting else candidates[-1])


def _said(values: dict[str, float], digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}g}" for name, value in values.items())


def _columns(file: Any) -> int:
    """The width of the terminal that the file is."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
