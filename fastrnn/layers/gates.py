"""Layers from weights that come gate by gate, in any order and either orientation.

Letters: D input features, H hidden size, P width of h (proj_size, else H).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .module import Array

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def read_gates(gates: Mapping[str, Any], transposed: bool) -> dict[str, Array]:
    """weight_ih (G*H, D), weight_hh (G*H, P), and bias_ih, bias_hh (G*H,) where there are any, from one entry per gate,
    in the order of `gates`: see `LSTM.from_gates`. Raises TypeError and ValueError that name the gate."""
    read = {name: _read_gate(name, gate) for name, gate in gates.items()}
    first, one = next(iter(read.items()))
    H, D, P = _sizes(first, one, transposed)
    shapes = {"weight_ih": (H, D), "weight_hh": (H, P), "bias_ih": (H,), "bias_hh": (H,)}
    stacked: dict[str, list[Array]] = {}
    for name, gate in read.items():
        if gate.keys() != one.keys():
            raise ValueError(f"{name}: expected {', '.join(one)} like {first}, got {', '.join(gate)}")
        for part, value in gate.items():
            wanted = shapes[part][::-1] if transposed else shapes[part]
            if value.shape != wanted:
                hint = ""
                if value.shape == wanted[::-1] and value.ndim == 2:
                    hint = f"; transposed={not transposed} takes it"
                raise ValueError(f"{name}: expected {part} of shape {wanted}, got {value.shape}{hint}")
            stacked.setdefault(part, []).append(value.T if transposed else value)
    params = {part: np.concatenate(values) for part, values in stacked.items()}
    if "bias_ih" in params:
        params.setdefault("bias_hh", np.zeros_like(params["bias_ih"]))
    return params


def read_peepholes(peepholes: Mapping[str, Any], H: int) -> Array:
    """(3H,): i, f, o."""
    if not isinstance(peepholes, Mapping) or set(peepholes) != set("ifo"):
        got = ", ".join(peepholes) if isinstance(peepholes, Mapping) else type(peepholes).__name__
        raise ValueError(f"peepholes: expected a dict of i, f and o, got {got}")
    read = [np.asarray(peepholes[name]) for name in "ifo"]
    for name, value in zip("ifo", read):
        if value.shape != (H,):
            raise ValueError(f"peepholes: expected {name} of shape ({H},), got {value.shape}")
    return np.concatenate(read)


def _read_gate(name: str, gate: Any) -> dict[str, Array]:
    """part -> array, of a mapping or of (weight_ih, weight_hh[, bias_ih[, bias_hh]])."""
    if isinstance(gate, Mapping):
        named = {"bias_ih" if part == "bias" else part: value for part, value in gate.items()}
        unknown = [part for part in gate if part not in (*PARTS, "bias")]
        missing = [part for part in PARTS[:2] if part not in named]
        if unknown or missing or ("bias" in gate and "bias_ih" in gate):
            raise ValueError(
                f"{name}: expected weight_ih, weight_hh, bias or bias_ih and bias_hh, got {', '.join(gate)}"
            )
    elif isinstance(gate, Sequence) and 2 <= len(gate) <= 4:
        named = dict(zip(PARTS, gate))
    else:
        got = f"{len(gate)} of them" if isinstance(gate, Sequence) else type(gate).__name__
        raise TypeError(
            f"{name}: expected (weight_ih, weight_hh), with a bias or two behind them, or a dict, got {got}"
        )
    read = {part: np.asarray(value) for part, value in named.items() if value is not None}
    for part, value in read.items():
        if value.dtype.kind != "f":
            raise TypeError(f"{name}: expected {part} of floating point, got {value.dtype}")
    return read


def _sizes(name: str, gate: Mapping[str, Array], transposed: bool) -> tuple[int, int, int]:
    """H, D and P of one gate. A bias says H, or a square weight_hh does."""
    shapes = []
    for part in PARTS[:2]:
        if gate[part].ndim != 2:
            raise ValueError(f"{name}: expected {part} of two axes, got shape {gate[part].shape}")
        shapes.append(gate[part].shape[::-1] if transposed else gate[part].shape)
    (H, D), (H2, P) = shapes
    if H != H2 or any(gate[part].shape != (H,) for part in PARTS[2:] if part in gate):
        got = ", ".join(f"{part} {value.shape}" for part, value in gate.items())
        layout = "(D, H), (H, H)" if transposed else "(H, D), (H, H)"
        turned = [shape[::-1] for shape in shapes]
        hint = f"; transposed={not transposed} takes them" if turned[0][0] == turned[1][0] else ""
        raise ValueError(f"{name}: expected weight_ih and weight_hh of shapes {layout}, biases (H,), got {got}{hint}")
    return H, D, P


def levels_of(gates: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gates of each level and direction, named i[0], i[1], ... where each gate is a list of several: see
    `LSTM.from_gates`. Raises ValueError where such lists are not equally long."""
    several = {name: len(gate) for name, gate in gates.items() if _is_several(gate)}
    if not several:
        return [dict(gates)]
    first = next(iter(several))
    for name in gates:
        if several.get(name) != several[first]:
            got = f"{several[name]}" if name in several else "one"
            raise ValueError(f"{name}: expected a list of {several[first]} like {first}, got {got}")
    return [{f"{name}[{k}]": gates[name][k] for name in gates} for k in range(several[first])]


