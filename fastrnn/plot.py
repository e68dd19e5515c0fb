"""Pictures, for which matplotlib is needed: pip install "fastrnn[plot]". It is imported when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .trainer import History


class MissingMatplotlib(ImportError):
    """Pictures need matplotlib."""


def make_figure(**options: Any) -> Any:
    """A figure of matplotlib that no window system is needed for. Raises MissingMatplotlib, an ImportError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingMatplotlib('matplotlib is not installed: pip install "fastrnn[plot]"') from None
    return Figure(layout="constrained", **options)


def draw_learning_curve(history: History, path: str | Path) -> None:
    """Loss and accuracy by epoch, on training and test digits, as PNG. Needs matplotlib."""
    figure = make_figure(figsize=(9, 3.6))
    epochs = range(1, history.epochs + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        axes.plot(epochs, history[name], marker=".", label="training")
        axes.plot(epochs, history[f"val_{name}"], marker=".", label="test")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")
