"""Sequential: layers one after another, as one layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._validate import check_lengths
from ..streaming.generate import generate
from .container import Container
from .layout import time_major_mask, without_rest
from .module import Array, Module, build, check_entries
from .protocol import NOTHING, Context, Time


class Sequential(Container):
    """y = layers[-1](... layers[1](layers[0](x))). Parameters are named "0.weight", "1.weight_ih_l0", ...

    Called, its recurrent layers start from zero states and pass on their output only; `run` starts them from a state
    and returns the one they end with. `lengths` (N,) and `reset_mask` (T, N), in every layout, go to the layers that
    take them. `batch_first` is the layout of the layers that have one: True, False, or None where none has; a mixture
    is refused with ValueError, and so is a recurrent layer behind one that has reduced the axis of time, and one layer
    in two places (it would keep only the later call for its backward).

    rng: a seed or a Generator for the whole model: it draws anew the weights of all layers that were made without an
    rng, each from a stream of its own. Equal layers with the same seed of their own do not stay equal: the later ones
    are drawn anew, from the next stream of that seed.
    """

    optional_input_grad = True

    def __init__(self, *layers: Module, rng: int | np.random.Generator | None = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: expected at least one layer, got none")
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers: expected layers, got {type(layer).__name__} at {index}")
            if any(layer is other for other in layers[:index]):
                raise ValueError(f"layers: expected each layer once, got the same {_label(layers, index)} twice")
        self.layers = layers
        self._parts = {str(k): layer for k, layer in enumerate(layers)}
        self.batch_first = _common_layout(layers)
        self.time = Time.of(
            next((layer.time.in_x for layer in layers if layer.batch_first is not None), True), _ends_in_time(layers)
        )
        accepted = frozenset().union(*(layer.accepts for layer in layers))
        self.accepts = (accepted - {"targets"}) | (layers[-1].accepts & {"targets"})
        self.needs_targets = layers[-1].needs_targets
        self.features = _features(layers)
        self._looked_up = (*(layer.reads_lookup for layer in layers[1:]), False)  # by the layer behind each
        self._begin(rng)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = {str(k): layer for k, layer in enumerate(state["layers"])}
        super().__setstate__(state | {"_parts": parts})  # pickles of before had none

    def parts(self) -> Mapping[str, Module]:
        return self._parts

    def children(self) -> tuple[Module, ...]:
        return self.layers

    def arguments(self) -> dict[str, Any]:
        return {"layers": [layer.config() for layer in self.layers]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sequential:
        return cls(*map(build, config["layers"]))

    def __call__(
        self,
        x: Array,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        targets: Array | None = None,
        mask: Array | None = None,
        training: bool = False,
    ) -> Array:
        """y. `lengths` (N,), `reset_mask` (T, N), with batch_first too, and `mask`, of the first axes of x, go to the
        layers that take them, `targets` to the last one."""
        context = NOTHING
        if lengths is not None or reset_mask is not None or targets is not None or mask is not None:
            context = Context(lengths, reset_mask, targets, mask=mask)
            self.check_context(None, context)
        return self._own_forward(x, context=context, training=training)[0]

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        """y, state_n; the state is a tuple with one entry per layer, None for a layer without state or for zeros."""
        in_front = self.batch_first is not None and "lengths" not in self.layers[0].accepts
        if (context.lengths is not None or context.mask is not None) and self.time.in_x and in_front:
            x = self._without_rest(x, context.lengths, context.mask)
        inner = context if context.targets is None else context._replace(targets=None)  # for all but the last layer
        last = self.layers[-1]
        state_n: list[Any] = []
        entries = check_entries("state", state, len(self.layers))
        for layer, entry, looked_up in zip(self.layers, entries, self._looked_up):
            told = context if layer is last else inner
            if entry is not None or told is not NOTHING:
                layer.check_context(entry, told, within=True)
            try:
                found = layer.look_up(x) if looked_up and training else None
                if found is not None:
                    x, entry_n = found, None
                else:
                    x, entry_n = layer.forward(x, entry, context=told, training=training)
            except (TypeError, ValueError, IndexError) as error:
                if not state_n or type(error) not in (TypeError, ValueError, IndexError):
                    raise  # the first layer's x is the caller's
                label = _label(self.layers, len(state_n))
                raise type(error)(f"{label}: {error}") from error
            state_n.append(entry_n)
        return x, tuple(state_n)

    def _without_rest(self, x: Any, lengths: Any, mask: Any) -> Any:
        """What stands past lengths and at masked steps must not reach layers in front of the one that takes them."""
        x = np.asarray(x)
        if mask is not None and np.shape(mask) == x.shape[:1]:  # of one sequence
            return without_rest(x, None, False, mask)
        if x.ndim < 2:
            return x
        T, N = x.shape[:2] if not self.batch_first else x.shape[1::-1]
        if lengths is not None:
            lengths = check_lengths(lengths, T, N)
        if time_major_mask(mask, T, N, True, bool(self.batch_first)) is None:
            mask = None
        return without_rest(x, lengths, self.batch_first, mask)

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        needs = []  # whether a layer's dx is read: by one before it that learns, or that takes no None
        for layer in self.layers:
            needs.append(need_dx)
            need_dx = need_dx or bool(layer.params) or not layer.optional_input_grad
        dstate0 = []
        entries = check_entries("dstate_n", dstate_n, len(self.layers))
        for layer, entry, need in zip(reversed(self.layers), reversed(entries), reversed(needs)):
            if entry is not None:
                layer.check_dstate(entry)
            dy, entry0 = layer.backpropagate(dy, entry, need_dx=need)
            dstate0.append(entry0)
        return dy, tuple(reversed(dstate0))

    def check_context(self, state: Any, context: Context, *, within: bool = False) -> None:
        words = {"lengths": "lengths", "reset_mask": "resets", "mask": "masks"}
        for option, word in () if within else words.items():
            if getattr(context, option) is not None and option not in self.accepts:
                raise ValueError(f"{option}: expected None, as no layer of this Sequential takes {word}")
        if context.targets is not None and "targets" not in self.accepts:
            raise ValueError("targets: expected None, as the last layer of this Sequential takes no targets")
        super().check_context(state, context, within=within)

    def generate(
        self,
        start: Any,
        steps: int,
        state: Any = None,
        *,
        mode: str = "greedy",
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: int | np.random.Generator | None = None,
        end: int | None = None,
        return_state: bool = False,
    ) -> Any:
        """Tokens (N, steps), or with mode="feedback" outputs (N, steps, M), that come of feeding the model what it puts
        out, from start (N,), (N, T), (N, D) or (N, T, D) on: see `fastrnn.streaming.generate`."""
        return generate(
            self,
            start,
            steps,
            state,
            mode=mode,
            temperature=temperature,
            top_k=top_k,
            rng=rng,
            end=end,
            return_state=return_state,
        )


def _common_layout(layers: tuple[Module, ...]) -> bool | None:
    first, timeless = None, None
    for index, layer in enumerate(layers):
        if layer.batch_first is not None:
            if not layer.time.in_x:
                if first is not None and timeless is None:
                    raise ValueError(
                        f"layers: expected a layer such as LastStep, which does away with time, before "
                        f"{_label(layers, index)}, got {_label(layers, first)}"
                    )
                timeless = None
            if timeless is not None:
                raise ValueError(
                    f"layers: expected no layer that reads time after {_label(layers, timeless)}, got "
                    f"{_label(layers, index)}"
                )
            if first is None:
                first = index
            if layer.batch_first != layers[first].batch_first:
                raise ValueError(
                    f"layers: expected one layout, got batch_first={layers[first].batch_first} in "
                    f"{_label(layers, first)} and batch_first={layer.batch_first} in {_label(layers, index)}"
                )
        if not layer.time.in_y:
            timeless = index
    return None if first is None else layers[first].batch_first


def _features(layers: tuple[Module, ...]) -> int | None:
    """How many features the first layer reads that says so; layers such as Dropout before it take any."""
    for layer in layers:
        if layer.features is not None or layer.reads is not None:
            return layer.features
    return None


def _ends_in_time(layers: tuple[Module, ...]) -> bool:
    """Whether y has a time axis where x has one, or where a layer makes one."""
    for layer in reversed(layers):
        if not layer.time.in_x or not layer.time.in_y:
            return not layer.time.in_x
    return True


def _label(layers: tuple[Module, ...], index: int) -> str:
    return f"layer {index} ({type(layers[index]).__name__})"
