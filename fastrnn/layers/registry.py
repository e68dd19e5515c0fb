"""Layers by the name of their class, and a layer from its description."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import Module

_classes: dict[str, type[Module]] = {}
# Models of upper floors, which are imported when a file names them.
_HOMES = {"LanguageModel": "fastrnn.models", "SeriesModel": "fastrnn.models"}


def register(cls: type[Module]) -> None:
    _classes[class_name(cls)] = cls


def build(config: Mapping[str, Any]) -> Module:
    """The layer that `layer.config()` describes, with new weights. Raises ValueError for an unknown class."""
    try:
        if config["class"] not in _classes and config["class"] in _HOMES:
            importlib.import_module(_HOMES[config["class"]])
        cls = _classes[config["class"]]
    except KeyError:
        raise ValueError(
            f"class: expected a layer of fastrnn or a subclass of Module defined before, got {config.get('class')!r}"
        ) from None
    described = dict(config)
    ties, trainable = described.pop("ties", {}), described.pop("trainable", True)
    layer = cls.from_config(described)
    for name, to in ties.items():
        layer.tie(name, to=to)
    if not trainable:
        layer.freeze()
    return layer


def class_name(cls: type) -> str:
    """Layers of fastrnn go by their bare names; no class from elsewhere can take one of those."""
    if cls.__module__.startswith("fastrnn."):
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}"
