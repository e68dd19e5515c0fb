"""Arguments: what is checked of them, what a forward keeps for its backward, what a backward adds into.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, G gates, M outputs.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Maybe = Optional[Array]

# Infinities and NaN follow IEEE arithmetic without a warning, as in the compiled kernels.
ieee = np.errstate(over="ignore", invalid="ignore")


class Cache:
    """What a forward keeps for its backward, which consumes it."""

    def __init__(self, owner: str, kept: tuple):
        self.owner, self.kept = owner, kept


def kept(cache: Any, owner: str) -> tuple:
    got = cache.owner if isinstance(cache, Cache) else type(cache).__name__
    if got != owner:
        raise TypeError("cache: expected the cache of %s in training, got %s" % (owner, got))
    if cache.kept is None:
        raise RuntimeError("cache: already consumed by an earlier backward; run %s again" % owner)
    return cache.kept


def add_into(into: dict[str, Array] | None, grads: dict[str, Maybe], like: str) -> dict[str, Maybe]:
    for name, target in (into or {}).items():
        if grads.get(name) is None:
            keys = ", ".join(key for key, grad in grads.items() if grad is not None)
            raise ValueError("into: expected keys among %s, got %r" % (keys, name))
        if name == "x" and target is None:
            continue  # not wanted
        check("into[%r]" % name, target, grads[name].shape, grads[name].dtype, like, writable=True)
    for name, target in (into or {}).items():
        if target is not None:
            target += grads[name]
    return grads | (into or {})


def check_recurrent_weights(G: int, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, P: Any = None):
    """Check the four; weight_hh has H columns unless P says otherwise. Returns H, D and the dtype."""
    GH = "%d*H" % G if G > 1 else "H"
    rows, D = check("weight_ih", weight_ih, (GH, "D"), may_be_empty="D")
    if rows % G:
        raise ValueError("weight_ih: expected shape (%s, D), got %s" % (GH, weight_ih.shape))
    dtype, H = weight_ih.dtype, rows // G
    check("weight_hh", weight_hh, (rows, H if P is None else P), dtype)
    for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if bias is not None:
            check(name, bias, (rows,), dtype)
    return H, D, dtype


def check_states(names, arrays, shapes, dtype):
    """Arrays of known shapes, of which None stands for zeros."""
    for name, array, shape in zip(names, arrays, shapes):
        if array is not None:
            check(name, array, shape, dtype)
    return tuple(np.zeros(shape, dtype) if array is None else array for array, shape in zip(arrays, shapes))


def check_option(name: str, value: Any, known: dict[str, Any]) -> Any:
    """What `value` stands for in the table `known`."""
    if not isinstance(value, str) or value not in known:
        raise ValueError("%s: expected one of %s, got %r" % (name, ", ".join(map(repr, known)), value))
    return known[value]


def check_positive(name: str, value: Any) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError("%s: expected a positive number, got %r" % (name, value))
    if not 0 < value < np.inf:
        raise ValueError("%s: expected a positive number, got %r" % (name, value))


def check_lengths(lengths: Any, T: int, N: int) -> Array:
    """N integers from 0 to T, in any order; None for T everywhere."""
    if lengths is None:
        return np.full(N, T)
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError("lengths: expected integers, got %s" % lengths.dtype)
    if lengths.shape != (N,):
        raise ValueError("lengths: expected shape (%d,), got %s" % (N, lengths.shape))
    wrong = lengths[(lengths < 0) | (lengths > T)]
    if len(wrong):
        raise ValueError("lengths: expected values from 0 to %d, got %d" % (T, wrong[0]))
    return lengths.astype(np.intp)


def check_reset_mask(reset_mask: Any, T: int, N: int) -> Maybe:
    if reset_mask is None:
        return None
    if not isinstance(reset_mask, np.ndarray) or reset_mask.dtype != np.bool_:
        got = getattr(reset_mask, "dtype", type(reset_mask).__name__)
        raise TypeError("reset_mask: expected a NumPy array of bool, got %s" % got)
    if reset_mask.shape != (T, N):
        raise ValueError("reset_mask: expected shape (%d, %d), got %s" % (T, N, reset_mask.shape))
    return reset_mask


def check(name, array, shape, dtype=None, like="weight_ih", writable=False, may_be_empty="T"):
    """Raise unless `array` is an array of `dtype` and `shape`, in which a letter stands for any size, of
    which only that of the letter `may_be_empty` may be 0. Returns its shape."""
    if not isinstance(array, np.ndarray):
        raise TypeError("%s: expected a NumPy array, got %s" % (name, type(array).__name__))
    if dtype is None and array.dtype not in (np.float32, np.float64):
        raise TypeError("%s: expected float32 or float64, got %s" % (name, array.dtype))
    if dtype is not None and array.dtype != dtype:
        raise TypeError("%s: expected %s like %s, got %s" % (name, dtype, like, array.dtype))
    fits = len(array.shape) == len(shape) and all(
        size == want or want == may_be_empty or (isinstance(want, str) and size > 0)
        for size, want in zip(array.shape, shape)
    )
    if not fits:
        words = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        hint = " with every size at least 1" if 0 in array.shape else ""
        raise ValueError("%s: expected shape (%s)%s, got %s" % (name, words, hint, array.shape))
    if writable and not array.flags.writeable:
        raise ValueError("%s: expected a writable array, got a read-only one" % name)
    return array.shape
