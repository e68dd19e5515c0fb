"""Which token comes next: temperature, the top k, the top p. One row of logits (V,) at a time.

Letters: V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_number, check_size
from ..streaming.decode import sample

Array = NDArray[Any]


class Sampler:
    """Draws from softmax(logits / temperature), over the `top_k` largest of them and, of those, the smallest set whose
    probabilities add up to `top_p` (the nucleus of Holtzman et al. 2020); None for all. temperature 0 is greedy.
    `forbidden` are tokens that are never drawn.

    Raises TypeError and ValueError that name the argument.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: np.random.Generator | None = None,
        forbidden: tuple[int, ...] = (),
    ) -> None:
        if check_number("temperature", temperature) < 0:
            raise ValueError(f"temperature: expected a finite number of at least 0, got {temperature!r}")
        if top_p is not None and not 0 < check_number("top_p", top_p) <= 1:
            raise ValueError(f"top_p: expected a probability above 0, at most 1, got {top_p!r}")
        self.temperature = 0.0 if temperature < 1e-30 else float(temperature)  # logits over it would overflow
        self.top_k = None if top_k is None else check_size("top_k", top_k)
        self.top_p = None if top_p is None else float(top_p)
        self.rng = np.random.default_rng() if rng is None else rng
        self.forbidden = list(forbidden)

    def __call__(self, logits: Array) -> int:
        """The next token. Raises FloatingPointError where there is no largest logit."""
        logits = logits.astype(np.float64)
        logits[self.forbidden] = -np.inf
        if not np.isfinite(logits.max()):
            raise FloatingPointError(f"logits: expected finite numbers, got {logits.max()}")
        if self.top_k is not None and self.top_k < len(logits):
            logits[np.argpartition(-logits, self.top_k)[self.top_k :]] = -np.inf
        if self.top_p is not None and self.top_p < 1 and self.temperature:
            logits = nucleus(logits / self.temperature, self.top_p) * self.temperature
        return int(sample(logits[None], self.rng.random(1), self.temperature)[0])


def nucleus(logits: Array, top_p: float) -> Array:
    """logits (V,) with -inf for all but the most probable ones, which together have at least `top_p` of softmax."""
    order = np.argsort(-logits, kind="stable")
    p = np.exp(logits[order] - logits[order[0]])
    before = np.cumsum(p) - p  # what the more probable ones have
    kept = order[before < top_p * p.sum()]
    cut = np.full_like(logits, -np.inf)
    cut[kept] = logits[kept]
    return cut
