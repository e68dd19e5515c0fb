"""What every optimiser is: its state, its configuration, and the step that the compiled core does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from .. import _native
from .._validate import Array, check_boolean, check_not_negative
from . import flat_state
from .flat_state import FlatState
from .groups import GroupSpecs, Settings, read_groups, resolve, settings_of
from .tied import untied


class Optimizer:
    """Base of the optimisers: keeps the state and the configuration, and lets the compiled core do the step.

    ``lr`` may be changed between steps (a schedule does so). The other hyperparameters are fixed once made.

    groups: a list of dicts with "params", a name or pattern such as "0.*", a layer, or a list of these, and what is
        their own: "lr", or "lr_scale", a multiple of ``lr`` (a rate of their own is one too, from then on);
        "weight_decay"; "frozen" (True: they stay as they are, and their gradients count nothing). All groups that a
        parameter belongs to apply, later ones over earlier ones.
    decay_biases: False: no weight decay of parameters named bias..., unless a group says so.

    A subclass lists its hyperparameters, names its state in ``_slots`` and gives the numbers of a step in ``_numbers``.
    """

    name: ClassVar[str]
    hyperparameters: ClassVar[tuple[str, ...]]
    _rule: ClassVar[Literal["sgd", "rmsprop", "adagrad", "adam"]]  # the compiled formula
    _decoupled: ClassVar[bool] = False  # weight decay is applied to the parameter itself, not through the gradient

    def __init__(self, lr: float, weight_decay: float, *, decay_biases: bool = True, groups: GroupSpecs = ()) -> None:
        self.lr = lr
        self.weight_decay = check_not_negative("weight_decay", weight_decay)
        self.decay_biases = check_boolean("decay_biases", decay_biases)
        self.groups = read_groups(groups, self.lr)
        self.steps = 0
        self._idle: dict[str, int] = {}  # steps that a parameter was left out of
        self._settings: dict[str, Settings] = {}  # of the parameters, once they are known
        self._flat: FlatState | None = None  # from the first step on
        self._loaded: dict[str, Array] = {}  # a loaded state, as long as there was no step

    @property
    def lr(self) -> float:
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_not_negative("lr", value)

    def step(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        frozen: Collection[str] = (),
    ) -> float | None:
        """Update every array of ``params`` in place by its gradient in ``grads``.

        All parameters are C-contiguous and of one dtype, float32 or float64, and have the same names and
        shapes at every step. ``grads`` needs an array of the same shape and dtype for each; it is not
        changed, and what it has beyond ``params`` is left alone: passing fewer parameters freezes the rest.
        Where a gradient is a `fastrnn.RowGradient` (of an Embedding with sparse=True), the step is lazy: only its rows
        of parameter and state are updated and decayed, each as in a dense step.

        clip_norm, clip_value: bitwise the step after ``clip_grad_norm``, then ``clip_grad_value`` of the gradients of
        these parameters, in the same pass. Numbers smaller than the dtype's normal ones count as zeros.
        frozen: names of parameters that this step leaves as they are; their gradients count nothing, and a step is none
        to them: Adam corrects its means by the steps that a parameter has had.

        One array under two names is one parameter, whose gradients add up.

        Returns the gradients' norm before clipping; None without clip_norm.
        Raises TypeError for a dtype, ValueError for a name, shape or layout that does not fit, FloatingPointError if
        with clip_norm the norm is not finite; then nothing has been updated.
        """
        if clip_norm is not None:
            clip_norm = check_not_negative("clip_norm", clip_norm, finite=False)
        if clip_value is not None:
            clip_value = check_not_negative("clip_value", clip_value, finite=False)
        changed = getattr(params, "changed", int)
        params, grads = untied(params, grads)
        flat = self._flat or self._first(params)
        flat.check_names(params)
        idle = self._left_out(params, frozen)
        numbers = self._numbers(self.steps + 1)
        norm: float | None = _native.optimizer_step(
            flat.shapes,
            flat.dtype,
            list(flat.slots.values()),
            params,
            grads,
            flat_state.BLOCK,
            self._rule,
            **self._decay(self._lr, self.weight_decay),
            clip_norm=clip_norm,
            clip_value=clip_value,
            own=self._own_numbers(params, numbers),
            idle=idle,
            **numbers,
        )
        self._flat = flat
        self._loaded = {}
        self.steps += 1
        for name in idle:
            self._idle[name] = self._idle.get(name, 0) + 1
        changed()  # a layer's parameters count changes, for its backward
        return norm

    def resolve(self, params: Mapping[str, Array]) -> None:
        """Meet the parameters before the first step: names take the place of layers in ``groups``. Raises ValueError
        for a group that none of them belongs to."""
        self.groups = resolve(self.groups, params)
        self._settings = {}
        if self.groups or not self.decay_biases:
            self._settings = {
                name: settings_of(name, self.groups, self.weight_decay, self.decay_biases) for name in params
            }

    def _decay(self, lr: float, weight_decay: float) -> dict[str, float]:
        """Weight decay through the gradient, and that of the parameter itself."""
        if self._decoupled:
            return {"l2_weight_decay": 0.0, "decoupled_weight_decay": lr * weight_decay}
        return {"l2_weight_decay": weight_decay, "decoupled_weight_decay": 0.0}

    def _left_out(self, params: Mapping[str, Array], frozen: Collection[str]) -> set[str]:
        if not (self.groups or frozen) and self.decay_biases:
            return set()
        if (self.groups or not self.decay_biases) and self._settings.keys() != params.keys():
            self.resolve(params)
        return {name for name, own in self._settings.items() if own.frozen} | {
            name for name in frozen if name in params
        }

    def _own_numbers(
        self, params: Mapping[str, Array], common: Mapping[str, float]
    ) -> dict[str, tuple[float, float, float, float]]:
        """Rate, l2 and decoupled weight decay, and eps of the parameters with other ones than all."""
        own: dict[str, tuple[float, float, float, float]] = {}
        if not self._settings and not self._idle:
            return own
        for name in params if self._settings else self._idle:
            settings = self._settings.get(name, Settings(1.0, self.weight_decay, False))
            numbers = self._numbers(self.steps + 1 - self._idle[name]) if name in self._idle else common
            decay = self._decay(self._lr * settings.lr_scale, settings.weight_decay)
            rate, eps = numbers["rate"] * settings.lr_scale, numbers.get("eps", 0.0)
            own[name] = (rate, decay["l2_weight_decay"], decay["decoupled_weight_decay"], eps)
        return own

    def _slots(self) -> dict[str, float]:
        """The state's arrays, all of the parameters' shape, and the value each begins with."""
        return {}

    def _numbers(self, t: int) -> dict[str, float]:
        """What the compiled formula needs at step t: "rate", which is multiplied in last, and others by name."""
        raise NotImplementedError

    def _first(self, params: Mapping[str, Array]) -> FlatState:
        flat = FlatState(params, self._slots())
        if self._loaded:
            flat.restore(self._loaded, self._untouched())
        return flat

    def _untouched(self) -> set[str]:
        """Parameters that no step has updated: their state is as it began, and is not written."""
        return {name for name, steps in self._idle.items() if steps == self.steps}

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state: "step" (int) and one array per slot and parameter, named "slot.parameter"; and
        "idle.parameter" where a parameter has been left out of steps, the number of these.

        Before the first step there are no arrays. The hyperparameters are in ``config()``.
        """
        arrays = self._loaded if self._flat is None else self._flat.views(self._untouched())
        idle = {f"idle.{name}": np.array([steps]) for name, steps in self._idle.items()}
        return {"step": self.steps, **{name: array.copy() for name, array in arrays.items()}, **idle}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a ``state_dict()`` of the same kind of optimiser; the next steps are bitwise as without saving.

        Raises ValueError for a missing or an unknown entry or a wrong shape, TypeError for a wrong dtype:
        at once where there was a step already, else as far as they can be told without the parameters,
        and the rest at the next ``step``.
        """
        arrays = {name: np.array(array) for name, array in state.items() if name != "step"}
        steps = np.asarray(state.get("step"))
        if steps.ndim or steps.dtype.kind not in "iu" or steps < 0:
            raise ValueError(f"state['step']: expected an integer >= 0, got {state.get('step')!r}")
        idle = {name.partition(".")[2]: int(arrays.pop(name).sum()) for name in list(arrays) if name[:5] == "idle."}
        slots = self._slots()
        for name in arrays:
            if name.partition(".")[0] not in slots:
                raise ValueError(f"state: {self!r} keeps {', '.join(slots) or 'nothing'}, got {name!r}")
        if slots and steps and not arrays and not idle:
            raise ValueError(f"state: expected arrays of {', '.join(slots)} after {steps} steps, got none")
        if self._flat is not None and (arrays or idle or not slots):
            self._flat.restore(arrays, {name for name, count in idle.items() if count == steps})
        else:  # no step yet here, or none there: the next one begins anew
            self._flat = None
            self._loaded = arrays
        self.steps = int(steps)
        self._idle = idle

    def config(self) -> dict[str, Any]:
        """The name and the hyperparameters, JSON-able; ``from_config`` makes the optimiser from it again."""
        values = {key: getattr(self, key) for key in self.hyperparameters}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        if not self.decay_biases:
            values["decay_biases"] = False
        if self.groups:
            values["groups"] = [group.config() for group in self.groups]
        return {"name": self.name} | values

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={getattr(self, key)!r}" for key in self.hyperparameters)
        return f"{type(self).__name__}({values})"
