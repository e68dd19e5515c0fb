"""Word vectors in two dimensions.

Letters: V words, D size of a vector.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .figure import page


def word_vectors(
    vectors: Any,
    words: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    groups: Sequence[Any] | None = None,
    most: int = 120,
    dark: bool = False,
) -> Any:
    """Words at the two directions in which their vectors vary most (principal components, by NumPy's SVD).

    vectors: word vectors with `vectors` and `index_to_key`, as those of `fastrnn.words` and gensim, or an array (V, D).
    words: which words, in that order; of an array the names of its rows; None for the first `most`, the most frequent.
    groups: one for each word, such as a topic, to be told apart by colour. Words that would overlap are left as dots.
    Raises ValueError for an array without names and for words that are not there.
    """
    table, names = _chosen(vectors, words, most)
    if groups is not None and len(groups) != len(names):
        raise ValueError(f"groups: expected one for each of {len(names)} words, got {len(groups)}")
    x, y, shares = principal_components(table)
    with page(5.0, dark=dark, path=path) as sheet:
        axes = sheet.figure.subplots()
        kinds = list(dict.fromkeys(groups or [None]))
        colours = [sheet.colour(kinds.index(group)) for group in groups or [None] * len(x)]
        axes.scatter(x, y, s=9, c=colours)
        if groups is not None:
            for kind in kinds:
                axes.scatter([], [], s=16, c=sheet.colour(kinds.index(kind)), label=str(kind))
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel(f"first direction, {100 * shares[0]:.0f}% of the variance")
        axes.set_ylabel(f"second, {100 * shares[1]:.0f}%")
        axes.margins(0.08)
        sheet.figure.draw_without_rendering()
        _name(axes, x, y, names, colours)
    return sheet.figure


def principal_components(table: Any) -> tuple[Any, Any, Any]:
    """x and y (V,), and which shares of the variance the two have."""
    centred = table - table.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u, s = np.pad(u, ((0, 0), (0, max(0, 2 - len(s))))), np.pad(s, (0, max(0, 2 - len(s))))
    return u[:, 0] * s[0], u[:, 1] * s[1], s[:2] ** 2 / max(float((s**2).sum()), np.finfo(float).tiny)


def _chosen(vectors: Any, words: Sequence[str] | None, most: int) -> tuple[Any, list[str]]:
    table = np.asarray(getattr(vectors, "vectors", vectors), float)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"vectors: expected shape (V, D) with at least 2 words, got {table.shape}")
    if not hasattr(vectors, "index_to_key"):
        if words is None or len(words) != len(table):
            got = "none" if words is None else len(words)
            raise ValueError(f"words: expected a name for each of {len(table)} rows, got {got}")
        return table[:most], list(words)[:most]
    index = {word: k for k, word in enumerate(vectors.index_to_key)}
    names = list(vectors.index_to_key[:most]) if words is None else list(words)
    missing = [word for word in names if word not in index]
    if missing:
        raise ValueError(f"words: expected words that have a vector, got {missing[0]!r}")
    return table[[index[word] for word in names]], names


def _name(axes: Any, x: Any, y: Any, names: Sequence[str], colours: Sequence[str]) -> None:
    """A name beside each dot, on the first side where it covers no other name; none where it would."""
    from matplotlib.transforms import Bbox

    dots = axes.transData.transform(np.stack([x, y], axis=1))
    taken: list[Any] = [Bbox.from_bounds(a - 4, b - 4, 8, 8) for a, b in dots]
    sides = ((5, 0, "left", "center"), (-5, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top"))
    for a, b, name, colour in zip(x, y, names, colours):
        for dx, dy, horizontal, vertical in sides:
            text = axes.annotate(
                name, (a, b), (dx, dy), textcoords="offset points", ha=horizontal, va=vertical, fontsize=8, color=colour
            )
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
