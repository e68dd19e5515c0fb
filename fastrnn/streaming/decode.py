"""Which token comes next: greedy, sampled, or the best of many by beam search.

Letters: N batch, V vocabulary, B beams, T time steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._state import take_rows
from .._validate import check_size
from ..functional.activations import ieee

Array = NDArray[Any]
Step = Callable[[Array, Any], "tuple[Array, Any]"]
"""tokens (R,), state -> logits (R, V), state: one time step of R rows."""


def greedy(logits: Array) -> Array:
    """The most probable token of each row, (N, V) -> (N,); the first one where several are. Raises FloatingPointError
    for logits with NaN, as all that chooses here."""
    check_no_nan(logits)
    return logits.argmax(axis=1)


@ieee
def sample(logits: Array, uniform: Array, temperature: float = 1.0, top_k: int | None = None) -> Array:
    """One token for each row of logits (N, V), drawn from softmax(logits / temperature) over the top_k largest logits,
    None for all, by a random number of [0, 1) for each row, uniform (N,). Temperature 0 is the limit, greedy; logits of
    +inf win, several of them with equal shares."""
    if temperature == 0:
        return greedy(logits)
    a = _below_largest(logits)
    if top_k is not None and top_k < a.shape[1]:
        a[a < np.partition(a, -top_k, axis=1)[:, -top_k, None]] = -np.inf
    p = np.exp(a / temperature).cumsum(axis=1)  # what overflows has no share
    return np.minimum((p <= uniform[:, None] * p[:, -1:]).sum(axis=1), a.shape[1] - 1)


@ieee
def beam_search(
    step: Step, start: Array, state: Any, steps: int, *, beam_size: int, end: int | None, length_penalty: float = 1.0
) -> tuple[Array, Array]:
    """The best of the sequences that a beam of B = beam_size finds, for all N rows and B beams at once.

    A sequence of T tokens, `end` counted, scores the sum of its log probabilities over T ** length_penalty (Wu et al.
    2016 divide by ((5 + T) / 6) ** length_penalty; this is the plain form, of which 1 is the mean). Sequences that have
    ended stand aside with their scores, B others go on, until none of them can become better, or for `steps` steps.
    Returns tokens (N, steps), filled up with `end`, and scores (N,).
    """
    N, B = len(start), check_size("beam_size", beam_size)
    state = take_rows(state, np.repeat(np.arange(N), B))
    inputs = np.repeat(start, B)
    total = np.full((N, B), -np.inf)  # all beams of a row begin alike: one of them counts
    total[:, 0] = 0
    tokens = np.full((N, B, steps), 0 if end is None else end, np.intp)
    best, best_tokens = np.full(N, -np.inf), tokens[:, 0].copy()
    rows = np.arange(N)[:, None]
    for t in range(steps):
        logits, state = step(inputs, state)
        V = logits.shape[1]
        candidates = (total[:, :, None] + log_softmax(logits).reshape(N, B, V)).reshape(N, B * V)
        # Of 2B candidates at most B end, one for each beam, so B that go on are always among them.
        keep = min(2 * B, B * V)
        chosen = np.argpartition(-candidates, keep - 1, axis=1)[:, :keep]
        chosen = np.take_along_axis(chosen, np.argsort(-candidates[rows, chosen], axis=1, kind="stable"), axis=1)
        scores, beams, nexts = candidates[rows, chosen], chosen // V, chosen % V
        ended = nexts == end if end is not None else np.zeros(nexts.shape, bool)
        last = t + 1 == steps
        final = np.where(ended | last, scores / (t + 1) ** length_penalty, -np.inf)
        at = final.argmax(axis=1)
        better = final[rows[:, 0], at] > best
        best[better] = final[better, at[better]]
        best_tokens[better] = tokens[better, beams[better, at[better]]]
        best_tokens[better, t] = nexts[better, at[better]]
        if last:
            break
        going = np.argsort(ended, axis=1, kind="stable")[:, :B]  # the first B that have not ended, best first
        total = np.where(ended[rows, going], -np.inf, scores[rows, going])
        if total.shape[1] < B:  # a vocabulary smaller than the beam
            going = np.pad(going, ((0, 0), (0, B - going.shape[1])))
            total = np.pad(total, ((0, 0), (0, B - total.shape[1])), constant_values=-np.inf)
        # A sum of log probabilities only falls, and no length divides it by more than the last one does.
        hope = total[:, 0] / (steps if length_penalty > 0 else t + 2) ** length_penalty
        if (best >= hope).all():
            break
        beams, nexts = beams[rows, going], nexts[rows, going]
        tokens = tokens[rows, beams]
        tokens[:, :, t] = nexts
        state = take_rows(state, (rows * B + beams).reshape(-1))
        inputs = nexts.reshape(-1)
    return best_tokens, best


@ieee
def log_softmax(logits: Array) -> Array:
    a = _below_largest(logits)
    return a - np.log(np.exp(a).sum(axis=-1, keepdims=True))


def _below_largest(logits: Array) -> Array:
    """logits minus the largest of each row, in float64; 0 for the largest, infinite ones too."""
    check_no_nan(logits)
    a = logits.astype(np.float64)
    largest = a.max(axis=-1, keepdims=True)
    return np.where(a == largest, 0.0, a - largest)


def check_no_nan(outputs: Array) -> None:
    """Raise FloatingPointError where a model has put out NaN."""
    rows = np.isnan(outputs).any(axis=-1)
    if rows.any():
        raise FloatingPointError(f"model: expected outputs without NaN, got NaN in row {np.flatnonzero(rows)[0]}")
