"""Layers of the user's own that define `__call__` and `backward` in place of `forward` and `backpropagate`."""

from __future__ import annotations

from typing import Any

from .protocol import NOTHING, Context, Time

_SEQUENCE = ("lengths", "reset_mask", "targets", "mask")  # passed on to a layer that accepts them; the rest always


def adapt(cls: Any) -> None:
    """Give a new class what it lacks of the protocol, from what it defines."""
    own = cls.__dict__
    users = not cls.__module__.startswith("fastrnn.")
    if "forward" in own:
        cls._own_forward = own["forward"]
    elif "__call__" in own and users:
        cls.forward = _forward_by_call
    if "backpropagate" in own:
        cls._own_backpropagate = own["backpropagate"]
    elif "backward" in own and users:
        cls.backpropagate = _backpropagate_by_backward
    if users:
        _adapt_flags(cls)


def _adapt_flags(cls: Any) -> None:
    """The flags that a class defines, such as takes_state, in the words of the protocol."""
    own = cls.__dict__
    for name in ("state", *_SEQUENCE):
        if f"takes_{name}" in own:
            cls.accepts = cls.accepts | {name} if own[f"takes_{name}"] else cls.accepts - {name}
    if "keeps_time" in own or "reads_time" in own:
        cls.time = Time.of(own.get("reads_time", cls.time.in_x), own.get("keeps_time", cls.time.in_y))
    if "streams" in own:
        cls.takes_newest = own["streams"]
    if "skips_dx" in own:
        cls.optional_input_grad = own["skips_dx"]
    if "scores_with_targets" in own:
        cls.needs_targets = own["scores_with_targets"]


def _forward_by_call(
    self: Any, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
) -> tuple[Any, Any]:
    self.check_context(state, context)
    options = {}
    for name in Context._fields:
        value = getattr(context, name)
        if value is not None and (name not in _SEQUENCE or name in self.accepts):
            options[name] = value
    returned = self(x, *(() if state is None else (state,)), training=training, **options)
    return returned if isinstance(returned, tuple) else (returned, None)


def _backpropagate_by_backward(self: Any, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
    self.check_dstate(dstate_n)
    options = {} if need_dx or not self.optional_input_grad else {"need_dx": False}
    returned = self.backward(dy, *(() if dstate_n is None else (dstate_n,)), **options)
    return returned if isinstance(returned, tuple) else (returned, None)
