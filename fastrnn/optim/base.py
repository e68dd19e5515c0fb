"""What every optimiser is: its state, its configuration, and the step that the compiled core does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .. import _native
from .._validate import Array, check_not_negative
from . import flat_state
from .flat_state import FlatState


class Optimizer:
    """Base of the optimisers: keeps the state and the configuration, and lets the compiled core do the step.

    ``lr`` may be changed between steps (a schedule does so). The other hyperparameters are fixed once made.
    A subclass lists its hyperparameters, names its state in ``_slots`` and gives the numbers of a step in ``_numbers``.
    """

    name: ClassVar[str]
    hyperparameters: ClassVar[tuple[str, ...]]
    _rule: ClassVar[int]  # the compiled formula
    _decoupled: ClassVar[bool] = False  # weight decay is applied to the parameter itself, not through the gradient

    def __init__(self, lr: float, weight_decay: float) -> None:
        self.lr = lr
        self.weight_decay = check_not_negative("weight_decay", weight_decay)
        self.steps = 0
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
    ) -> float | None:
        """Update every array of ``params`` in place by its gradient in ``grads``.

        All parameters are C-contiguous and of one dtype, float32 or float64, and have the same names and
        shapes at every step. ``grads`` needs an array of the same shape and dtype for each; it is not
        changed, and what it has beyond ``params`` is left alone: passing fewer parameters freezes the rest.

        clip_norm, clip_value: bitwise the step after ``clip_grad_norm``, then ``clip_grad_value`` of the gradients of
        these parameters, in the same pass. Numbers smaller than the dtype's normal ones count as zeros.

        Returns the gradients' norm before clipping; None without clip_norm.
        Raises TypeError for a dtype, ValueError for a name, shape or layout that does not fit, FloatingPointError if
        with clip_norm the norm is not finite; then nothing has been updated.
        """
        if clip_norm is not None:
            clip_norm = check_not_negative("clip_norm", clip_norm, finite=False)
        if clip_value is not None:
            clip_value = check_not_negative("clip_value", clip_value, finite=False)
        flat = self._flat or self._first(params)
        flat.check_names(params)
        l2_weight_decay = 0.0 if self._decoupled else self.weight_decay
        decoupled_weight_decay = self._lr * self.weight_decay if self._decoupled else 0.0
        norm: float | None = _native.optimizer_step(
            flat.shapes,
            flat.dtype,
            list(flat.slots.values()),
            params,
            grads,
            flat_state.BLOCK,
            self._rule,
            couple=l2_weight_decay,
            shrink=1.0 - decoupled_weight_decay,
            clip_norm=clip_norm,
            clip_value=clip_value,
            **self._numbers(self.steps + 1),
        )
        self._flat = flat
        self._loaded = {}
        self.steps += 1
        getattr(params, "changed", int)()  # a layer's parameters count changes, for its backward
        return norm

    def _slots(self) -> dict[str, float]:
        """The state's arrays, all of the parameters' shape, and the value each begins with."""
        return {}

    def _numbers(self, t: int) -> dict[str, float]:
        """What the compiled formula needs at step t: "rate", which is multiplied in last, and others by name."""
        raise NotImplementedError

    def _first(self, params: Mapping[str, Array]) -> FlatState:
        flat = FlatState(params, self._slots())
        if self._loaded:
            flat.restore(self._loaded)
        return flat

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state: "step" (int) and one array per slot and parameter, named "slot.parameter".

        Before the first step there are no arrays. The hyperparameters are in ``config()``.
        """
        arrays = self._flat.views() if self._flat is not None else self._loaded
        return {"step": self.steps, **{name: array.copy() for name, array in arrays.items()}}

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
        slots = self._slots()
        for name in arrays:
            if name.partition(".")[0] not in slots:
                raise ValueError(f"state: {self!r} keeps {', '.join(slots) or 'nothing'}, got {name!r}")
        if slots and steps and not arrays:
            raise ValueError(f"state: expected arrays of {', '.join(slots)} after {steps} steps, got none")
        if self._flat is not None and (arrays or not slots):
            self._flat.restore(arrays)
        else:  # no step yet here, or none there: the next one begins anew
            self._flat = None
            self._loaded = arrays
        self.steps = int(steps)

    def config(self) -> dict[str, Any]:
        """The name and the hyperparameters, JSON-able; ``from_config`` makes the optimiser from it again."""
        values = {key: getattr(self, key) for key in self.hyperparameters}
        return {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={getattr(self, key)!r}" for key in self.hyperparameters)
        return f"{type(self).__name__}({values})"
