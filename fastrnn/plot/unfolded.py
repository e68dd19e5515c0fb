"""A network unfolded in time, as texts draw it: a column for each step, arrows for the weights that they share."""

from __future__ import annotations

import os
from typing import Any

from ..layers import Module
from .figure import PAGE, page

Node = tuple[float, float]
RADIUS = 0.27


def unfolded(model: Module, path: str | os.PathLike[str] | None = None, *, steps: int = 4, dark: bool = False) -> Any:
    """A model of layers, x at the bottom and y at the top: recurrent layers with an arrow from each step to the next
    one (backwards too where they are bidirectional), all others as boxes. The last column stands for step T.

    model: a layer or a `Sequential`. Letters in a circle: the state; beside the arrows: the weights, W_hx into it, W_hh
    along it; each column has the same."""
    rows, reduces = _rows(model)
    columns = [1.6 * k for k in range(steps)] + [1.6 * steps + 0.5]
    names = [*(str(k + 1) for k in range(steps)), "T"]
    left, right, top = columns[0] - 3.2, columns[-1] + 0.5, len(rows) + 1
    with page(PAGE * (top + 0.6) / (right - left), dark=dark, path=path) as sheet:
        axes = sheet.figure.subplots()
        for level, row in enumerate(rows):
            shown = slice(0, None) if level < reduces else slice(-1, None)
            for x, name in zip(columns[shown], names[shown]):
                _node(sheet, axes, (x, level + 1), row, name)
                start = level + (rows[level - 1].half if level else 0.2)
                _arrow(sheet, axes, (x, start), (x, level + 1 - row.half))
            if row.recurrent:
                _chain(sheet, axes, columns, level + 1, row)
                axes.text(columns[0] + 0.08, level + 0.47, row.into, fontsize=9, va="center")
            axes.text(columns[0] - 1.5, level + 1, row.title, ha="right", va="center", fontsize=9)
        for x, name in zip(columns, names):
            axes.text(x, 0, f"$x_{{{name}}}$", ha="center", va="center", fontsize=11)
        for x, name in zip(columns, names) if reduces == len(rows) else [(columns[-1], "")]:
            _arrow(sheet, axes, (x, top - 1 + rows[-1].half), (x, top - 0.2))
            axes.text(x, top, f"$y_{{{name}}}$" if name else "$y$", ha="center", va="center", fontsize=11)
        axes.text((columns[-2] + columns[-1]) / 2, 0, "…", ha="center", va="center", fontsize=12)
        axes.set_xlim(left, right)
        axes.set_ylim(-0.3, top + 0.3)
        axes.set_aspect("equal")
        axes.set_axis_off()
    return sheet.figure


class _Row:
    """One level of the picture: a recurrent layer in circles, or another one in boxes."""

    def __init__(self, title: str, inside: str = "", level: int | None = None, both: bool = False) -> None:
        self.recurrent = level is not None
        self.title, self.inside, self.both = title, inside, both
        self.half = RADIUS if self.recurrent else 0.2  # of the height
        mark = f"^{{({level})}}" if level else ""
        self.state = f"h{mark}"
        self.into, self.along = f"$W_{{hx}}{mark}$", f"$W_{{hh}}{mark}$"


def _rows(model: Module) -> tuple[list[_Row], int]:
    """From the bottom, and from which row on there is only the last column."""
    layers = [layer for layer in model.flatten() if type(layer).__name__ != "Dropout"]
    levels = sum(layer.state_spec.levels for layer in layers if layer.state_spec is not None)
    if not levels:
        raise ValueError(f"model: expected a recurrent layer to unfold, got {type(model).__name__} without one")
    rows: list[_Row] = []
    level, reduces, note = 0, None, ""
    for layer in layers:
        name, spec = type(layer).__name__, layer.state_spec
        sizes = {key: value for key, value in layer.arguments().items() if isinstance(value, int)}
        if spec is not None:
            width = f", H={sizes['hidden_size']}" if "hidden_size" in sizes else ""
            for _ in range(spec.levels):
                level += 1
                title = f"{name}{width}" + (f"\nlayer {level}" if levels > 1 else "")
                rows.append(_Row(title, level=level if levels > 1 else 0, both=spec.directions == 2))
        elif layer.time.in_x and not layer.time.in_y:
            reduces, note = len(rows), f"\nafter {name}"
        else:
            sign = {"Embedding": "$E$", "Linear": "$W_{hy}$"}.get(name, "$f$")
            out = sizes.get("out_features", sizes.get("embedding_dim"))
            rows.append(_Row(name + (f", {out}" if out else "") + note, sign))
            note = ""
    return rows, len(rows) if reduces is None else reduces


def _node(sheet: Any, axes: Any, at: Node, row: _Row, step: str) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    x, y = at
    style = {"fc": sheet.paper, "ec": sheet.colour(0 if row.recurrent else 2), "lw": 1.6, "zorder": 2}
    if row.recurrent:
        axes.add_patch(Circle(at, RADIUS, **style))
        axes.text(x, y, f"${row.state}_{{{step}}}$", ha="center", va="center", fontsize=9, zorder=3)
    else:
        corner, size = (x - 0.27, y - 0.17), (0.54, 0.34)
        axes.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.03", **style))
        axes.text(x, y, row.inside, ha="center", va="center", fontsize=9, zorder=3)


def _chain(sheet: Any, axes: Any, columns: list[float], y: float, row: _Row) -> None:
    """The arrows along time, with dots before the last step."""
    shift = 0.1 if row.both else 0.0
    places = [columns[0] - 0.85, *columns]
    for k, (left, right) in enumerate(zip(places[:-1], columns)):
        start, stop = left + (RADIUS if k else 0.12), right - RADIUS
        if k == len(columns) - 1:
            axes.text((start + stop) / 2, y, "…", ha="center", va="center", fontsize=12)
            continue
        _arrow(sheet, axes, (start, y + shift), (stop, y + shift))
        if k and row.both:
            _arrow(sheet, axes, (stop, y - shift), (start, y - shift))
        if k == 1:
            axes.text((start + stop) / 2, y + 0.1 + shift, row.along, ha="center", va="bottom", fontsize=9)
    axes.text(places[0] + 0.08, y + shift, f"${row.state}_0$", ha="right", va="center", fontsize=9)


def _arrow(sheet: Any, axes: Any, start: Node, stop: Node) -> None:
    style = {"arrowstyle": "-|>", "color": sheet.ink, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    axes.annotate("", stop, start, arrowprops=style, zorder=1)
