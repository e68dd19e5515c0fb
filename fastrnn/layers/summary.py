"""A table of a model's layers: output shapes, parameters, memory.

Letters: T time steps, N batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .weights import Array

if TYPE_CHECKING:
    from .module import Module

UNKNOWN = "?"
Row = tuple[str, str, str, str]


def summarize(model: Module, x: Any = None) -> str:
    """See `Module.summary`."""
    head: Row = ("layer", "output", "parameters", "trainable")
    x = _example(model) if x is None else np.asarray(x)
    arrays, trained = model.params, model.trainable_params
    int8 = any(a.dtype == np.int8 for a in arrays.values())
    if int8:
        trained = {}  # a Trainer refuses the model as a whole, layers of float32 in it too
    rows = list(_rows("", model, x, model.aliases(), model.batch_first, not int8))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    line = "  ".join("-" * width for width in widths)

    def text(row: Row) -> str:
        name, shape, count, trains = (cell.ljust(width) for cell, width in zip(row, widths))
        return f"{name}  {shape}  {count.strip().rjust(widths[2])}  {trains}".rstrip()

    total, trains = (sum(a.size for a in params.values()) for params in (arrays, trained))
    size = sum(a.nbytes for a in arrays.values())
    adam = _bytes(2 * sum(a.nbytes for a in trained.values()))
    learning = f", in training as much for gradients, {adam} for Adam's state"
    dtypes = ", ".join(sorted({str(a.dtype) for a in arrays.values()})) or "none"
    return "\n".join(
        [
            text(head),
            line,
            *map(text, rows),
            line,
            f"{total:,} parameters ({dtypes}), {trains:,} trainable",
            f"memory: {_bytes(size)}" + ("; int8 weights are for inference, without gradients" if int8 else learning),
        ]
    )


def _rows(
    name: str, layer: Module, x: Any, aliases: dict[str, str], batch_first: bool | None, learns: bool
) -> Iterator[Row]:
    """A row for each layer that computes. name: what its parameters' names begin with. learns: if the model can."""
    children = layer.children()
    if children:
        for index, child in enumerate(children):
            yield from _rows(f"{name}{index}.", child, x, aliases, batch_first, learns)
            x = _output(child, x)
        return
    if layer.parts():  # no chain: each part by itself
        for part, inner in layer.parts().items():
            yield from _rows(f"{name}{part}.", inner, _example(inner), aliases, inner.batch_first, learns)
        return
    own = {f"{name}{key}": value for key, value in layer.params.items()}
    tied = [aliases[key] for key in own if key in aliases]
    count = f"{sum(a.size for key, a in own.items() if key not in aliases):,}"
    trains = "" if not own else ("yes" if learns and layer.trainable else "no")
    if tied:
        trains += f", tied to {', '.join(tied)}"
    label = f"{name[:-1]} {type(layer).__name__}".strip()
    yield label, _shape(_output(layer, x), batch_first), count, trains


def _example(model: Module) -> Array | None:
    """Zeros that the model reads, of a batch of 2 and 3 steps; None where it does not say what it reads."""
    first = next((layer for layer in model.flatten() if layer.reads is not None), None)
    shape: tuple[int, ...] = (2, 3) if model.batch_first else (3, 2)
    if not model.time.in_x:
        shape = (2,)
    if first is None:
        return None
    if first.reads == "tokens":
        return np.zeros(shape, np.int64)
    return None if first.features is None else np.zeros((*shape, first.features), getattr(first, "dtype", np.float32))


def _output(layer: Module, x: Any) -> Any:
    if x is None:
        return None
    try:
        return layer.forward(x)[0]
    except (TypeError, ValueError, IndexError, NotImplementedError):  # one that needs targets or trees, or another x
        return None


def _shape(y: Any, batch_first: bool | None) -> str:
    """With letters for the axes of batch and time."""
    if y is None:
        return UNKNOWN
    letters = {2: ["N"], 3: ["...", "..."] if batch_first is None else ["N", "T"] if batch_first else ["T", "N"]}
    leading = letters.get(y.ndim, [])
    return f"({', '.join([*leading, *map(str, y.shape[len(leading) :])])})".replace("..., ...", "...")


def _bytes(count: int) -> str:
    """In the largest unit of which there is one."""
    size, unit = float(count), 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
