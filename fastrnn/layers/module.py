"""What every layer is: parameters, gradients, a forward, a backward, and a description that rebuilds it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validate import check_dtype
from ..streaming.stream import open_stream

Array = NDArray[Any]

_classes: dict[str, type[Module]] = {}


class Time(enum.Enum):
    """What a layer does with the axis of time."""

    PER_STEP = "per step"  # one in x, one in y
    REDUCES = "reduces"  # one in x, none in y
    CREATES = "creates"  # none in x, one in y


class Layout(enum.Enum):
    """Where a layer expects the axes of time and batch."""

    ANY = "any"  # it does not look at those axes
    TIME_MAJOR = "time-major"  # (T, N, ...)
    BATCH_FIRST = "batch-first"  # (N, T, ...)


@dataclass(frozen=True)
class Context:
    """What a forward is told beside x and the state; None for what there is not."""

    lengths: Array | None = None  # (N,)
    reset_mask: Array | None = None  # (T, N)
    targets: Array | None = None  # what the output should be, to be fed back


@dataclass(frozen=True)
class StateSpec:
    """What a layer's state is: for each of `names` an array (levels * directions, N, width)."""

    names: tuple[str, ...]  # such as ("h", "c")
    widths: tuple[int | None, ...]  # None where only the layer itself knows
    levels: int = 1  # stacked layers
    directions: int = 1
    is_array: bool = True  # a single array rather than a tuple