def _is_several(gate: Any) -> bool:
    """Whether this is a list of gates, not one: weights may be nested lists themselves."""
    if not isinstance(gate, Sequence) or not gate:
        return False
    return isinstance(gate[0], Mapping) or (
        isinstance(gate[0], Sequence) and bool(gate[0]) and np.ndim(gate[0][0]) == 2
    )


def for_each(name: str, given: Any, levels: list[dict[str, Any]]) -> list[Any]:
    """What goes with the gates of each level and direction: a list, where these came in lists."""
    if given is None or "[" not in next(iter(levels[0])):
        return [given] * len(levels)
    if not isinstance(given, (list, tuple)) or len(given) != len(levels):
        got = f"{len(given)}" if isinstance(given, (list, tuple)) else type(given).__name__
        raise ValueError(f"{name}: expected a list of {len(levels)}, one for each level and direction, got {got}")
    return list(given)


def make_layer(cls: Any, levels: list[dict[str, Array]], G: int, options: dict[str, Any]) -> Any:
    """The layer with the parameters of each level and direction, forward before backward, named without their "_l0"."""
    first, count = levels[0], len(levels)
    S = 2 if options.get("bidirectional") else 1
    if count % S:
        raise ValueError(
            f"bidirectional: expected gates of both directions of each level, as lists of an even length, got {count}"
        )
    for name, value in (("num_layers", count // S), ("bias", "bias_ih" in first)):
        if options.pop(name, value) != value:
            what = "one level and direction with its biases" if count == 1 else f"{count // S} levels with their biases"
            raise ValueError(f"{name}: expected {value}, as these are the gates of {what}")
    weight, P = first["weight_ih"], first["weight_hh"].shape[1]
    H = len(weight) // G
    for k, params in enumerate(levels):
        D = weight.shape[1] if k < S else S * P
        if params.keys() != first.keys():
            raise ValueError(f"gates[{k}]: expected {', '.join(first)} like gates[0], got {', '.join(params)}")
        for name, shape in (("weight_ih", (H, D)), ("weight_hh", (H, P))):
            got = len(params[name]) // G, params[name].shape[1]
            if got != shape:
                raise ValueError(f"gates[{k}]: expected {name} of shape {shape} in each gate, got {got}")
    dtype = options.pop("dtype", weight.dtype if weight.dtype == np.float64 else np.float32)
    layer = cls(weight.shape[1], H, count // S, bias="bias_ih" in first, dtype=dtype, **options)
    named = {
        f"{name}_l{k // S}{'_reverse' if k % S else ''}": value
        for k, params in enumerate(levels)
        for name, value in params.items()
    }
    learned = {name: layer.params[name] for name in layer.params if name.startswith("initial_")}
    layer.load_state_dict(named | learned)
    return layer
