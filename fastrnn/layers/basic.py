"""Linear, Activation and Embedding: what stands around a recurrent layer and does not look at time.

Letters: D input features, M outputs, V vocabulary; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
from .._native import CELLS
from ..activations import ACTIVATIONS
from ..functional.checks import NONLINEARITIES
from .checks import as_generator, check_choice, check_dtype, check_size
from .initialisation import uniform
from .module import Array, Module


class Linear(Module):
    """y = W x + b on the last axis: x (..., D) -> y (..., M). Parameters weight (M, D) and bias (M,).

    Both start as in PyTorch, U(-1/sqrt(D), 1/sqrt(D)). With W_hy and b_y of RNN texts: weight = W_hy, bias = b_y.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape.
    """

    skips_dx = True

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

    def stream_links(self, chain: Any) -> bool:
        weights = {"weight_ih": self._params["weight"], "bias_ih": self._params.get("bias")}
        chain.links.append(weights | {"cell": CELLS["rnn"], "activation": NONLINEARITIES["identity"], "gates": 1})
        return True

    def backward(self, dy: Array, *, need_dx: bool = True) -> Array | None:
        into = self._grads if need_dx else self._grads | {"x": None}
        dx = functional.linear_backward(dy, self._kept(), into=into)["x"]
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

    def stream_links(self, chain: Any) -> bool:
        """Part of the linear map before it, where there is one."""
        if self.name == "identity":
            return True
        last = chain.links[-1] if chain.links else {"weight_hh": None, "activation": None}
        if last.get("weight_hh") is not None or last["activation"] != NONLINEARITIES["identity"] or self.name not in NONLINEARITIES:
            return False
        last["activation"] = NONLINEARITIES[self.name]
        return True

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

    def stream_links(self, chain: Any) -> bool:
        if chain.links or chain.embedding is not None:
            return False
        chain.embedding = self._params["weight"]
        return True

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