class Module:
    """A layer. `y = layer(x, training=True)`, then `dx = layer.backward(dy)`, which adds to `layer.grads`.

    Only a call with training=True keeps what a backward needs, in place of what an earlier one kept, and one backward
    consumes it: a second raises RuntimeError. A call with training=False writes nothing on the layer, so several
    threads may make such calls at the same time. Between a training call and its backward leave x and y as they are.

    A layer of your own derives from this class, calls `super().__init__()` and `add_param`, and defines `__call__`,
    `backward` and `arguments`. A model that contains it can be loaded once its class has been defined.
    """

    batch_first: bool | None = None
    """Which layout the layer reads, (N, T, ...) if True, (T, N, ...) if False; None: it does not look at those axes."""
    keeps_time: bool = True
    """False for a layer that has a time axis in x but none in y."""
    reads_time: bool = True
    """False for a layer that has a time axis in y but none in x."""
    streams: bool = False
    """True for a layer that does away with time by taking the newest step: in a stream it passes each step on. Others
    have nothing to say before the sequence has ended."""
    takes_lengths: bool = False
    """True for a layer that can be called with `lengths`."""
    takes_reset_mask: bool = False
    """True for a layer that can be called with `reset_mask`."""
    skips_dx: bool = False
    """True for a layer whose backward takes `need_dx`: False where nobody reads dx, which may then be None; so may dy."""
    takes_targets: bool = False
    """True for a layer that can be called with `targets`, what its output should be, to be fed back in training."""
    scores_with_targets: bool = False
    """True for a layer that needs its `targets` in evaluation too, as it cannot run without."""
    takes_state: bool = False
    """True for a layer that is called with a state, returns (y, state_n), and whose backward takes dstate_n and returns
    (dx, dstate0)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _classes[class_name(cls)] = cls

    def __init__(self) -> None:
        self._params: dict[str, Array] = {}
        self._grads: dict[str, Array] = {}
        self._cache: Any = None
        self._rng: np.random.Generator | None = None

    def __call__(self, x: Array, *, training: bool = False) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    def backward(self, dy: Array) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def run(
        self,
        x: Array,
        state: Any = None,
        *,
        lengths: Array | None = None,
        reset_mask: Array | None = None,
        targets: Array | None = None,
        training: bool = False,
    ) -> tuple[Array, Any]:
        """y, state_n: the layer from `state` on, None for zeros, so that a sequence can be cut into pieces.

        Every layer can be run like this. One without a state returns None for it, and one that does not look at the
        axes of time and batch passes over lengths (N,) and reset_mask (T, N). `run_backward` is its backward.
        Raises ValueError for a state that the layer does not have and for lengths or resets that it cannot honour.
        """
        if state is not None and not self.takes_state:
            raise ValueError(f"state: expected None, as {type(self).__name__} has no state, got {type(state).__name__}")
        options: dict[str, Any] = {}
        if lengths is not None and self._honours("lengths", self.takes_lengths):
            options["lengths"] = lengths
        if reset_mask is not None and self._honours("reset_mask", self.takes_reset_mask):
            options["reset_mask"] = reset_mask
        if targets is not None:
            if not self.takes_targets:
                raise ValueError(f"targets: expected None, as {type(self).__name__} takes no targets")
            options["targets"] = targets
        result = self(x, *(() if state is None else (state,)), training=training, **options)
        return result if isinstance(result, tuple) else (result, None)

    def run_backward(self, dy: Array | None, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        """dx, dstate0 of the `run` before, from dstate_n, None for zeros. dstate0 is None for a layer without state, and
        with need_dx=False dx may be None, which spares a product with the weights."""
        if dstate_n is not None and not self.takes_state:
            got = type(dstate_n).__name__
            raise ValueError(f"dstate_n: expected None, as {type(self).__name__} has no state, got {got}")
        options = {} if need_dx or not self.skips_dx else {"need_dx": False}
        result = self.backward(dy, *(() if dstate_n is None else (dstate_n,)), **options)
        return result if isinstance(result, tuple) else (result, None)

    # The new protocol, for now in terms of the old flags.

    @property
    def time(self) -> Time:
        if not self.reads_time:
            return Time.CREATES
        return Time.PER_STEP if self.keeps_time else Time.REDUCES

    @property
    def layout(self) -> Layout:
        return {None: Layout.ANY, False: Layout.TIME_MAJOR, True: Layout.BATCH_FIRST}[self.batch_first]

    @property
    def accepts(self) -> frozenset[str]:
        """Of "state", "lengths", "reset_mask" and "targets"."""
        flags = {
            "state": self.takes_state,
            "lengths": self.takes_lengths,
            "reset_mask": self.takes_reset_mask,
            "targets": self.takes_targets,
        }
        return frozenset(name for name, takes in flags.items() if takes)

    @property
    def needs_targets(self) -> bool:
        return self.scores_with_targets

    @property
    def state_spec(self) -> StateSpec | None:
        if not self.takes_state or self.children():
            return None
        names = getattr(self, "states", ("h",))
        H = getattr(self, "hidden_size", None)
        sizes = {"h": getattr(self, "proj_size", 0) or H, "c": H}
        return StateSpec(
            names,
            tuple(sizes.get(name) for name in names),
            getattr(self, "num_layers", 1),
            2 if getattr(self, "bidirectional", False) else 1,
            getattr(self, "state_is_array", len(names) == 1),
        )

    def children(self) -> tuple[Module, ...]:
        """The layers that this one consists of; none for a layer that computes itself."""
        return ()

    def check_trainable(self, *, alone: bool = True) -> None:
        """Raise TypeError if a `Trainer` cannot train this layer: alone, or as a part of another."""
        for layer in self.children():
            layer.check_trainable(alone=False)

    def forward(
        self, x: Array, state: Any = None, *, context: Context = Context(), training: bool = False
    ) -> tuple[Array, Any]:
        return self.run(
            x, state, lengths=context.lengths, reset_mask=context.reset_mask, targets=context.targets, training=training
        )

    def backpropagate(self, dy: Array | None, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        return self.run_backward(dy, dstate_n, need_dx=need_dx)

    def leaves(self) -> list[Module]:
        """The layers that compute, in order: those of a `Sequential`, also of one within it; any other layer itself."""
        return [self]

    def split_state(self, state: Any) -> list[Any]:
        """A state as `run` takes and returns it, cut into one entry per leaf; None for None."""
        return [state]

    def join_state(self, entries: Iterator[Any]) -> Any:
        """The other way round: takes from `entries` as many as there are leaves."""
        return next(entries)

    def _honours(self, name: str, takes: bool) -> bool:
        """Whether to pass `name` on. Refused where a layer carries a state past what it cannot be told."""
        if self.takes_state and not takes:
            raise ValueError(f"{name}: expected None, as {type(self).__name__} takes no {name}")
        return takes

    def stream(self, batch_size: int = 1) -> Any:
        """The layer step by step, for N = batch_size sequences at once: see `streaming.Stream`. Raises ValueError for
        one that cannot stream: a bidirectional layer, a mean or maximum over time."""
        return open_stream(self, batch_size)

    def stream_links(self, chain: Any) -> bool:
        """Add to `chain.links` what this layer is to a compiled stream; False, and nothing added, if it has no such
        form there."""
        return False

    def arguments(self) -> dict[str, Any]:
        """JSON-able keyword arguments of the constructor that make a layer like this one."""
        raise NotImplementedError(f"{type(self).__name__} defines no arguments")

    def config(self) -> dict[str, Any]:
        """`arguments` with the class's name under "class"; `build(config)` makes the layer, with new weights."""
        return {"class": class_name(type(self))} | self.arguments()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Module:
        return cls(**{name: value for name, value in config.items() if name != "class"})

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, Array]:
        """Name -> parameter. The arrays are those the layer computes with: change them in place."""
        return self._params

    @property
    def grads(self) -> dict[str, Array]:
        """Name -> gradient, of the parameter's shape and dtype. Each backward adds to it."""
        return self._grads

    def add_param(self, name: str, value: Array) -> None:
        """Give the layer a parameter, and a gradient of zeros to go with it."""
        check_dtype(name, value.dtype)
        self._params[name] = np.ascontiguousarray(value)
        self._grads[name] = np.zeros(value.shape, value.dtype)

    def zero_grad(self) -> None:
        for grad in self.grads.values():
            grad.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Name -> copy of the parameter."""
        return {name: param.copy() for name, param in self.params.items()}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Copy values of exactly these names and shapes into the parameters, converted to the layer's dtype.

        Values are arrays or what np.asarray takes, so a PyTorch module's state_dict works for the layers that share
        its names. Raises ValueError for a name that is missing or unknown and for a wrong shape, TypeError for what is
        not floating point; the parameters are then unchanged.
        """
        params = self.params
        missing = [name for name in params if name not in mapping]
        unknown = [name for name in mapping if name not in params]
        if missing or unknown:
            wrong = {"missing": missing, "unknown": unknown}
            said = "; ".join(f"{word} {', '.join(names)}" for word, names in wrong.items() if names)
            raise ValueError(f"mapping: expected the parameters of {type(self).__name__}, got {said}")
        values = {name: np.asarray(value) for name, value in mapping.items()}
        for name, value in values.items():
            if value.dtype.kind != "f":
                raise TypeError(f"{name}: expected floating point, got {value.dtype}")
            if value.shape != params[name].shape:
                raise ValueError(f"{name}: expected shape {params[name].shape}, got {value.shape}")
        for name, value in values.items():
            params[name][...] = value

    # --- what training keeps ------------------------------------------------------------------------------------------

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Name and Generator of all that draws random numbers in training (dropout), for checkpoints."""
        if self._rng is not None:
            yield "", self._rng

    def _kept(self) -> Any:
        """What the last call with training=True kept."""
        if self._cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: expected a call with training=True before each backward, got none "
                "since the last"
            )
        return self._cache

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and deep copies go without the cache, which belongs to a call under way."""
        return self.__dict__ | {"_cache": None}

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({', '.join(arguments)})"


def build(config: Mapping[str, Any]) -> Module:
    """The layer that `layer.config()` describes, with new weights. Raises ValueError for an unknown class."""
    try:
        cls = _classes[config["class"]]
    except KeyError:
        raise ValueError(
            f"class: expected a layer of fastrnn or a subclass of Module defined before, got {config.get('class')!r}"
        ) from None
    return cls.from_config(config)


def class_name(cls: type) -> str:
    """Layers of fastrnn go by their bare names; no class from elsewhere can take one of those."""
    if cls.__module__.startswith("fastrnn."):
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}"
