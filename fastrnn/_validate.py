"""Checks of arguments, each once, for every floor.

Each raises one error, "name: expected ..., got ...": TypeError for a wrong type or dtype, ValueError for a wrong value
or shape.

Letters: T time steps, N batch, D input_size, H hidden_size, P width of h, M outputs, G gates.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Maybe = Array | None
Nonlinearity = Literal["tanh", "relu", "sigmoid", "identity"]
OutputActivation = Literal["tanh", "relu", "sigmoid", "identity", "softmax"]
GateActivation = Literal["sigmoid", "hard_sigmoid", "hard_sigmoid_6"]
Children = int | str  # of a tree's node: "sum", or how many
Size = int | str  # of an axis: a number, or a letter for any

# --- Numbers and names --------------------------------------------------------------------------------------------


def check_size(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {value!r}") from None
    if size < least or isinstance(value, bool):
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return size


def check_number(name: str, value: Any) -> float:
    """A finite number."""
    if not _is_number(value):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if not _is_number(value):
        raise TypeError(f"{name}: expected a positive number, got {value!r}")
    if not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def check_not_negative(name: str, value: Any, *, below: float = np.inf, finite: bool = True) -> float:
    """A number in [0, below); infinity too where it need not be finite."""
    wanted = "a number >= 0" if below == np.inf else f"a number in [0, {below:g})"
    if not _is_number(value):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    if not 0 <= value < below and not (value == np.inf and not finite):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_boolean(name: str, value: Any) -> bool:
    """True or False, NumPy's too."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_probability(name: str, value: Any) -> float:
    """A dropout probability, 0 <= p < 1: at 1 nothing would be left to scale up."""
    try:
        p = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a probability, got {value!r}") from None
    if not 0 <= p < 1:
        raise ValueError(f"{name}: expected a probability 0 <= p < 1, got {value!r}")
    return p


def check_limit(name: str, value: float | None) -> float | None:
    """None, or a number above 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not value > 0:
        raise ValueError(f"{name}: expected None or a number above 0, got {value!r}")
    return float(value)


def check_tbptt(tbptt: Any) -> tuple[int, int] | None:
    """(k1, k2), how many steps an update is after, and how many it goes back; from k for both."""
    if tbptt is None:
        return None
    if not isinstance(tbptt, (tuple, list)):
        tbptt = (tbptt, tbptt)
    if len(tbptt) != 2:
        raise ValueError(f"tbptt: expected k or (k1, k2), got {tbptt!r}")
    k1, k2 = (check_size("tbptt", k) for k in tbptt)
    if k2 < k1:
        raise ValueError(f"tbptt: expected (k1, k2) with k2 of at least k1, so that each step counts, got {(k1, k2)}")
    return k1, k2


def check_every(every: Any) -> int | str | None:
    """How many steps a segment has: None, a number, or "sqrt"."""
    if every is None or (isinstance(every, str) and every == "sqrt"):
        return every
    if isinstance(every, str):
        raise ValueError(f"checkpoint_every: expected a number of steps or 'sqrt', got {every!r}")
    return check_size("checkpoint_every", every)


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """One of the names in `known`."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def check_bias(bias: Any) -> bool | str:
    """Whether a layer has biases; "input": bias_ih alone."""
    if isinstance(bias, str):
        if bias != "input":
            raise ValueError(f"bias: expected True, False or 'input', got {bias!r}")
        return bias
    return bool(bias)


def check_children(children: Any) -> Children:
    """How many children a tree's node has: "sum" for any number or a whole number of at least 1."""
    if isinstance(children, str) and children == "sum":
        return children
    try:
        number = operator.index(children)
    except TypeError:
        number = 0
    if number < 1 or isinstance(children, bool):
        raise ValueError(f"children: expected 'sum' or a whole number of at least 1, got {children!r}")
    return number


# --- Arrays -------------------------------------------------------------------------------------------------------


