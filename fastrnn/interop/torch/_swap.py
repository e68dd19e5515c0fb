"""Existing models and whole programs: what is swapped, and how it is undone."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from ._modules import FORWARD, ORIGINAL, OURS

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_THEIRS = {ours: theirs for theirs, ours in OURS.items()}


class Swapped(NamedTuple):
    swapped: list[str]  # names of modules, "" for the model itself
    kept: dict[str, str]  # recurrent modules that were left alone, and why


def accelerate(model: torch.nn.Module) -> Swapped:
    """Make every torch.nn.RNN, GRU, LSTM and cell of `model` run on fastrnn, in place.

    Nothing but the class of these modules changes: parameters, buffers, hooks and names stay the very same objects.
    Subclasses are left alone, for they may override anything; so are modules that are not on the CPU in float32,
    float64 or bfloat16.
    """
    swapped, kept = [], {}
    for name, module in _recurrent(model):
        cls = OURS.get(type(module))
        if type(module) in _THEIRS:
            kept[name] = "runs on fastrnn already"
        elif cls is None:
            kept[name] = f"its class is {type(module).__name__}, a subclass"
        elif any(not p.is_cpu or p.dtype not in _DTYPES for p in module.parameters()):
            p = next(module.parameters())
            kept[name] = f"its parameters are {p.dtype} on {p.device}"
        elif "forward" in module.__dict__:
            kept[name] = "its forward was replaced"
        else:
            object.__setattr__(module, "__class__", cls)
            module.__dict__["__module__"] = "torch.nn.modules.rnn"  # by which torch.fx takes it for a node of a graph
            swapped.append(name)
    return Swapped(swapped, kept)


def restore(model: torch.nn.Module) -> list[str]:
    """Undo `accelerate`: modules of this package become torch's own. Returns their names."""
    names = []
    for name, module in _recurrent(model):
        if type(module) in _THEIRS:
            object.__setattr__(module, "__class__", _THEIRS[type(module)])
            module.__dict__.pop("__module__", None)
            names.append(name)
    return names


def _recurrent(model: torch.nn.Module) -> Any:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    bases = (torch.nn.RNNBase, torch.nn.modules.rnn.RNNCellBase)
    return ((name, module) for name, module in model.named_modules() if isinstance(module, bases))


def patch() -> None:
    """Make torch.nn's own recurrent classes run on fastrnn: modules that exist, and those to come."""
    for cls, forward in FORWARD.items():
        cls.forward = forward
    if not hasattr(torch.jit.script, "without_fastrnn"):
        torch.jit.script = _scripting_torch(torch.jit.script)


def unpatch() -> None:
    """Undo `patch`: results have torch's own bits again."""
    for cls, forward in ORIGINAL.items():
        cls.forward = forward
    torch.jit.script = getattr(torch.jit.script, "without_fastrnn", torch.jit.script)


def _scripting_torch(script: Any) -> Any:
    """torch.jit.script compiles the source of `forward`, which must be torch's then."""

    @functools.wraps(script)
    def scripted(*args: Any, **kwargs: Any) -> Any:
        unpatch()
        try:
            return script(*args, **kwargs)
        finally:
            patch()

    scripted.without_fastrnn = script
    return scripted
