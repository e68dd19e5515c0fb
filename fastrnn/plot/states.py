"""Maps over time: hidden states, gates, and which source steps a target depends on.

Letters: T time steps, T' target steps, H hidden size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .figure import page, step_labels

MOST_UNITS = 64
GRADIENTS = ("dh", "dc")
WORDS = {"i": "input i", "f": "forget f", "g": "candidate g", "o": "output o", "c": "cell c", "h": "state h"}
WORDS |= {"r": "reset r", "z": "update z", "n": "candidate n"}


def hidden_states(
    states: Any,
    labels: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    units: Sequence[int] | None = None,
    dark: bool = False,
) -> Any:
    """The states of one sequence, (T, H) or (T, 1, H), as a map: a row for each unit, a column for each step.

    labels: what was read at each step, such as characters. units: which rows, in that order; None for those that vary
    most, at most 64 of them, neighbours being alike."""
    values = _one_sequence("states", states)
    chosen = _telling_units(values) if units is None else np.asarray(units)
    with page(3.2, dark=dark, path=path) as sheet:
        axes = sheet.figure.subplots()
        _map(sheet, axes, values[:, chosen].T, labels)
        axes.set_ylabel("unit" if len(chosen) == values.shape[1] else f"{len(chosen)} of {values.shape[1]} units")
    return sheet.figure


def gates(
    trace: Mapping[str, Any],
    labels: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    units: Sequence[int] | None = None,
    dark: bool = False,
) -> Any:
    """What the gates of a cell do: name -> (T, H), or with a batch axis of 1, one map below the other, such as
    `layer.trace(x)["l0"]`, whose gradients are not drawn. Values from 0 to 1 are gates; those with a sign are states
    and candidates. The same units in each: `units`, or 24 that vary."""
    maps = {name: _one_sequence(f"trace[{name!r}]", values) for name, values in trace.items() if name not in GRADIENTS}
    if not maps:
        raise ValueError("trace: expected at least one gate or state, got none")
    first = next(iter(maps.values()))
    for name, values in maps.items():
        if values.shape != first.shape:
            raise ValueError(f"trace[{name!r}]: expected shape {first.shape} like the others, got {values.shape}")
    # Units that vary in all of the maps, however large the numbers of one are.
    alike = [values / max(float(values.std(axis=0).max()), 1e-12) for values in maps.values()]
    chosen = _telling_units(np.concatenate(alike), 24) if units is None else np.asarray(units)
    with page(0.4 + 1.15 * len(maps), dark=dark, path=path) as sheet:
        panels = sheet.figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, maps.items()):
            _map(sheet, axes, values[:, chosen].T, labels if axes is panels[-1] else None)
            axes.set_ylabel(WORDS.get(name, name))
            axes.set_yticks([])
            if axes is not panels[-1]:
                axes.set_xlabel("")
                axes.tick_params(axis="x", length=0)
    return sheet.figure


def alignment(
    weights: Any,
    source: Sequence[str],
    target: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    dark: bool = False,
) -> Any:
    """How much each target step (rows) depends on each source step (columns): weights (T', T), none below 0; the
    largest one has the full colour. `fastrnn.diagnose.alignment` measures them for any `EncoderDecoder`."""
    table = np.asarray(weights, float)
    if table.shape != (len(target), len(source)):
        raise ValueError(f"weights: expected shape ({len(target)}, {len(source)}), got {table.shape}")
    height = min(6.0, 0.8 + 0.24 * len(target))
    with page(height, dark=dark, path=path, width=min(7.2, 1.6 + 0.26 * len(source))) as sheet:
        axes = sheet.figure.subplots()
        axes.imshow(
            table,
            cmap=sheet.rising,
            vmin=0,
            vmax=max(float(table.max()), 1e-12),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_yticks(range(len(target)), [{" ": "␣"}.get(label, label) for label in target])
        step_labels(axes, source, len(source))
        axes.set_xlabel("read")
        axes.set_ylabel("written")
        axes.tick_params(length=0)
    return sheet.figure


def _map(sheet: Any, axes: Any, values: Any, labels: Any) -> None:
    """Units down, steps across, with a bar of colours: from 0 to 1, or with a sign around 0."""
    signed = values.min() < 0
    most = max(float(np.abs(values).max()), 1e-12)
    limits = {"vmin": -most, "vmax": most} if signed else {"vmin": 0.0, "vmax": max(1.0, most)}
    colours = sheet.diverging if signed else sheet.rising
    image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=colours, **limits)
    step_labels(axes, labels, values.shape[1])
    bar = sheet.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=12)
    bar.outline.set_visible(False)
    bar.locator.set_params(nbins=3)
    bar.update_ticks()


def _one_sequence(name: str, values: Any) -> Any:
    values = np.asarray(values, float)
    if values.ndim == 3 and 1 in values.shape[:2]:
        values = values.reshape(-1, values.shape[2])
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: expected one sequence (T, H) or (T, 1, H), got shape {values.shape}")
    return values


def _telling_units(values: Any, most: int = MOST_UNITS) -> Any:
    """The units that vary most, in an order in which neighbours are alike: along the first principal direction."""
    chosen = np.sort(np.argsort(-values.std(axis=0), kind="stable")[:most])
    centred = values[:, chosen] - values[:, chosen].mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return chosen[np.argsort(direction, kind="stable")]