def check_dtype(name: str, value: Any) -> np.dtype[Any]:
    """float32 or float64, by any of their names."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}") from None
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {dtype}")
    return dtype


_REAL = (np.dtype(np.float32), np.dtype(np.float64))


def check_array(
    name: str,
    array: Any,
    shape: Sequence[Size],
    dtype: Any = None,
    like: str = "weight_ih",
    *,
    writable: bool = False,
    may_be_empty: str = "T",
) -> tuple[int, ...]:
    """An array of this shape and dtype; returns its shape.

    A letter in `shape` stands for any size of at least 1, and the letter `may_be_empty` for 0 too. dtype: None for
    float32 or float64; else `like` says what has that dtype.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    if dtype is None and array.dtype not in _REAL:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    if type(array) is not np.ndarray:
        check_plain(name, array)
    if dtype is not None and array.dtype != dtype:
        hint = f"; .astype(np.{dtype}) converts" if array.dtype.kind in "fiub" else ""
        raise TypeError(f"{name}: expected {dtype} like {like}, got {array.dtype}{hint}")
    if array.shape != shape and not _fits(array.shape, shape, may_be_empty):
        words = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        hint = " with every size at least 1" if 0 in array.shape else ""
        raise ValueError(f"{name}: expected shape ({words}){hint}, got {array.shape}")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    found: tuple[int, ...] = array.shape
    return found


def check_plain(name: str, a: Any) -> None:
    """Refuse masked arrays, also in a list: NumPy hands out what stands behind the mask without a word."""
    parts = a if isinstance(a, (list, tuple)) else (a,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise TypeError(
            f"{name}: expected a plain array, got a masked one; fill it, {name}.filled(...), or pass lengths or a mask"
        )


def plain(name: str, a: Any) -> Array:
    """As NumPy takes it; a masked array is refused."""
    if type(a) is np.ndarray:
        return a
    check_plain(name, a)
    try:
        array = np.asarray(a)
        if array.dtype == object and not array.ndim:
            raise TypeError("NumPy takes it for one object")
        return array
    except ValueError:
        raise TypeError(
            f"{name}: expected an array, got sequences of differing lengths; pad them, pass lengths"
        ) from None
    except (TypeError, RuntimeError) as error:  # a tensor that torch does not hand out
        raise TypeError(f"{name}: expected what NumPy can read as an array, got {kind_of(a)}: {error}") from None


def as_real(name: str, a: Any, dtype: np.dtype[Any]) -> Array:
    """Real numbers of any kind, lists included, as an array of this dtype: itself where it is one, else one copy."""
    if type(a) is np.ndarray and a.dtype == dtype:
        return a
    array = plain(name, a)
    if array.dtype.kind not in "fiub":
        hint = "; encode words or classes as numbers" if array.dtype.kind in "OSU" else ""
        hint += f", and turn numbers into an array of them, {name}.astype(float)" if array.dtype == object else ""
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}{hint}")
    try:
        with np.errstate(under="ignore", over="raise"):  # what is too small for float32 is 0
            return array.astype(dtype, copy=False)
    except FloatingPointError:
        raise ValueError(f"{name}: expected numbers within the range of {dtype}, got larger ones") from None


def _fits(shape: tuple[int, ...], wanted: Sequence[Size], may_be_empty: str) -> bool:
    if len(shape) != len(wanted):
        return False
    for size, want in zip(shape, wanted):  # no all(...): a generator would double the time of a call
        if size != want and want != may_be_empty and not (isinstance(want, str) and size > 0):
            return False
    return True


def check_recurrent_weights(
    G: int, weight_ih: Array, weight_hh: Array, bias_ih: Maybe, bias_hh: Maybe, P: Size | None = None
) -> tuple[int, int, np.dtype[Any]]:
    """The weights of a cell; weight_hh has H columns unless P says otherwise. Returns H, D and the dtype."""
    GH = f"{G}*H" if G > 1 else "H"
    rows, D = check_array("weight_ih", weight_ih, (GH, "D"), may_be_empty="D")
    if rows % G:
        raise ValueError(f"weight_ih: expected shape ({GH}, D), got {weight_ih.shape}")
    dtype, H = weight_ih.dtype, rows // G
    check_array("weight_hh", weight_hh, (rows, H if P is None else P), dtype)
    for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if bias is not None:
            check_array(name, bias, (rows,), dtype)
    return H, D, dtype


