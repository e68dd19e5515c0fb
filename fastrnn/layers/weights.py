"""What holds parameters: names, gradients, random starts, freezing, and what training keeps for a backward."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._native import zero_gradients
from .._validate import as_generator, check_dtype
from .params import Params

if TYPE_CHECKING:
    from .module import Module

Array = NDArray[Any]


@dataclass
class Start:
    """Where a layer's random weights came from."""

    seed: int | None  # None: a Generator, or chance
    given: bool  # False: chance
    key: tuple[int, ...]  # of the layer's class and sizes: one seed gives different layers different numbers
    occurrence: int = 0  # of several layers of one model with the same seed and key

    def generator(self) -> np.random.Generator:
        key = (*self.key, self.occurrence) if self.occurrence else self.key
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


class Weights:
    """The part of `Module` that has to do with parameters."""

    def __init__(self) -> None:
        self._params = Params()
        self._grads: dict[str, Array] = {}
        self._cache: Any = None
        self._rng: np.random.Generator | None = None
        self._start: Start | None = None
        self._trainable = True

    if TYPE_CHECKING:  # Module's

        def flatten(self) -> list[Module]: ...
        def release(self) -> None: ...
        def _trains(self) -> None: ...
        def arguments(self) -> dict[str, Any]: ...

    # --- parameters ---------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, Array]:
        """Name -> parameter. The arrays are those the layer computes with: change them in place."""
        self._params.reads += 1  # whoever reads may write
        return self._params

    @property
    def grads(self) -> dict[str, Array]:
        """Name -> gradient, of the parameter's shape and dtype. Each backward adds to it."""
        return self._grads

    @property
    def trainable(self) -> bool:
        """False after `freeze`; of a layer made of others, where one of them is frozen."""
        return self._trainable

    @property
    def trainable_params(self) -> dict[str, Array]:
        """`params` without those of frozen layers: what an optimiser is given, `step(model.trainable_params,
        model.grads)`, with the same names at each of its steps."""
        return self.params if self._trainable else Params()

    def freeze(self) -> None:
        """Let a trainer leave the parameters of this layer, and of those in it, as they are. Gradients are computed as
        before. Freeze before the first step of an optimiser, whose state belongs to the parameters that it has seen."""
        for layer in self.leaves():
            layer._trainable = False

    def unfreeze(self) -> None:
        """Undo `freeze`."""
        for layer in self.leaves():
            layer._trainable = True

    def leaves(self) -> Sequence[Weights]:
        """The layers with parameters of their own, in order: those that this one is made of, or itself."""
        return [self]

    def aliases(self) -> dict[str, str]:
        """Tied parameters: name -> the name under which `params` has it."""
        return {}

    def add_param(self, name: str, value: Array) -> None:
        """Give the layer a parameter, and a gradient of zeros to go with it."""
        check_dtype(name, value.dtype)
        self._params[name] = np.ascontiguousarray(value)
        self._grads[name] = np.zeros(value.shape, value.dtype)

    def zero_grad(self) -> None:
        zero_gradients(self.grads)

    def state_dict(self) -> dict[str, Array]:
        """Name -> copy of the parameter; of tied ones under each of their names, as in PyTorch."""
        params = self.params
        return {name: params[name].copy() for name in [*params, *self.aliases()]}

    def load_state_dict(self, mapping: Mapping[str, Any], *, prefix: str = "") -> None:
        """Copy values of exactly these names and shapes into the parameters, converted to the layer's dtype.

        Values are arrays or what np.asarray takes, so a PyTorch module's state_dict works for the layers that share
        its names. prefix: takes the values whose names begin so, "encoder.lstm." for a part of a model, and passes over
        the others. Of tied parameters one name is enough. Raises ValueError for a name that is missing or unknown, for
        a wrong shape and for tied parameters that differ, TypeError for what is not floating point; the parameters are
        then unchanged.
        """
        found = {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
        if prefix and not found:
            known = ", ".join(sorted({name.rpartition(".")[0] + "." for name in mapping if "." in name})) or "none"
            raise ValueError(f"prefix: expected the beginning of names in mapping, such as {known}, got {prefix!r}")
        values = self._checked(found, prefix)
        for layer in self.flatten():
            layer.release()
        params = self.params
        with np.errstate(under="ignore"):  # what is too small for float32 is 0
            for name, value in values.items():
                params[name][...] = value
        getattr(params, "changed", int)()  # not of a user's cell, whose parameters are a plain dict

    def _checked(self, mapping: Mapping[str, Any], prefix: str) -> dict[str, Array]:
        """The value of each parameter, checked; prefix: for messages."""
        params, aliases = self.params, self.aliases()
        given = {aliases.get(name, name) for name in mapping}
        missing = [name for name in params if name not in given]
        unknown = [name for name in mapping if aliases.get(name, name) not in params]
        if missing or unknown:
            wrong = {"missing": missing, "unknown": unknown}
            said = "; ".join(f"{word} {', '.join(prefix + n for n in names)}" for word, names in wrong.items() if names)
            raise ValueError(f"mapping: expected the parameters of {type(self).__name__}, got {said}")
        values: dict[str, Array] = {}
        for name, given_value in mapping.items():
            value, stored = np.asarray(given_value), aliases.get(name, name)
            wanted = params[stored].dtype
            if value.dtype.kind != "f" if wanted.kind == "f" else value.dtype != wanted:
                expected = "floating point" if wanted.kind == "f" else wanted
                raise TypeError(f"{prefix}{name}: expected {expected}, got {value.dtype}")
            if value.shape != params[stored].shape:
                raise ValueError(f"{prefix}{name}: expected shape {params[stored].shape}, got {value.shape}")
            if stored in values and not np.array_equal(values[stored], value, equal_nan=True):
                raise ValueError(
                    f"{prefix}{name}: expected the values of {prefix}{stored}, to which it is tied, got others"
                )
            values[stored] = value
        return values

    # --- random numbers -----------------------------------------------------------------------------------------------

    def _generator(self, rng: Any, *sizes: int, kind: str) -> np.random.Generator:
        """The Generator that a layer of this kind and sizes draws its weights from: see `fastrnn.layers.init`."""
        generator = as_generator("rng", rng)
        seed = None if rng is None or rng is generator else int(rng)
        self._start = Start(seed, rng is not None, (zlib.crc32(kind.encode()), *sizes))
        return generator if seed is None else self._start.generator()

    def reset_parameters(self, rng: int | np.random.Generator | None = None) -> None:
        """Draw all parameters anew, in place, as the constructor does with this rng. A layer of your own defines it, if
        it is to stand in a `Sequential` with an rng."""
        if self._start is None:
            if not self.params and self._rng is None:
                return
            name = type(self).__name__
            raise TypeError(
                f"rng: expected layers that can draw their weights anew, got {name} without reset_parameters"
            )
        make: Any = type(self)
        twin = make(**self.arguments(), rng=rng)
        self._take_over(twin)
        self._start = twin._start

    def _take_over(self, twin: Any) -> None:
        """The parameters of a layer like this one, and its Generator."""
        self.release()
        for name, value in twin.params.items():
            self._params[name][...] = value
        self._params.changed()
        if self._rng is not None:
            self._rng.bit_generator.state = twin._rng.bit_generator.state

    def generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Name and Generator of all that draws random numbers in training (dropout), for checkpoints."""
        if self._rng is not None:
            yield "", self._rng

    # --- what training keeps ------------------------------------------------------------------------------------------

    def _kept(self) -> Any:
        """What the last call with training=True kept."""
        if self._cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: expected a call with training=True before each backward, got none "
                "since the last"
            )
        if self._cache_version != self._params.version:
            raise RuntimeError(
                f"{type(self).__name__}.backward: expected the weights of the call with training=True, got ones that "
                "an optimiser or load_state_dict has changed since"
            )
        return self._cache

    @property
    def _cache(self) -> Any:
        return self._kept_cache

    @_cache.setter
    def _cache(self, cache: Any) -> None:
        self._kept_cache, self._cache_version = cache, self._params.version
        if cache is not None:
            self._trains()

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and deep copies go without the cache, which belongs to a call under way."""
        return self.__dict__ | {"_kept_cache": None, "_prepared": None, "_stack": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """joblib hands its workers arrays mapped from a file, read-only: a model trains on copies of them."""
        self.__dict__.update(
            {"_start": None, "_stack": None, "_trainable": True} | state
        )  # pickles of before had neither
        for arrays in (self._params, self._grads):
            for name, array in arrays.items():
                if isinstance(array, np.ndarray) and not array.flags.writeable:
                    arrays[name] = array.copy()
