"""Linear, Activation, Embedding and LastStep: what stands around a recurrent layer.

Letters: T time steps, N batch, D input features, M outputs, V vocabulary, H hidden size; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
from ..activations import ACTIVATIONS
from .checks import as_generator, check_choice, check_dtype, check_size
from .initialisation import uniform
from .module import Array, Module


class Linear(Module):
    """y = W x + b on the last axis: x (..., D) -> y (..., M). Parameters weight (M, D) and bias (M,).

    Both start as in PyTorch, U(-1/sqrt(D), 1/sqrt(D)). With W_hy and b_y of RNN texts: weight = W_hy, bias = b_y.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.bias = bool(bias)
        self.dtype = check_dtype("dtype", dtype)
        rng, bound = as_generator("rng", rng), self.in_features**-0.5
        self.add_param("weight", uniform(rng, (self.out_features, self.in_features), bound, self.dtype))
        if self.bias:
            self.add_param("bias", uniform(rng, (self.out_features,), bound, self.dtype))

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features, "out_features": self.out_features, "bias": self.bias,
            "dtype": self.dtype.name,
        }  # fmt: skip

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        y, cache = functional.linear_forward(x, self._params["weight"], self._params.get("bias"), training=training)
        if training:
            self._cache = cache
        return y

    def backward(self, dy: Array) -> Array:
        dx = functional.linear_backward(dy, self._kept(), into=self._grads)["x"]
        self._cache = None
        return dx


class Activation(Module):
    """y = g(x), elementwise or, for softmax, over the last axis; x of any shape, float32 or float64.

    name: "sigmoid", "tanh", "relu", "softmax" or "identity". Before `cross_entropy` no softmax is needed: that loss
    takes logits.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = check_choice("name", name, ACTIVATIONS)

    def arguments(self) -> dict[str, Any]:
        return {"name": self.name}

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, came {type(x).__name__}")
        check_dtype("x", x.dtype)
        y = ACTIVATIONS[self.name][0](x)
        if training:
            self._cache = y
        return y

    def backward(self, dy: Array) -> Array:
        y = self._kept()
        if dy.shape != y.shape:
            raise ValueError(f"dy: expected shape {y.shape}, came {dy.shape}")
        self._cache = None
        return ACTIVATIONS[self.name][1](dy, y)


class Embedding(Module):
    """y = weight[x]: integer tokens x (...), each in 0..V-1, to vectors y (..., D). Equal to one_hot(x) @ weight.

    Parameter weight (V, D), which starts N(0, 1) as in PyTorch.
    Raises TypeError for tokens that are no integers, IndexError that names a token out of range.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.dtype = check_dtype("dtype", dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        self.add_param("weight", as_generator("rng", rng).standard_normal(shape).astype(self.dtype))

    def arguments(self) -> dict[str, Any]:
        return {
            "num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, "dtype": self.dtype.name,
        }  # fmt: skip

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer tokens, came {x.dtype}")
        if x.size:
            for token in (x.min(), x.max()):
                if not 0 <= token < self.num_embeddings:
                    raise IndexError(f"x: expected tokens 0..{self.num_embeddings - 1}, came {token}")
        if training:
            self._cache = (x,)
        return self._params["weight"].take(x, axis=0)

    def backward(self, dy: Array) -> None:
        """dweight[v] += the sum of dy over all places that hold token v. Tokens have no gradient: returns None."""
        (x,) = self._kept()
        if dy.shape != (*x.shape, self.embedding_dim):
            raise ValueError(f"dy: expected shape {(*x.shape, self.embedding_dim)}, came {dy.shape}")
        self._cache = None
        if not x.size:
            return
        # Sorting brings equal tokens together, so each row is written once; 1.5 to 5 times as fast as np.add.at.
        tokens = x.reshape(-1)
        order = tokens.argsort(kind="stable")
        tokens = tokens[order]
        starts = np.flatnonzero(np.concatenate(([True], tokens[1:] != tokens[:-1])))
        sums = np.add.reduceat(dy.reshape(-1, self.embedding_dim)[order], starts, axis=0)
        self._grads["weight"][tokens[starts]] += sums


class LastStep(Module):
    """The last time step of each sequence: x (T, N, H), or (N, T, H) with batch_first, to y (N, H); (T, H) to (H,).

    With lengths (N,), whole numbers 0..T in any order, y holds row n's step lengths[n] - 1, zeros where lengths[n] is
    0. Of a bidirectional layer's output this is the step at which the reverse half has read one step only.
    Raises TypeError for lengths that are no integers, ValueError for wrong shapes, lengths out of range and T = 0.
    """

    keeps_time = False
    takes_lengths = True
    batch_first: bool

    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = bool(batch_first)

    def arguments(self) -> dict[str, Any]:
        return {"batch_first": self.batch_first}

    def __call__(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3):
            layout = "(N, T, H)" if self.batch_first else "(T, N, H)"
            came = x.shape if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"x: expected an array of shape {layout} or (T, H), came {came}")
        steps = self._steps(x)
        if lengths is None:
            if not len(steps):
                raise ValueError(f"x: expected at least one time step, came {x.shape}")
            where, empty, y = -1, None, steps[-1]
        else:
            last = self._check_lengths(lengths, steps)
            where, empty = (last, np.arange(len(last))), last < 0
            y = steps[where] if len(steps) else np.empty(steps.shape[1:], steps.dtype)
            y[empty] = 0
        if training:
            self._cache = x.shape, x.dtype, where, empty
        return y

    def backward(self, dy: Array) -> Array:
        """dx is dy at the step that was taken, zero elsewhere."""
        shape, dtype, where, empty = self._kept()
        dx = np.zeros(shape, dtype)
        steps = self._steps(dx)
        if dy.shape != steps.shape[1:]:
            raise ValueError(f"dy: expected shape {steps.shape[1:]}, came {dy.shape}")
        self._cache = None
        if len(steps):
            steps[where] = dy if empty is None else np.where(empty[:, None], 0, dy)
        return dx

    def _steps(self, a: Array) -> Array:
        """The view of `a` whose first axis is time."""
        return a.swapaxes(0, 1) if self.batch_first and a.ndim == 3 else a

    def _check_lengths(self, lengths: Any, steps: Array) -> Array:
        """The index of the last step of each row; -1, any step, where there is none."""
        if steps.ndim != 3:
            raise ValueError(f"lengths: expected None for x without a batch axis, came {lengths!r}")
        T, N, _ = steps.shape
        if not isinstance(lengths, np.ndarray) or lengths.dtype.kind not in "iu":
            came = lengths.dtype if isinstance(lengths, np.ndarray) else type(lengths).__name__
            raise TypeError(f"lengths: expected an array of integers, came {came}")
        if lengths.shape != (N,):
            raise ValueError(f"lengths: expected shape ({N},), came {lengths.shape}")
        for n in (lengths.min(), lengths.max()):
            if not 0 <= n <= T:
                raise ValueError(f"lengths: expected 0..{T}, came {n}")
        return lengths.astype(np.intp) - 1
