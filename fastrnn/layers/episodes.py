"""Resets to a learned initial state: each row of a batch is cut into its episodes, which run as rows of their own.

Letters: T time steps, N batch, E episodes of all rows, K steps of the longest, L*S levels and directions of a layer.

Design: the kernels reset to zeros, by a pointer to a row of them. To a learned state they need not: an episode is a
sequence with a length and a first state, which they have, and the gradient of the first states of all episodes is that
of the learned one. x is copied once for it; calls without resets, and layers that start from zeros, know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .layout import as_given, read_doutput
from .module import Array
from .protocol import Context

if TYPE_CHECKING:
    from .stacked import RecurrentLayer


class Episodes:
    """Where each episode of a batch begins and ends. n, lengths: (E,), its row and how many steps it has."""

    def __init__(self, reset_mask: Array, lengths: Array) -> None:
        self.shape, T = reset_mask.shape, len(reset_mask)
        begins = reset_mask & (np.arange(T)[:, None] < lengths)
        reset_first = begins[0].copy()
        begins[0] = True  # a row's first episode, which may have no steps
        self.n, start = np.nonzero(begins.T)
        following = np.append(start[1:], 0)
        last = np.append(self.n[1:] != self.n[:-1], True)
        self.lengths = np.where(last, lengths[self.n], following) - start
        first = start == 0
        self.ends = np.flatnonzero(first), np.flatnonzero(last)  # (N,) each row's first and last episode
        # (E,) which start from the learned state, forward and in reverse; the others from the one that is given.
        self.anew = ~first | reset_first[self.n], ~last
        self.K = int(self.lengths.max())
        episode = np.repeat(np.arange(len(start)), self.lengths)
        step = np.arange(len(episode)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        self.there, self.here = (step, episode), (start[episode] + step, self.n[episode])

    def cut(self, a: Array) -> Array:
        """(K, E, ...) from (T, N, ...), with zeros past the lengths."""
        cut = np.zeros((self.K, len(self.n), *a.shape[2:]), a.dtype)
        cut[self.there] = a[self.here]
        return cut

    def joined(self, a: Array) -> Array:
        """The other way round."""
        joined = np.zeros((*self.shape, *a.shape[2:]), a.dtype)
        joined[self.here] = a[self.there]
        return joined


@dataclass
class InEpisodes:
    """What a layer keeps of a forward in episodes."""

    episodes: Episodes
    cache: Any  # of the forward over them
    shape: tuple[int, ...]  # of output, time-major
    batched: bool
    learned: list[int]  # parts of the state that sequences started from


def forward(
    layer: RecurrentLayer,
    x: Array | None,
    state0: list[Any],
    episodes: Episodes,
    mask: Array | None,
    training: bool,
    batched: bool,
    learned: list[int],
) -> tuple[Array, Any]:
    """output and state_n, as `layer.forward` returns them. x: time-major, None without input. mask (T, N): which steps
    are real, None for all. batched, learned: as of `InEpisodes`."""
    S, states = layer.state_spec.directions, []
    for part, name in zip(state0, layer.states):
        start = part[:, episodes.n]
        for index, row in enumerate(layer.params[f"initial_{name}"]):
            start[index, episodes.anew[index % S]] = row
        states.append(start)
    output, state_n = layer.forward(
        None if x is None else as_given(episodes.cut(x), True, layer.batch_first),
        layer._as_state(states),
        context=Context(
            episodes.lengths,
            steps=episodes.K if x is None else None,
            mask=None if mask is None else as_given(episodes.cut(mask), True, layer.batch_first),
        ),
        training=training,
    )
    ends = [_at_ends(part, episodes, S, 1) for part in (state_n if isinstance(state_n, tuple) else (state_n,))]
    y = episodes.joined(as_given(output, True, layer.batch_first))
    if training:
        layer._cache = InEpisodes(episodes, layer._cache, y.shape, batched, learned)
    return as_given(y, batched, layer.batch_first), layer._as_state([a if batched else a[:, 0] for a in ends])


def backward(
    layer: RecurrentLayer, kept: InEpisodes, dy: Any, dstate_n: Any, need_dx: bool
) -> tuple[Array | None, Any]:
    """dx and dstate0, as `layer.backpropagate` returns them, from what it is given; adds to the gradient of the learned
    state."""
    episodes, spec = kept.episodes, layer.state_spec
    S, dstates = spec.directions, []
    if dy is not None:
        dy = episodes.cut(read_doutput(dy, kept.shape, kept.batched, layer.batch_first, layer.dtype))
        dy = as_given(dy, True, layer.batch_first)
    for part, width in zip(layer._unpack("dstate_n", dstate_n, kept.shape[1], kept.batched), spec.widths):
        d = np.zeros((spec.levels * S, len(episodes.n), width or 0), layer.dtype)
        if part is not None:
            for index, rows in enumerate(part):
                d[index, episodes.ends[1 ^ (index % S)]] = rows
        dstates.append(d)
    layer._cache = kept.cache
    dx, dstart = layer.backpropagate(dy, layer._as_state(dstates), need_dx=need_dx)
    found = []
    for part, name in zip(dstart if isinstance(dstart, tuple) else (dstart,), layer.states):
        for index, grad in enumerate(layer.grads[f"initial_{name}"]):
            anew = episodes.anew[index % S]
            grad += part[index, anew].sum(axis=0)
            part[index, anew] = 0  # it does not come from the state that was given
        found.append(_at_ends(part, episodes, S, 0))
    layer._add_learned(kept.learned, found)
    if dx is not None:
        dx = as_given(episodes.joined(as_given(dx, True, layer.batch_first)), kept.batched, layer.batch_first)
    return dx, layer._as_state([a if kept.batched else a[:, 0] for a in found])


def _at_ends(part: Array, episodes: Episodes, S: int, end: int) -> Array:
    """(L*S, N, ...) of (L*S, E, ...): of each row where a forward direction begins (end 0) or ends (1); a reverse one
    begins at the other end."""
    return np.stack([rows[episodes.ends[end ^ (index % S)]] for index, rows in enumerate(part)])
