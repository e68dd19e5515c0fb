"""What all pictures share: a figure without a window system, colours for light and dark pages, writing to a file.

Design: figures are made at the width of a page, 7.2 inches, with letters of 9 points, so that they are read as they
are. Colours are those of Okabe and Ito, which colour-blind readers can tell apart; the dark theme has the lighter ones.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

PAGE = 7.2  # inches
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#555555")
DARK = ("#56B4E9", "#E69F00", "#2FC79A", "#E59AC6", "#F0E442", "#BBBBBB")


class MissingMatplotlib(ImportError):
    """Pictures need matplotlib."""


def make_figure(**options: Any) -> Any:
    """A figure of matplotlib that no window system is needed for. Raises MissingMatplotlib, an ImportError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingMatplotlib('matplotlib is not installed: pip install "fastrnn[plot]"') from None
    return Figure(layout="constrained", **options)


class Page:
    """A figure under way: `figure`, the `colours` of its lines, `ink` for text and `paper` behind it, in a theme."""

    def __init__(self, height: float, dark: bool, width: float = PAGE) -> None:
        self.dark = dark
        self.ink, self.paper, self.faint = (
            ("#e6e6e6", "#16181d", "#444a54") if dark else ("#222222", "white", "#d0d0d0")
        )
        self.colours = DARK if dark else LIGHT
        self.figure = make_figure(figsize=(width, height), facecolor=self.paper)

    def colour(self, k: int) -> str:
        return self.colours[k % len(self.colours)]

    @property
    def diverging(self) -> Any:
        """From one colour through that of the paper, for 0, to another."""
        from matplotlib.colors import LinearSegmentedColormap

        ends = ("#56B4E9", self.paper, "#E69F00") if self.dark else ("#0072B2", self.paper, "#D55E00")
        return LinearSegmentedColormap.from_list("fastrnn", ends)

    @property
    def rising(self) -> Any:
        """From the colour of the paper to one that stands out."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("fastrnn", (self.paper, "#56B4E9" if self.dark else "#0072B2"))


@contextlib.contextmanager
def page(height: float, *, dark: bool, path: str | os.PathLike[str] | None, width: float = PAGE) -> Iterator[Page]:
    """A page to draw on, which is written to `path` in the end. Raises MissingMatplotlib."""
    make_figure()  # says what is missing before anything else does
    from matplotlib import rc_context

    made = Page(height, dark, width)
    with rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.facecolor": made.paper,
            "axes.edgecolor": made.ink,
            "axes.labelcolor": made.ink,
            "axes.titlecolor": made.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.color": made.ink,
            "xtick.color": made.ink,
            "ytick.color": made.ink,
            "grid.color": made.faint,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
        }
    ):
        yield made
        if path is not None:
            made.figure.savefig(path, dpi=150, facecolor=made.paper)


def step_labels(axes: Any, labels: Any, steps: int) -> None:
    """What stands below the steps of time: characters or words, or their numbers where there are none."""
    if labels is None:
        axes.set_xlabel("time step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return
    labels = [{"\n": "\\n", " ": "␣"}.get(str(label), str(label)) for label in labels]
    if len(labels) != steps:
        raise ValueError(f"labels: expected one for each of {steps} steps, got {len(labels)}")
    longest = max(map(len, labels), default=0)
    axes.set_xticks(range(steps), labels, rotation=90 if longest > 3 or (longest > 1 and steps > 40) else 0)
    axes.tick_params(axis="x", length=0, labelsize=9 if steps <= 60 else 6)
