"""Where batches come from: arrays in memory or mapped from disk, or any iterable of batches, one at a time.

Letters: N samples, T time steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import Batch, Data

if TYPE_CHECKING:
    from .loop import Plan

NAMES = ("x", "y", "lengths", "sample_weight")  # of the entries of a batch that is a tuple
OPTIONS = (*NAMES, "reset_mask", "mask")
Make = Callable[..., Data]
Batches = Iterator[Callable[[], Batch]]  # functions that make them: who goes on in the middle passes over those before


class Arrays:
    """Samples that are all at hand, ordered by the trainer."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def count(self, batch_size: int) -> int | None:
        """How many batches an epoch has; None where nobody knows."""
        return math.ceil(len(self.data) / batch_size)

    def order_state(self, rng: np.random.Generator) -> Any:
        """JSON-able: what the order of the next epoch's samples depends on, before it is drawn."""
        return rng.bit_generator.state

    def batches(self, plan: Plan, rng: np.random.Generator, order: Any, epoch: int) -> Batches:
        rng.bit_generator.state = order
        for rows in self.data.order(plan.batch_size, rng if plan.shuffle else None, plan.bucket):
            yield lambda rows=rows: Batch(self.data, rows)  # type: ignore[misc]


class Stream:
    """An iterable of batches, gone through once in each epoch: a list, a DataLoader of PyTorch, an object of one's own,
    or a function that returns an iterator. Only one batch is in memory at a time.

    A batch is (x, y), (x, y, lengths), (x, y, lengths, sample_weight), or a dict of these names, reset_mask and mask.
    An object with `set_epoch(epoch)` is told the epoch. The `generator` of a DataLoader is put back into the state that
    it had, so that a run that goes on sees the same order.
    """

    def __init__(self, batches: Any, make: Make) -> None:
        if any(
            f"{cls.__module__}.{cls.__name__}" == "torch.utils.data.dataset.Dataset" for cls in type(batches).__mro__
        ):
            name = type(batches).__name__
            raise TypeError(
                f"x: expected batches, got a {name} of samples; write torch.utils.data.DataLoader(x, batch_size=32)"
            )
        self.given, self.make = batches, make

    def count(self, batch_size: int) -> int | None:
        try:
            return len(self.given)
        except TypeError:
            return None

    def order_state(self, rng: np.random.Generator) -> Any:
        generator: Any = getattr(self.given, "generator", None)
        return generator.get_state().tolist() if hasattr(generator, "get_state") else None

    def batches(self, plan: Plan, rng: np.random.Generator, order: Any, epoch: int) -> Batches:
        if order is not None:
            self._restore(order)
        if hasattr(self.given, "set_epoch"):
            self.given.set_epoch(epoch)
        for batch in self.raw():
            yield lambda batch=batch: self.read(batch)  # type: ignore[misc]

    def raw(self) -> Iterator[Any]:
        return iter(self.given() if callable(self.given) else self.given)

    def read(self, batch: Any) -> Batch:
        """Raises TypeError for what is no batch, and what `Data` raises."""
        if isinstance(batch, Mapping):
            unknown = [name for name in batch if name not in OPTIONS]
            if unknown or "x" not in batch or "y" not in batch:
                raise TypeError(
                    f"x: expected batches with {', '.join(OPTIONS)}, got entries {', '.join(map(str, batch))}"
                )
            parts = dict(batch)
        elif isinstance(batch, (tuple, list)) and 2 <= len(batch) <= len(NAMES):
            parts = dict(zip(NAMES, batch))
        else:
            raise TypeError(f"x: expected batches (x, y), (x, y, lengths) or dicts, got {type(batch).__name__}")
        data = self.make(**parts)
        return Batch(data, slice(0, len(data)))

    def _restore(self, order: Any) -> None:
        generator = self.given.generator
        state = generator.get_state()
        generator.set_state(state.new_tensor(order))


Source = Arrays | Stream


def is_stream(x: Any, y: Any) -> bool:
    """Whether x is an iterable of batches rather than samples: it comes without targets and is no array."""
    if y is not None or hasattr(x, "__array__") or hasattr(x, "shape"):
        return False
    if isinstance(x, (list, tuple)):
        return bool(x) and all(isinstance(batch, (tuple, dict)) for batch in x)
    return callable(x) or isinstance(x, Iterable) or hasattr(x, "__getitem__")


def check_stream(x: Any, epochs: int) -> None:
    """Refuse an iterator for more than one epoch: it could be gone through once."""
    if not callable(x) and epochs > 1 and iter(x) is x:
        raise TypeError(
            "x: expected batches that can be gone through in each epoch, got an iterator; pass the list, the "
            "DataLoader or the function that makes it"
        )
