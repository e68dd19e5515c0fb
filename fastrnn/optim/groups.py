"""Groups of parameters with a learning rate, a weight decay or a rest of their own.

Design: a group is an instruction by name, not a list of arrays: an optimiser is made before it meets parameters, and
its configuration is JSON. A group's rate is kept as a multiple of the optimiser's, so that schedules move all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from .._validate import Array, check_boolean, check_not_negative

GroupSpecs = Sequence[Mapping[str, Any]]
KEYS = ("params", "lr", "lr_scale", "weight_decay", "frozen")


@dataclass(frozen=True)
class Group:
    """Parameters whose names match one of the patterns, or that belong to one of the layers, and what is their own."""

    patterns: tuple[str, ...]
    layers: tuple[Any, ...]  # with `params`; names stand in their place once the parameters are known
    lr_scale: float | None
    weight_decay: float | None
    frozen: bool | None

    def config(self) -> dict[str, Any]:
        own = {"lr_scale": self.lr_scale, "weight_decay": self.weight_decay, "frozen": self.frozen}
        return {"params": list(self.patterns)} | {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """What is one parameter's own."""

    lr_scale: float
    weight_decay: float
    frozen: bool


def read_groups(specs: Any, lr: float) -> tuple[Group, ...]:
    """The groups that the user described. lr: the optimiser's rate, of which a group's "lr" is a multiple."""
    if isinstance(specs, (Mapping, str)) or not isinstance(specs, Iterable):
        raise TypeError(f"groups: expected a list of dicts, got {type(specs).__name__}")
    return tuple(_read_group(spec, lr) for spec in specs)


def _read_group(spec: Any, lr: float) -> Group:
    if not isinstance(spec, Mapping) or "params" not in spec:
        raise ValueError(f"groups: expected dicts with 'params', got {spec!r}")
    unknown = [key for key in spec if key not in KEYS]
    if unknown:
        raise ValueError(f"groups: expected the entries {', '.join(KEYS)}, got {', '.join(map(str, unknown))}")
    given = spec["params"]
    members = list(given) if isinstance(given, (list, tuple)) else [given]
    for member in members:
        if not isinstance(member, str) and not hasattr(member, "params"):
            raise TypeError(f"groups: expected names, patterns or layers in 'params', got {type(member).__name__}")
    scale = spec.get("lr_scale")
    if spec.get("lr") is not None:
        if scale is not None or not lr:
            raise ValueError("groups: expected 'lr' without 'lr_scale' and beside a rate of the optimiser above 0")
        scale = check_not_negative("groups['lr']", spec["lr"]) / lr
    decay, frozen = spec.get("weight_decay"), spec.get("frozen")
    return Group(
        tuple(member for member in members if isinstance(member, str)),
        tuple(member for member in members if not isinstance(member, str)),
        None if scale is None else check_not_negative("groups['lr_scale']", scale),
        None if decay is None else check_not_negative("groups['weight_decay']", decay),
        None if frozen is None else check_boolean("groups['frozen']", frozen),
    )


def resolve(groups: tuple[Group, ...], params: Mapping[str, Array]) -> tuple[Group, ...]:
    """The same groups with names in place of layers. Raises ValueError for a group that no parameter belongs to."""
    resolved = []
    for group in groups:
        arrays = {id(array) for layer in group.layers for array in layer.params.values()}
        names = tuple(name for name, array in params.items() if id(array) in arrays)
        for pattern in group.patterns:
            if not any(fnmatchcase(name, pattern) for name in params):
                raise ValueError(f"groups: expected patterns of {', '.join(params)}, got {pattern!r}")
        if group.layers and not names:
            got = ", ".join(type(layer).__name__ for layer in group.layers)
            raise ValueError(f"groups: expected layers whose parameters are updated, got others: {got}")
        resolved.append(replace(group, patterns=group.patterns + names, layers=()))
    return tuple(resolved)


def settings_of(name: str, groups: tuple[Group, ...], weight_decay: float, decay_biases: bool) -> Settings:
    """All groups that a parameter belongs to apply, later ones over earlier ones."""
    spared = not decay_biases and name.rpartition(".")[2].startswith("bias")
    settings = Settings(1.0, 0.0 if spared else weight_decay, False)
    for group in groups:
        if any(fnmatchcase(name, pattern) for pattern in group.patterns):
            own: dict[str, Any] = {key: value for key, value in group.config().items() if key != "params"}
            settings = replace(settings, **own)
    return settings
