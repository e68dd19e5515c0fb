"""Lines: learning curves, and the norm of the gradient at each step of time.

Letters: T time steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .figure import page

NOT_DRAWN = ("seconds", "samples_per_second", "lr")


def learning_curve(
    history: Mapping[str, Any], path: str | os.PathLike[str] | None = None, *, dark: bool = False
) -> Any:
    """Loss and each metric by epoch, in training and, where there are any, on validation data; a ring marks the best
    validation value. history: a `fastrnn.History`, or a dict of lists. Raises ValueError for one without epochs."""
    names = [name for name in history if not name.startswith("val_") and name not in NOT_DRAWN]
    epochs = max((len(history[name]) for name in names), default=0)
    if not epochs:
        raise ValueError("history: expected at least one epoch, got none")
    with page(2.6, dark=dark, path=path) as sheet:
        panels = sheet.figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names):
            for k, (key, label) in enumerate(((name, "training"), (f"val_{name}", "validation"))):
                if key not in history:
                    continue
                values = np.array([np.nan if value is None else value for value in history[key]], float)
                x = np.arange(1, len(values) + 1)
                marker = "." if epochs <= 40 else None
                axes.plot(x, values, marker=marker, color=sheet.colour(k), label=label)
                if k and np.isfinite(values).any():
                    best = np.nanargmax(values) if name.endswith(("accuracy", "f1", "r2")) else np.nanargmin(values)
                    axes.plot(x[best], values[best], "o", mfc="none", ms=9, color=sheet.colour(k))
                    axes.set_title(f"best {values[best]:.4g} at epoch {x[best]}", loc="right", fontsize=8)
            axes.set_xlabel("epoch")
            axes.set_ylabel(name.replace("_", " "))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.5, lw=0.5)
            if len(axes.lines) > 1:
                axes.legend()
    return sheet.figure


def draw_learning_curve(history: Any, path: str | os.PathLike[str]) -> None:
    """`learning_curve`, as PNG. Needs matplotlib."""
    learning_curve(history).savefig(path, dpi=150, format="png")


def gradient_norms(
    norms: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    dark: bool = False,
    title: str | None = None,
) -> Any:
    """How the gradient shrinks or grows on its way back: name -> |dL/dh_t| (T,), one line each, on a logarithmic axis.

    `fastrnn.diagnose.gradient_norms(layer, x)` measures them. Norms of 0 are not drawn: the line ends there."""
    with page(3.0, dark=dark, path=path) as sheet:
        axes = sheet.figure.subplots()
        drawn: list[str] = []
        kinds: dict[str, int] = {}  # "LSTM" and "LSTM, biased" are of one colour, differently dashed
        for name, values in norms.items():
            values, kind = np.asarray(values, float), name.partition(",")[0]
            if values.ndim != 1:
                raise ValueError(f"norms[{name!r}]: expected shape (T,), got {values.shape}")
            shown = np.where(values > 0, values, np.nan)
            dash = ("-", "--", ":", "-.")[sum(other.partition(",")[0] == kind for other in drawn) % 4]
            colour = sheet.colour(kinds.setdefault(kind, len(kinds)))
            axes.semilogy(np.arange(1, len(values) + 1), shown, dash, color=colour, label=name)
            drawn.append(name)
        axes.set_xlabel("time step t; the loss is at the last one")
        axes.set_ylabel("|dL/dh$_t$|")
        axes.grid(alpha=0.5, lw=0.5)
        axes.set_title(title or "")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return sheet.figure
