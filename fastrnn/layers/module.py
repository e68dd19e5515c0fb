"""What every layer is: parameters, gradients, a forward, a backward, and a description that rebuilds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..streaming.builder import ChainBuilder
from ..streaming.stream import Stream, open_stream
from .lookup import Lookup
from .own import adapt
from .prepared import Prepared
from .protocol import NOTHING, Context, Layout, StateSpec, Time
from .registry import build, class_name, register
from .summary import summarize
from .weights import Array, Weights

__all__ = ["Array", "Context", "Layout", "Module", "StateSpec", "Time", "build", "check_entries", "class_name"]


class Module(Weights):
    """A layer. `y = layer(x, training=True)`, then `dx = layer.backward(dy)`, which adds to `layer.grads`.

    Only a call with training=True keeps what a backward needs, in place of what an earlier one kept, and one backward
    consumes it: a second raises RuntimeError. A call with training=False writes nothing on the layer, so several
    threads may make such calls at the same time. Between a training call and its backward leave x and y as they are.

    A layer of your own derives from this class, calls `super().__init__()` and `add_param`, and defines `forward`,
    `backpropagate` and `arguments`. The attributes `batch_first`, `time`, `accepts`, `needs_targets` and
    `optional_input_grad` say what it takes. A model that contains it can be loaded once its class has been defined.
    A class that defines `__call__` and `backward` instead, as in earlier versions, works too: its `forward` and
    `backpropagate` then lead to those.
    """

    reads: str | None = None
    """"features", "tokens", or None for a layer that takes anything."""
    batch_first: bool | None = None
    """Which layout the layer reads, (N, T, ...) if True, (T, N, ...) if False; None: it does not look at those axes."""
    time: Time = Time.PER_STEP
    """What it does with the axis of time."""
    accepts: frozenset[str] = frozenset()
    """What a forward takes beside x, of "state", "lengths", "reset_mask", "mask" and "targets"."""
    _arguments: tuple[str, ...] = ()
    """The constructor's arguments, where all are attributes by the same names; else `arguments` is defined."""
    needs_targets: bool = False
    """True for a layer that needs its targets in evaluation too, as it cannot run without."""
    optional_input_grad: bool = False
    """True for a layer whose `backpropagate` with need_dx=False saves work; one without parameters then reads no dy, so
    that dy may be None."""

    features: int | None = None
    """How many features it reads; None for any number, and where only the layer itself knows."""
    takes_newest: bool = False
    """True for a layer that reduces the axis of time to the newest step, so that it has a value at every step."""
    reads_lookup: bool = False
    """True for a layer whose `forward` in training takes a `Lookup` for the vectors that it stands for, and whose
    `backpropagate` then returns a `LookupGradient` for their gradient."""
    exact_in_chain: bool = True
    """False for a layer that a compiled chain computes with other rounding than the layer itself."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls)
        adapt(cls)

    def __init__(self) -> None:
        super().__init__()
        self._prepared: Prepared | None = None
        self._stack: Any = None

    # --- forward and backward: the two primitives, and the calls made of them ----------------------------------------

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        """y, state_n: the layer from `state` on, None for zeros, so that a sequence can be cut into pieces.

        A layer without a state returns None for it. One that does not look at the axes of time and batch passes over
        what the context says of them."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dx, dstate0 of the last `forward` in training, from dy and dstate_n, None for zeros; adds to `grads`.

        dstate0 is None for a layer without a state. need_dx=False: dx is not needed, and may be None."""
        raise NotImplementedError(f"{type(self).__name__} defines no backpropagate")

    def look_up(self, x: Any) -> Lookup | None:
        """In place of a `forward` in training, for a layer behind it that reads_lookup; None where there is nothing to
        look up, or it does not pay."""
        return None

    if TYPE_CHECKING:  # `adapt` sets them
        _own_forward = forward
        _own_backpropagate = backpropagate
    else:
        # The forward and backpropagate that a class or its bases define, which `__call__` and `backward` lead to. Of a
        # class that overrides those two, `forward` and `backpropagate` lead to them instead.
        def _own_forward(self, *args, **options):
            return Module.forward(self, *args, **options)

        def _own_backpropagate(self, *args, **options):
            return Module.backpropagate(self, *args, **options)

    def __call__(self, x: Any, *, training: bool = False) -> Any:
        """y. With training=True the layer keeps what `backward` needs."""
        return self._own_forward(x, training=training)[0]

    def backward(self, dy: Any, *, need_dx: bool = True) -> Any:
        """dx, from dy like y; adds to `grads`. With need_dx=False dx may be None, which spares its computation."""
        return self._own_backpropagate(dy, need_dx=need_dx)[0]

    def run(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        targets: Array | None = None,
        mask: Array | None = None,
        training: bool = False,
    ) -> tuple[Array, Any]:
        """y, state_n: the layer from `state` on, None for zeros. Every layer can be run like this: see `forward`.

        A layer that does not look at the axes of time and batch passes over lengths (N,), reset_mask (T, N), in every
        layout, and mask, of the first axes of x.
        Raises ValueError for a state that the layer does not have and for lengths or resets that it cannot honour.
        """
        context = NOTHING
        if lengths is not None or reset_mask is not None or targets is not None or mask is not None:
            context = Context(lengths, reset_mask, targets, mask=mask)
        self.check_context(state, context)
        return self.forward(x, state, context=context, training=training)

    def run_backward(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dx, dstate0 of the `run` before, from dstate_n, None for zeros: see `backpropagate`. Raises ValueError for a
        dstate_n of a layer without a state."""
        self.check_dstate(dstate_n)
        return self.backpropagate(dy, dstate_n, need_dx=need_dx)

    def check_context(self, state: Any, context: Context, *, within: bool = False) -> None:
        """Raise ValueError for a state or targets that the layer does not take, and for lengths or resets where it
        carries a state past what they say. within: the layer is a part of another."""
        if state is None and context is NOTHING:
            return
        name, accepts = type(self).__name__, self.accepts
        if state is not None and "state" not in accepts and not self.children():
            raise ValueError(f"state: expected None, as {name} has no state, got {type(state).__name__}")
        if context.targets is not None and "targets" not in accepts:
            raise ValueError(f"targets: expected None, as {name} takes no targets")
        if "state" in accepts:
            for option in ("lengths", "reset_mask", "mask"):
                if getattr(context, option) is not None and option not in accepts:
                    raise ValueError(f"{option}: expected None, as {name} takes no {option}")
        reduces = self.time is Time.REDUCES and not self.children()
        if context.mask is not None and reduces and "mask" not in accepts:  # it would count the masked steps
            raise ValueError(f"mask: expected None, as {name} takes no mask")

    def check_dstate(self, dstate_n: Any) -> None:
        """Raise ValueError for the gradient of a state that the layer does not have."""
        if dstate_n is not None and "state" not in self.accepts and not self.children():
            got = type(dstate_n).__name__
            raise ValueError(f"dstate_n: expected None, as {type(self).__name__} has no state, got {got}")

    # --- what it is and what it consists of --------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """Where it expects the axes of time and batch; follows from `batch_first`."""
        return {None: Layout.ANY, False: Layout.TIME_MAJOR, True: Layout.BATCH_FIRST}[self.batch_first]

    @property
    def state_spec(self) -> StateSpec | None:
        """What its state is; None for a layer without one, and for one that has children, which have their own."""
        return StateSpec(("h",), (None,)) if "state" in self.accepts and not self.children() else None

    def children(self) -> tuple[Module, ...]:
        """The layers that x passes through one after the other; none for a layer that computes itself. The state of a
        layer with children is a tuple with an entry for each."""
        return ()

    def parts(self) -> Mapping[str, Module]:
        """The layers that it is made of, by what their parameters' names begin with; none for a layer that computes."""
        return {}

    def flatten(self) -> list[Module]:
        """The layers that compute, in order: the children's, also of children within them; any other layer itself."""
        children = self.children()
        return [layer for child in children for layer in child.flatten()] if children else [self]

    def flatten_state(self, state: Any) -> list[Any]:
        """A state as `forward` takes and returns it, cut into one entry per layer of `flatten`; None for None."""
        children = self.children()
        if not children:
            return [state]
        entries = check_entries("state", state, len(children))
        return [part for child, entry in zip(children, entries) for part in child.flatten_state(entry)]

    def unflatten_state(self, entries: Iterator[Any]) -> Any:
        """The other way round: takes from `entries` as many as there are layers in `flatten`."""
        children = self.children()
        return tuple(child.unflatten_state(entries) for child in children) if children else next(entries)

    def check_trainable(self, *, alone: bool = True) -> None:
        """Raise TypeError if a `Trainer` cannot train this layer: alone, or as a part of another."""
        for layer in self.children():
            layer.check_trainable(alone=False)

    # --- packed weights ----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Pack the weights now, and take them for unchanged from here on, without a look.

        Calls in inference keep packed weights by themselves, and results are the same bits. A prepared model saves the
        first call the packing, and each call the checksum where somebody holds an array of its parameters. These are
        read-only until the model is trained on, or `load_state_dict` or `release` is called. Views of parameters that
        were taken before stay writable: do not write through them.
        """
        if self._prepared is None or self._prepared.model is not self:
            self.release()
            Prepared(self)

    def release(self) -> None:
        """Undo `prepare`, and let go of all packed weights; the next call packs anew. Of use to save memory, and after
        a write to a weight past NumPy, through its bare address."""
        if self._prepared is not None:
            self._prepared.release()
        for layer in self.flatten():
            if layer._stack is not None:
                layer._stack.forget()

    def _trains(self) -> None:
        """A call in training was here: parameters are about to change."""
        if self._prepared is not None:
            self._prepared.release()

    def open_stack(self) -> Any:
        """The compiled form in which the layer runs in inference, with its weights packed, a Stack or for trees a
        TreeStack; None without one."""
        if self._stack is None:
            self._stack = self.make_stack()
        return self._stack

    def make_stack(self) -> Any:
        """A new one, see `open_stack`."""
        return None

    # --- streams -----------------------------------------------------------------------------------------------------

    def stream(self, batch_size: int = 1) -> Stream:
        """The layer step by step, for N = batch_size sequences at once: see `fastrnn.streaming.Stream`. Raises
        ValueError for one that cannot stream: a bidirectional layer, a mean or maximum over time."""
        return open_stream(self, batch_size)

    def check_streams(self) -> None:
        """Raise ValueError for a layer that cannot run step by step."""
        name, spec = type(self).__name__, self.state_spec
        if spec is not None and spec.directions == 2:
            raise ValueError(
                f"{name}: expected one direction for a stream, got a bidirectional layer, whose reverse direction "
                "starts at the end of the sequence"
            )
        if not self.time.in_x:
            raise ValueError(f"{name}: expected a layer that reads step by step, got one that reads no time")
        if not self.time.in_y and not self.takes_newest:
            raise ValueError(f"{name}: expected a layer with an output at every step, got one without")

    def compile_into(self, builder: ChainBuilder) -> bool:
        """Add to `builder` what this layer is in a compiled stream; False, and nothing added, if it has no such form
        there."""
        return False

    # --- description -------------------------------------------------------------------------------------------------

    def arguments(self) -> dict[str, Any]:
        """JSON-able keyword arguments of the constructor that make a layer like this one."""
        if not self._arguments:
            raise NotImplementedError(f"{type(self).__name__} defines no arguments")
        values = {name: getattr(self, name) for name in self._arguments}
        return {name: value.name if isinstance(value, np.dtype) else value for name, value in values.items()}

    def config(self) -> dict[str, Any]:
        """`arguments` with the class's name under "class"; `build(config)` makes the layer, with new weights."""
        frozen = {} if self._trainable or self.children() else {"trainable": False}
        return {"class": class_name(type(self))} | self.arguments() | frozen

    def tie(self, name: str, *, to: str) -> None:
        """See `Sequential`: one layer has no parameters to tie."""
        raise ValueError(f"name: expected a layer made of others, got {type(self).__name__}")

    def summary(self, x: Any = None) -> str:
        """A table to print: each layer's output shape, N batch and T time steps, its parameters, whether they train,
        and what they take in memory. x: an example of what the model reads, for one whose first layer does not say."""
        return summarize(self, x)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Module:
        return cls(**{name: value for name, value in config.items() if name != "class"})

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({', '.join(arguments)})"


def check_entries(name: str, state: Any, count: int) -> tuple[Any, ...]:
    """The state of a layer with `count` children, None for each where it is None."""
    if state is None:
        return (None,) * count
    if not isinstance(state, tuple) or len(state) != count:
        got = f"one of {len(state)}" if isinstance(state, tuple) else type(state).__name__
        raise ValueError(f"{name}: expected None or a tuple with an entry per layer, {count}, got {got}")
    return state
