"""Tied parameters: one array under several names is one parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._validate import Array


def untied(params: Mapping[str, Array], grads: Mapping[str, Any]) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
    """Each array of `params` under its first name, with the sum of the gradients that it has under its names, each
    gradient once; what comes in where no array is there twice."""
    if len(set(map(id, params.values()))) == len(params):
        return params, grads
    first: dict[int, str] = {}
    for name, param in params.items():
        first.setdefault(id(param), name)
    joined: dict[str, list[Any]] = {name: [] for name in first.values()}
    for name, param in params.items():
        parts, grad = joined[first[id(param)]], grads.get(name)
        if grad is not None and not any(grad is part for part in parts):
            parts.append(grad)
    sums = {name: parts[0] if len(parts) == 1 else sum(parts[1:], parts[0]) for name, parts in joined.items() if parts}
    return {name: params[name] for name in joined}, sums


def each_once(grads: Mapping[str, Any]) -> dict[str, Any]:
    """The gradients without those that are there already under another name."""
    first: dict[int, str] = {}
    for name, grad in grads.items():
        first.setdefault(id(grad), name)
    return {name: grads[name] for name in first.values()}
