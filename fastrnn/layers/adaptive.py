"""AdaptiveSoftmax: the last layer of a language model of many words, at a fraction of the cost (Grave et al. 2017).

Letters: D input features, V classes, C clusters of rare ones, R rows; `...` any leading axes.

Frequent classes, the first cutoffs[0], stand in the head with one more class for each cluster of rarer ones; a cluster
has its own, smaller softmax behind a projection, which only the targets in it meet:
    p(v) = head(x)[v]                               for v < cutoffs[0]
    p(v) = head(x)[cutoffs[0] + i] * tail_i(x)[v - cutoffs[i]]          for v in cluster i
The likelihood is exact, not sampled, so training, evaluation and generation see the same model. Names of parameters and
sizes are those of PyTorch's AdaptiveLogSoftmaxWithLoss.

Design: not a sampled softmax, which estimates its gradient and needs all V logits to be evaluated: this one is as quick
in evaluation as in training. Classes have to be sorted by how frequent they are, which those of a `Vocabulary` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import losses
from .._validate import as_generator, as_real, check_boolean, check_dtype, check_positive, check_size
from ..streaming.decode import log_softmax
from .container import Container
from .linear import Linear
from .module import Array, Module
from .protocol import NOTHING, Context

IGNORED = -100


class AdaptiveSoftmax(Container):
    """-log p of each target, x (..., D) and targets (...) -> (..., 1); without targets log p of all classes, (..., V).

        model = Sequential(Embedding(V, D), LSTM(D, H, batch_first=True), AdaptiveSoftmax(H, V, [2000, 10000]))
        Trainer(model, "nll").fit(x, y)

    A `Trainer` with the loss "nll" gives it the targets; negative ones, such as -100, count nothing. num_classes: V,
    sorted by frequency, the most frequent first. cutoffs: where clusters begin, ascending, below V. div_value: how many
    times smaller the projection of each cluster is than that of the one before. Parameters head.weight
    (cutoffs[0] + C, D), tail.<i>.0.weight (D / div_value ** (i + 1), D) and tail.<i>.1.weight, as PyTorch names them.
    Raises TypeError for targets that are no integers, ValueError for shapes and for classes out of range.
    """

    accepts = frozenset({"targets"})
    needs_targets = True
    reads = "features"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        cutoffs: Sequence[int],
        *,
        div_value: float = 4.0,
        head_bias: bool = False,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        D, V = check_size("in_features", in_features), check_size("num_classes", num_classes)
        self.in_features, self.num_classes, self.dtype = D, V, check_dtype("dtype", dtype)
        bounds = [check_size("cutoffs", cutoff) for cutoff in cutoffs]
        if not bounds or sorted(set(bounds)) != bounds or bounds[-1] >= V:
            raise ValueError(f"cutoffs: expected ascending numbers below num_classes = {V}, got {list(cutoffs)}")
        self.cutoffs = (*bounds, V)
        self.div_value, self.head_bias = check_positive("div_value", div_value), check_boolean("head_bias", head_bias)
        rng, options = as_generator("rng", rng), {"dtype": dtype}
        self.head = Linear(D, bounds[0] + len(bounds), bias=head_bias, rng=rng, **options)
        self.tails: list[tuple[Linear, Linear]] = []
        for i, (first, last) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            size = max(int(D // self.div_value ** (i + 1)), 1)
            projection = Linear(D, size, bias=False, rng=rng, **options)
            self.tails.append((projection, Linear(size, last - first, bias=False, rng=rng, **options)))

    def parts(self) -> Mapping[str, Module]:
        tails = {f"tail.{i}.{k}": layer for i, pair in enumerate(self.tails) for k, layer in enumerate(pair)}
        return {"head": self.head, **tails}

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "num_classes": self.num_classes,
            "cutoffs": list(self.cutoffs[:-1]),
            "div_value": self.div_value,
            "head_bias": self.head_bias,
            "dtype": self.dtype.name,
        }

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        x = as_real("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        if context.targets is None:
            if training:
                raise ValueError("targets: expected a class for each row of x in training, got None")
            return self.log_probabilities(x), None
        classes = self._classes(context.targets, x.shape[:-1])
        rows = np.ascontiguousarray(x).reshape(-1, self.in_features)
        first = self.cutoffs[0]
        clusters = np.searchsorted(self.cutoffs, classes, side="right")  # 0: in the head
        head = np.where(classes < 0, IGNORED, np.where(clusters == 0, classes, first + clusters - 1))
        nll, dhead = losses.cross_entropy(self.head(rows, training=training), head, reduction="none")
        kept: list[tuple[Array, Array]] = []
        for i, (projection, output) in enumerate(self.tails):
            at = np.flatnonzero((clusters == i + 1) & (classes >= 0))
            dlogits = np.empty((0, 0), self.dtype)
            if len(at):
                logits = output(projection(rows[at], training=training), training=training)
                own, dlogits = losses.cross_entropy(logits, classes[at] - self.cutoffs[i], reduction="none")
                nll[at] += own
            kept.append((at, dlogits))
        if training:
            self._cache = (x.shape, dhead, kept)
        return nll.reshape(*x.shape[:-1], 1), None

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        shape, dhead, kept = self._kept()
        if dy.shape != (*shape[:-1], 1):
            raise ValueError(f"dy: expected shape {(*shape[:-1], 1)}, got {dy.shape}")
        self._cache = None
        weights = dy.reshape(-1, 1)
        dx = self.head.backward(dhead * weights)
        for (projection, output), (at, dlogits) in zip(self.tails, kept):
            if len(at):
                dx[at] += projection.backward(output.backward(dlogits * weights[at]))
        return dx.reshape(shape), None

    def log_probabilities(self, x: Array) -> Array:
        """log p (..., V) of all classes, in the layer's dtype."""
        head, first = log_softmax(self.head(x)), self.cutoffs[0]
        parts = [head[..., :first]]
        for i, (projection, output) in enumerate(self.tails):
            parts.append(head[..., first + i, None] + log_softmax(output(projection(x))))
        return np.concatenate(parts, axis=-1).astype(self.dtype)

    def _classes(self, targets: Any, shape: tuple[int, ...]) -> Array:
        classes = np.asarray(targets)
        if classes.dtype.kind not in "iu":
            raise TypeError(f"targets: expected integer classes, got {classes.dtype}")
        if classes.shape != shape:
            raise ValueError(f"targets: expected shape {shape} like the rows of x, got {classes.shape}")
        if classes.size and classes.max() >= self.num_classes:
            raise ValueError(f"targets: expected classes 0..{self.num_classes - 1}, got {classes.max()}")
        return classes.reshape(-1).astype(np.int64)
