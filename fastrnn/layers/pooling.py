"""LastStep, MeanPool and MaxPool: one vector for each sequence.

Letters: T time steps, N batch, H features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._validate import check_lengths
from ..streaming.builder import ChainBuilder
from .layout import RealSteps, time_major_mask
from .module import Array, Module
from .protocol import NOTHING, Context, Time


class Pool(Module):
    """What the layers share that reduce the axis of time to one vector. Sequences may be cut into segments, each pooled
    by itself: `merge` then makes of the segments what the whole would give, and `split` is its gradient."""

    _arguments = ("batch_first",)
    time = Time.REDUCES
    accepts = frozenset({"lengths", "mask"})
    batch_first: bool

    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = bool(batch_first)

    def __call__(
        self, x: Array, *, lengths: Array | None = None, mask: Array | None = None, training: bool = False
    ) -> Array:
        """y (N, H) of x (T, N, H), or (N, T, H) with batch_first; (H,) of (T, H). With lengths (N,), whole numbers 0..T
        in any order, only the first lengths[n] steps of row n count, and with a mask of bool, of the first axes of x,
        only steps where it is True: y is zero for a row without any. The other steps get no gradient and may hold
        anything, NaN too.
        Raises TypeError for lengths that are no integers and a mask that is not bool, ValueError for wrong shapes,
        lengths out of range and T = 0.
        """
        context = NOTHING if lengths is None and mask is None else Context(lengths, mask=mask)
        return self._own_forward(x, context=context, training=training)[0]

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        lengths = context.lengths
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3):
            layout = "(N, T, H)" if self.batch_first else "(T, N, H)"
            got = x.shape if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"x: expected an array of shape {layout} or (T, H), got {got}")
        steps = self._steps(x)
        if lengths is not None:
            if steps.ndim != 3:
                raise ValueError(f"lengths: expected None for x without a batch axis, got {lengths!r}")
            lengths = check_lengths(lengths, *steps.shape[:2])
        elif not len(steps):
            raise ValueError(f"x: expected at least one time step, got {x.shape}")
        if context.mask is not None:
            found = self._pool_real(x, steps, lengths, context.mask, training)
            if found is not None:
                return found, None
        if len(steps):
            y, kept = self._pool(steps, lengths)
        else:  # T = 0, and all lengths are
            y, kept = np.zeros(steps.shape[1:], steps.dtype), None
        if lengths is not None:
            y[lengths == 0] = 0
        if training:
            self._cache = x.shape, x.dtype, lengths, None, kept
        return y, None

    def _pool_real(self, x: Array, steps: Array, lengths: Array | None, mask: Any, training: bool) -> Array | None:
        """y of the real steps, moved to the front of their rows; None where all are."""
        batched = steps.ndim == 3
        steps = steps if batched else steps[:, None]
        mask = time_major_mask(mask, len(steps), steps.shape[1], batched, self.batch_first)
        if mask is None:
            return None
        real = RealSteps(mask, lengths)
        y, kept = self._pool(real.first(steps), real.counts)
        y[real.counts == 0] = 0
        if training:
            self._cache = x.shape, x.dtype, real.counts, real, kept
        return y if batched else y[0]

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        shape, dtype, lengths, real, kept = self._kept()
        dx = np.zeros(shape, dtype)
        steps = self._steps(dx)
        if dy.shape != steps.shape[1:]:
            raise ValueError(f"dy: expected shape {steps.shape[1:]}, got {dy.shape}")
        self._cache = None
        if not len(steps):
            return dx, None
        counted = dy if lengths is None else np.where((lengths == 0)[:, None], 0, dy)
        if real is None:
            self._spread(counted, steps, lengths, kept)
        else:
            in_front = np.zeros((len(steps), len(lengths), shape[-1]), dtype)
            self._spread(counted, in_front, lengths, kept)
            steps[...] = real.back(in_front).reshape(steps.shape)
        return dx, None

    def merge(self, parts: Sequence[Array], counts: Sequence[Array]) -> tuple[Array, list[Array]]:
        """y (N, H) of whole sequences from parts[s] (N, H), the y of their consecutive segments, of which row n has
        counts[s][n] steps. Also the share of each segment in y, which `split` takes."""
        raise NotImplementedError(f"{type(self).__name__} defines no merge")

    def split(self, dy: Array, share: Array) -> Array:
        """The gradient in the y of one segment, from that in the y of whole sequences."""
        return np.where(share, dy, dy.dtype.type(0))

    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        """y of steps (T, N, H) or (T, H), T >= 1, in an array of its own where there are lengths; anything for rows of
        length 0. And what `_spread` needs."""
        raise NotImplementedError

    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        """Write the gradient that arrives in y, zero for rows of length 0, to where it goes in `steps`, all zeros."""
        raise NotImplementedError

    def _steps(self, a: Array) -> Array:
        """The view of `a` whose first axis is time."""
        return a.swapaxes(0, 1) if self.batch_first and a.ndim == 3 else a


class LastStep(Pool):
    """The last time step of each sequence: with lengths (N,) row n's step lengths[n] - 1.

    Of a bidirectional layer's output this is the step at which the reverse half has read one step only. In a stream the
    last step is the newest one.
    """

    takes_newest = True

    def compile_into(self, builder: ChainBuilder) -> bool:
        return True  # nothing to do: the newest step is the last one

    def merge(self, parts: Sequence[Array], counts: Sequence[Array]) -> tuple[Array, list[Array]]:
        return _chosen(parts, [np.broadcast_to((count > 0)[:, None], y.shape) for y, count in zip(parts, counts)])

    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        if lengths is None:
            return steps[-1].copy(), -1  # a view would keep all steps in memory
        where = (lengths - 1, np.arange(len(lengths)))
        return steps[where], where

    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        steps[kept] = dy


# Means that round to zero are no error, whatever the caller's np.seterr.
_quiet = np.errstate(under="ignore")


class MeanPool(Pool):
    """The mean over the time steps of each sequence, summed in float64."""

    @_quiet
    def merge(self, parts: Sequence[Array], counts: Sequence[Array]) -> tuple[Array, list[Array]]:
        steps = np.maximum(sum(counts), 1)
        shares = [(count / steps)[:, None] for count in counts]
        y = np.zeros(parts[0].shape, np.float64)
        for part, share in zip(parts, shares):
            y += part * share
        return y.astype(parts[0].dtype, copy=False), shares

    @_quiet
    def split(self, dy: Array, share: Array) -> Array:
        return (dy * share).astype(dy.dtype, copy=False)

    @_quiet
    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        if lengths is None:
            return steps.mean(axis=0, dtype=np.float64).astype(steps.dtype), None
        total = np.sum(steps, axis=0, dtype=np.float64, where=_within(lengths, steps))
        return (total / np.maximum(lengths, 1)[:, None]).astype(steps.dtype), None

    @_quiet
    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        if lengths is None:
            steps[...] = dy / len(steps)
        else:
            np.copyto(steps, (dy / np.maximum(lengths, 1)[:, None]).astype(steps.dtype), where=_within(lengths, steps))


class MaxPool(Pool):
    """The largest value of each feature over the time steps of each sequence; the first of equals gets the gradient.

    NaN is larger than all else, as in NumPy and PyTorch.
    """

    def merge(self, parts: Sequence[Array], counts: Sequence[Array]) -> tuple[Array, list[Array]]:
        best, found = np.zeros_like(parts[0]), np.zeros(parts[0].shape, bool)
        larger = []  # where each segment has a value above all before it
        for part, count in zip(parts, counts):
            larger.append((count > 0)[:, None] & (~found | ~(np.isnan(best) | (part <= best))))
            np.copyto(best, part, where=larger[-1])
            found |= larger[-1]
        return _chosen(parts, larger)

    def _pool(self, steps: Array, lengths: Array | None) -> tuple[Array, Any]:
        counted = steps if lengths is None else np.where(_within(lengths, steps), steps, -np.inf)
        first = counted.argmax(axis=0)[None]
        return np.take_along_axis(steps, first, axis=0)[0], first

    def _spread(self, dy: Array, steps: Array, lengths: Array | None, kept: Any) -> None:
        np.put_along_axis(steps, kept, dy[None], axis=0)


def _chosen(parts: Sequence[Array], candidates: list[Array]) -> tuple[Array, list[Array]]:
    """For each entry its value in the last of the candidate segments, zero where there is none; and where each is."""
    y, taken = np.zeros_like(parts[0]), np.zeros(parts[0].shape, bool)
    shares = []
    for part, candidate in zip(reversed(parts), reversed(candidates)):
        shares.append(candidate & ~taken)
        np.copyto(y, part, where=shares[-1])
        taken |= candidate
    return y, shares[::-1]


def _within(lengths: Array, steps: Array) -> Array:
    """(T, N, 1): whether step t is one of the first lengths[n]."""
    return (np.arange(len(steps))[:, None] < lengths)[:, :, None]