def check_jordan_arrays(
    x: Array, y0: Maybe, weight_ih: Array, weight_yh: Array, bias_h: Maybe, weight_hy: Array, bias_y: Maybe
) -> tuple[int, np.dtype[Any]]:
    """The arrays of a network that is fed its output. Returns M and the dtype."""
    H, D = check_array("weight_ih", weight_ih, ("H", "D"), may_be_empty="D")
    dtype = weight_ih.dtype
    M, _ = check_array("weight_hy", weight_hy, ("M", H), dtype)
    check_array("weight_yh", weight_yh, (H, M), dtype)
    for name, bias, size in (("bias_h", bias_h, H), ("bias_y", bias_y, M)):
        if bias is not None:
            check_array(name, bias, (size,), dtype)
    check_array("x", x, ("T", "N", D), dtype)
    if y0 is not None:
        check_array("y0", y0, (x.shape[1], M), dtype)
    return M, dtype


def check_lengths(lengths: Any, T: int, N: int) -> NDArray[np.intp]:
    """How many steps of each of N sequences count: integers 0..T, shape (N,), in any order."""
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    if lengths.shape != (N,):
        raise ValueError(f"lengths: expected shape ({N},), got {lengths.shape}")
    for n in (lengths.min(initial=0), lengths.max(initial=0)):
        if not 0 <= n <= T:
            raise ValueError(f"lengths: expected values from 0 to {T}, got {n}")
    checked: NDArray[np.intp] = lengths.astype(np.intp)
    return checked


def check_reset_mask(reset_mask: Any, T: int, N: int) -> NDArray[np.bool_] | None:
    """Before which steps a state is zeroed: booleans, (T, N); None where nothing is reset."""
    flags = _check_flags("reset_mask", reset_mask, T, N)
    return flags if flags is not None and flags.any() else None


def check_mask(mask: Any, T: int, N: int) -> NDArray[np.bool_] | None:
    """Which steps are real: booleans, (T, N); None where all are."""
    flags = _check_flags("mask", mask, T, N)
    return None if flags is None or flags.all() else flags


def _check_flags(name: str, flags: Any, T: int, N: int) -> NDArray[np.bool_] | None:
    if flags is None:
        return None
    if not isinstance(flags, np.ndarray) or flags.dtype != np.bool_:
        got = flags.dtype if isinstance(flags, np.ndarray) else type(flags).__name__
        raise TypeError(f"{name}: expected a NumPy array of bool, got {got}")
    if flags.shape != (T, N):
        raise ValueError(f"{name}: expected shape ({T}, {N}) = (T, N), got {flags.shape}")
    return flags


def check_state(name: str, part: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """One array of a state, or of its gradient; None for zeros."""
    if part is None:
        return
    if not isinstance(part, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {kind_of(part)}")
    if part.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype} like the parameters, got {part.dtype}")
    if part.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {part.shape}")


def check_share(name: str, value: Any) -> float:
    """A probability, 0 and 1 included."""
    try:
        share = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a probability, got {value!r}") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: expected a probability 0..1, got {value!r}")
    return share


def check_token(name: str, token: Any) -> int | None:
    """None or a token, a whole number of at least 0."""
    if token is None:
        return None
    if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
        raise TypeError(f"{name}: expected None or a token, a whole number, got {token!r}")
    if token < 0:
        raise ValueError(f"{name}: expected None or a token of at least 0, got {token}")
    return int(token)


def kind_of(value: Any) -> str:
    """What was given, in words."""
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__


# --- Random generators --------------------------------------------------------------------------------------------


def as_generator(name: str, rng: Any) -> np.random.Generator:
    """The Generator itself, one with that whole number as its seed, or a freshly seeded one for None."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    try:
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(f"{name}: expected None, a whole number or a numpy Generator, got {rng!r}") from None
    if seed < 0:
        raise ValueError(f"{name}: expected a seed of at least 0, got {seed}")
    return np.random.default_rng(seed)


def own_generator(rng: np.random.Generator) -> np.random.Generator:
    """A new Generator seeded by a draw from `rng`: its owner can save and restore it without touching others'."""
    return np.random.default_rng(rng.integers(2**63))
