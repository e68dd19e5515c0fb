"""check_gradients: is a layer's backward right? Its gradients against finite differences of its forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _state
from ._validate import Array, as_generator, check_size
from .layers.module import Module, build


class GradientError(RuntimeError):
    """Gradients that differ from finite differences; `report` has them all."""

    def __init__(self, report: GradientReport) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class GradientCheck:
    """One array: `error` is the largest |analytic - numeric| over its entries, relative to the largest |numeric|, or to
    the tolerance's absolute part where that is larger; `index` is where. `along` is the same for the derivative along
    one random direction, in which every entry has a part."""

    name: str
    shape: tuple[int, ...]
    checked: int
    error: float
    along: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    ok: bool


@dataclass(frozen=True)
class GradientReport:
    """`ok`, and a `GradientCheck` for each array by name: x, state parts as state0, state1, ..., parameters by theirs.
    `bool(report)` is `report.ok`; `print(report)` is a table."""

    checks: dict[str, GradientCheck]
    rtol: float

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks.values())

    @property
    def errors(self) -> dict[str, float]:
        """Name -> the larger of the two relative errors."""
        return {name: max(check.error, check.along) for name, check in self.checks.items()}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        width = max(map(len, self.checks), default=0)
        wrong = [name for name, check in self.checks.items() if not check.ok]
        head = f"gradients of {', '.join(wrong)} differ from finite differences" if wrong else "all gradients agree"
        lines = [f"{head} (relative tolerance {self.rtol:g})"]
        for name, c in self.checks.items():
            said, error = "ok   " if c.ok else "WRONG", max(c.error, c.along)
            line = f"  {name:{width}}  {said}  error {error:.1e}  shape {c.shape}"
            if not c.ok:
                line += f"  at {c.index}: backward {c.analytic:.6g}, differences {c.numeric:.6g}"
            lines.append(line)
        return "\n".join(lines)


def check_gradients(
    layer: Module,
    x: Array | None,
    state: Any = None,
    *,
    lengths: Array | None = None,
    reset_mask: Array | None = None,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    max_entries: int = 100,
    raise_exception: bool = True,
    rng: int | np.random.Generator | None = 0,
    **options: Any,
) -> GradientReport:
    """Check `layer.run_backward` for every parameter, x and the state against central differences of `layer.run`.

    The loss is the sum of all outputs and final states, each times a fixed random number. Differences need float64: a
    float32 layer is checked as a float64 copy made from its `config()`, and refused with TypeError where that has no
    "dtype"; x, state and targets are converted. The layer's parameters, gradients and random state stay as they were.

    x: what the layer reads; tokens get no gradient. x=None with steps=T for an autonomous layer. state: where to
        start; None for zeros, whose gradient is then not checked. options: what else the layer takes in a call, such
        as targets=... or trees=...; layer(x, state, **options) and layer.backward are then used.
    eps: half the distance of the two points. An array is wrong where an entry, or the derivative along a random
        direction, differs by more than atol + rtol times the largest numeric entry (or the direction's derivative).
    max_entries: how many entries of each array to look at one by one, chosen at random; the direction has them all.
    raise_exception: GradientError (a RuntimeError) if any is wrong, as torch.autograd.gradcheck does; False returns the
        report then too. Dropout is checked with one mask; at a kink, such as relu's 0, differences mean nothing.
    """
    if not isinstance(layer, Module):
        raise TypeError(f"layer: expected a layer, got {type(layer).__name__}")
    for name, number in (("eps", eps), ("rtol", rtol), ("atol", atol)):
        if not number > 0:
            raise ValueError(f"{name}: expected a number above 0, got {number!r}")
    max_entries, rng = check_size("max_entries", max_entries), as_generator("rng", rng)
    if lengths is not None:
        options["lengths"] = lengths
    if reset_mask is not None:
        options["reset_mask"] = reset_mask
    trial = _Trial(layer, x, state, options, rng)
    grads, checks = trial.gradients(), {}
    for name, value in trial.values().items():
        found = grads.get(name)
        if found is None or np.shape(found) != value.shape:
            got = "none" if found is None else f"shape {np.shape(found)}"
            raise ValueError(f"gradient of {name}: expected shape {value.shape}, got {got}")
        checks[name] = _check(name, value, np.asarray(found), trial.loss, eps, rtol, atol, max_entries, rng)
    report = GradientReport(checks, rtol)
    if raise_exception and not report.ok:
        raise GradientError(report)
    return report


class _Trial:
    """A float64 copy of a layer, one call of it that can be repeated, and a loss: the sum of all that it returns, times
    fixed random numbers."""

    def __init__(
        self, layer: Module, x: Array | None, state: Any, options: dict[str, Any], rng: np.random.Generator
    ) -> None:
        self.layer = _float64_copy(layer)
        self.x: Any = None if x is None else _in_float64_or_as_it_is(np.array(x))
        self.state = _state.map(lambda a: np.array(a, np.float64), state)
        self.options = {
            name: _in_float64_or_as_it_is(option) if isinstance(option, np.ndarray) else option
            for name, option in options.items()
        }
        self.runs = set(options) <= {"lengths", "reset_mask", "mask"}
        self.draws = [(generator, generator.bit_generator.state) for _, generator in self.layer.generators()]
        self.weights = [rng.standard_normal(a.shape) for a in _state.arrays(self.forward())]

    def forward(self) -> Any:
        for generator, drawn in self.draws:
            generator.bit_generator.state = drawn
        if self.runs:
            return self.layer.run(self.x, self.state, training=True, **self.options)
        return self.layer(self.x, *(() if self.state is None else (self.state,)), training=True, **self.options)

    def loss(self) -> float:
        return sum(float((a * w).sum()) for a, w in zip(_state.arrays(self.forward()), self.weights))

    def gradients(self) -> dict[str, Any]:
        """Of x, of the state's arrays and of the parameters, from the layer's backward."""
        self.layer.zero_grad()
        arrives = _state.unflatten(self.forward(), self.weights)
        backward = self.layer.run_backward if self.runs else self.layer.backward
        returned: Any = backward(*arrives) if isinstance(arrives, tuple) else backward(arrives)
        dx, dstate0 = returned if isinstance(returned, tuple) else (returned, None)
        states = {f"state{k}": a for k, a in enumerate(_state.arrays(dstate0))}
        return {"x": dx} | states | {name: np.array(grad) for name, grad in self.layer.grads.items()}

    def values(self) -> dict[str, Array]:
        """The arrays that have gradients."""
        x = {} if self.x is None or self.x.dtype.kind != "f" else {"x": self.x}
        return x | {f"state{k}": a for k, a in enumerate(_state.arrays(self.state))} | dict(self.layer.params)


def _in_float64_or_as_it_is(a: Array) -> Array:
    return a.astype(np.float64) if a.dtype.kind == "f" else a


def _check(
    name: str,
    value: Array,
    grad: Array,
    loss: Callable[[], float],
    eps: float,
    rtol: float,
    atol: float,
    max_entries: int,
    rng: np.random.Generator,
) -> GradientCheck:
    before = value.copy()

    def slope(move: Callable[[float], None]) -> float:
        ends: list[float] = []
        for sign in (1, -1):
            move(sign * eps)
            ends.append(loss())
            value[...] = before
        return (ends[0] - ends[1]) / (2 * eps)

    def along(step: float) -> None:
        value[...] = before + step * direction

    def one(step: float) -> None:
        value[index] += step

    chosen = rng.permutation(value.size)[:max_entries]
    numeric = np.zeros(len(chosen))
    for k, flat in enumerate(chosen):
        index = np.unravel_index(flat, value.shape)
        numeric[k] = slope(one)
    analytic = np.asarray(grad).reshape(-1)[chosen].astype(np.float64)
    difference = np.abs(analytic - numeric)
    largest = float(np.abs(numeric).max(initial=0.0))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference))) if len(chosen) else None
    off = 0.0 if worst is None else float(difference[worst])
    direction = rng.standard_normal(value.shape)
    direction /= max(float(np.linalg.norm(direction)), 1e-300)
    d_numeric, d_analytic = (slope(along), float((grad * direction).sum())) if value.size else (0.0, 0.0)
    d_off, d_scale = abs(d_analytic - d_numeric), max(abs(d_numeric), largest)
    return GradientCheck(
        name,
        value.shape,
        len(chosen),
        off / max(largest, atol),
        d_off / max(d_scale, atol),
        () if worst is None else tuple(int(i) for i in np.unravel_index(chosen[worst], value.shape)),
        0.0 if worst is None else float(analytic[worst]),
        0.0 if worst is None else float(numeric[worst]),
        off <= atol + rtol * largest and d_off <= atol + rtol * d_scale,
    )


def _float64_copy(layer: Module) -> Module:
    """A layer like this one, in float64: a deep copy, or, of one that is not float64, one built from its config."""
    if all(param.dtype == np.float64 for param in layer.params.values()) and _dtype(layer) == np.float64:
        return copy.deepcopy(layer)
    try:
        twin = build(_in_float64(layer.config()))
    except NotImplementedError as error:
        raise TypeError(f"layer: expected a float64 layer or one with a config, got one whose {error}") from error
    kept = [name for name, param in twin.params.items() if param.dtype != np.float64]
    if kept:
        raise TypeError(
            f"layer: expected float64 parameters, as float32 is too coarse for differences, got float32 {kept[0]} in "
            "a layer whose arguments() have no dtype"
        )
    twin.load_state_dict(layer.params)
    states = {name: generator.bit_generator.state for name, generator in layer.generators()}
    for name, generator in twin.generators():
        generator.bit_generator.state = states[name]
    return twin


def _dtype(layer: Module) -> np.dtype[Any]:
    """The dtype of a layer that says it, float64 for others: what has no parameters computes in x's."""
    return np.dtype(getattr(layer, "dtype", np.float64))


def _in_float64(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {name: "float64" if name == "dtype" else _in_float64(value) for name, value in config.items()}
    return [_in_float64(value) for value in config] if isinstance(config, (list, tuple)) else config
