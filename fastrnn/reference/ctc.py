"""Connectionist temporal classification in NumPy.

Graves, Fernandez, Gomez and Schmidhuber (2006), Connectionist Temporal Classification: Labelling Unsegmented Sequence
Data with Recurrent Neural Networks.

Letters: T time steps, M classes, U labels, S = 2U+1 states.

A path says one class at each step. What it says is its labels once repetitions are drawn together and blanks then left
out. Its states are the labels with a blank before, between and after them, l' = (blank, l_1, blank, ..., l_U, blank): a
path stays, or goes to the next state, or over a blank to the label behind it where that is another one than before.
With p_t = softmax(logits_t):

    alpha_t(s) = p_t(l'_s) (alpha_{t-1}(s) + alpha_{t-1}(s-1) + [may skip] alpha_{t-1}(s-2))    paths that end in s at t
    beta_t(s)  = what paths from s at t on still have to say, without p_t
    loss = -log(alpha_T(S) + alpha_T(S-1))

The posterior of a state is alpha_t(s) beta_t(s) / (alpha_T(S) + alpha_T(S-1)). As the loss depends on log p_t(m) with
the slope -(posterior of all states of class m), and log p_t(m) on the logits with [m = k] - p_t(k), and posteriors of a
step add up to 1,

    dloss/dlogits_t(k) = p_t(k) - posterior_t(k).

All is done in logarithms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def ctc(logits: Array, labels: Array, blank: int = 0) -> tuple[float, Array]:
    """Loss and gradient of one sequence: logits (T, M), labels (U,). Without any path, infinity and nan."""
    with np.errstate(all="ignore"):
        return _ctc(np.asarray(logits), np.asarray(labels, np.int64), blank)


def _ctc(logits: Array, labels: Array, blank: int) -> tuple[float, Array]:
    T = len(logits)
    if T == 0:
        return (np.inf if len(labels) else 0.0), np.zeros_like(logits)
    S = 2 * len(labels) + 1
    states = np.full(S, blank)
    states[1::2] = labels
    skips = np.zeros(S, bool)
    skips[3::2] = labels[1:] != labels[:-1]
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    scores = log_p[:, states]

    alpha = np.full((T, S), -np.inf)
    alpha[0, :2] = scores[0, :2]
    for t in range(1, T):
        alpha[t] = scores[t] + _sum(
            alpha[t - 1], _moved(alpha[t - 1], 1), np.where(skips, _moved(alpha[t - 1], 2), -np.inf)
        )
    beta = np.full((T, S), -np.inf)
    beta[-1, -2:] = 0.0
    for t in range(T - 2, -1, -1):
        ahead = beta[t + 1] + scores[t + 1]
        beta[t] = _sum(ahead, _moved(ahead, -1), _moved(np.where(skips, ahead, -np.inf), -2))

    log_likelihood = np.logaddexp.reduce(alpha[-1, -2:])
    posteriors = np.exp(alpha + beta - log_likelihood)
    dlogits = np.exp(log_p)
    for s, m in enumerate(states):
        dlogits[:, m] -= posteriors[:, s]
    return float(-log_likelihood), dlogits


def _sum(*logarithms: Array) -> Array:
    return np.logaddexp.reduce(logarithms)


def _moved(row: Array, by: int) -> Array:
    """row[s - by], -infinity where there is none."""
    moved = np.full_like(row, -np.inf)
    if by > 0:
        moved[by:] = row[:-by]
    else:
        moved[:by] = row[-by:]
    return moved
