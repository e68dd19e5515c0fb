"""Optimisers with PyTorch's names, defaults and formulas, and gradient clipping.

``optimizer.step(params, grads)`` updates the arrays of ``params`` in place. Both are dicts of arrays by
name, as every layer's ``params`` and ``grads`` are. In the formulas p is a parameter, g its gradient,
t the number of the step, from 1. The formulas are compiled: one pass over parameter, gradient and state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from . import _native
from ._validate import Array, check_boolean, check_not_negative

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm",
    "clip_grad_value",
    "from_config",
    "get",
]

Betas = tuple[float, float]
BLOCK = 8192  # elements that a thread takes at a time, and that one partial sum of a norm is made of


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
        self._flat: _FlatState | None = None  # from the first step on
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
        A `RowGradient` makes the step lazy: only its rows of parameter and state are updated, and decayed.

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
            BLOCK,
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

    def _first(self, params: Mapping[str, Array]) -> _FlatState:
        flat = _FlatState(params, self._slots())
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


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013).

    g += weight_decay p;  b = momentum b + g;  p -= lr b  (without momentum: p -= lr g)
    Nesterov, in PyTorch's form: p -= lr (g + momentum b).
    """

    name = "sgd"
    _rule = _native.RULES["sgd"]
    hyperparameters = ("lr", "momentum", "nesterov", "weight_decay")

    def __init__(
        self, lr: float = 1e-3, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = check_not_negative("momentum", momentum)
        self.nesterov = check_boolean("nesterov", nesterov)
        if nesterov and not momentum:
            raise ValueError("nesterov: expected a momentum > 0 with it, got momentum=0")

    def _slots(self) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if self.momentum else {}

    def _numbers(self, t: int) -> dict[str, float]:
        return {"rate": self._lr, "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5), PyTorch's form: eps is added to the root.

    g += weight_decay p;  v = alpha v + (1 - alpha) g^2;  u = g / (sqrt(v) + eps);  p -= lr u
    With momentum: b = momentum b + u;  p -= lr b.
    """

    name = "rmsprop"
    _rule = _native.RULES["rmsprop"]
    hyperparameters = ("lr", "alpha", "eps", "weight_decay", "momentum")

    def __init__(
        self,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.alpha = check_not_negative("alpha", alpha, below=1.0)
        self.eps = check_not_negative("eps", eps)
        self.momentum = check_not_negative("momentum", momentum)

    def _slots(self) -> dict[str, float]:
        return {"square_avg": 0.0} | ({"momentum_buffer": 0.0} if self.momentum else {})

    def _numbers(self, t: int) -> dict[str, float]:
        return {"rate": self._lr, "decay_squares": self.alpha, "eps": self.eps, "momentum": self.momentum}


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011).

    g += weight_decay p;  s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
    """

    name = "adagrad"
    _rule = _native.RULES["adagrad"]
    hyperparameters = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        lr: float = 1e-2,
        *,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.lr_decay = check_not_negative("lr_decay", lr_decay)
        self.initial_accumulator_value = check_not_negative("initial_accumulator_value", initial_accumulator_value)
        self.eps = check_not_negative("eps", eps)

    def _slots(self) -> dict[str, float]:
        return {"sum": self.initial_accumulator_value}

    def _numbers(self, t: int) -> dict[str, float]:
        return {"rate": self._lr / (1.0 + (t - 1) * self.lr_decay), "eps": self.eps}


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), weight decay through the gradient.

    g += weight_decay p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    p -= lr m' / (sqrt(v') + eps)  with  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t)
    """

    name = "adam"
    _rule = _native.RULES["adam"]
    hyperparameters = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self, lr: float = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {betas!r}")
        beta1, beta2 = (check_not_negative(f"betas[{k}]", beta, below=1.0) for k, beta in enumerate(betas))
        self.betas = (beta1, beta2)
        self.eps = check_not_negative("eps", eps)

    def _slots(self) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _numbers(self, t: int) -> dict[str, float]:
        # m' / (sqrt(v') + eps) with both corrections drawn into the numbers.
        (beta1, beta2), correction2 = self.betas, math.sqrt(1.0 - self.betas[1] ** t)
        return {
            "rate": self._lr * correction2 / (1.0 - beta1**t),
            "decay": beta1,
            "decay_squares": beta2,
            "eps": self.eps * correction2,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr weight_decay, then Adam's step."""

    name = "adamw"
    _decoupled = True

    def __init__(
        self, lr: float = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay)


def clip_grad_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale all gradients in place so that their common Euclidean norm is at most ``max_norm`` (Pascanu et al. 2013).

    Returns the norm before clipping. The factor is PyTorch's, min(1, max_norm / (norm + 1e-6)). So is what
    happens to a norm that is not finite: nan makes every gradient nan; infinity makes the infinite entries
    nan and all others 0. The norm returned tells.
    """
    norm: float = _native.clip_gradients(grads, BLOCK, check_not_negative("max_norm", max_norm, finite=False), None)
    return norm


def clip_grad_value(grads: Mapping[str, Array], value: float) -> None:
    """Limit every entry of every gradient to [-value, value], in place. A nan stays nan."""
    _native.clip_gradients(grads, BLOCK, None, check_not_negative("value", value, finite=False))


_OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (SGD, RMSprop, Adagrad, Adam, AdamW)}


def get(optimizer: str | Optimizer, **hyperparameters: Any) -> Optimizer:
    """The optimiser of that name with these hyperparameters; an Optimizer is returned as it is.

    Raises ValueError for an unknown name, TypeError for hyperparameters that the optimiser does not have.
    """
    if isinstance(optimizer, Optimizer):
        if hyperparameters:
            raise TypeError(f"{', '.join(hyperparameters)}: {optimizer!r} has its hyperparameters already")
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}")
    if optimizer not in _OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(_OPTIMIZERS)}, got {optimizer!r}")
    return _OPTIMIZERS[optimizer](**hyperparameters)


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimiser that ``Optimizer.config()`` describes."""
    hyperparameters = dict(config)
    return get(hyperparameters.pop("name"), **hyperparameters)


# --- The state of an optimiser ------------------------------------------------------------------------------------


class _FlatState:
    """The state's arrays for ``params``, one flat array per slot, in which the parameters follow each other.

    ``slots`` names them, each with the value it begins with. All of it is allocated once, by the first step.
    Raises TypeError for what is not an array of float32 or float64, ValueError for no parameters at all.
    """

    def __init__(self, params: Mapping[str, Array], slots: Mapping[str, float]) -> None:
        if not params:
            raise ValueError("params: expected at least one array, got none")
        for name, param in params.items():
            dtype = param.dtype if isinstance(param, np.ndarray) else type(param).__name__
            if dtype not in (np.float32, np.float64):
                raise TypeError(f"params[{name!r}]: expected an array of float32 or float64, got {dtype}")
        self.shapes = {name: param.shape for name, param in params.items()}
        self.dtype = next(iter(params.values())).dtype
        total = sum(param.size for param in params.values())
        self.slots = {s: np.full(total, v, self.dtype) if v else np.zeros(total, self.dtype) for s, v in slots.items()}

    def check_names(self, params: Mapping[str, Array]) -> None:
        if params.keys() != self.shapes.keys():
            raise ValueError(f"params: expected those of the first step, {_differ(params, self.shapes)}")

    def views(self) -> dict[str, Array]:
        """The state by "slot.parameter": views in the parameters' shapes."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])[:-1]
        return {
            f"{slot}.{name}": part.reshape(shape)
            for slot, flat in self.slots.items()
            for (name, shape), part in zip(self.shapes.items(), np.split(flat, ends))
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Copy a saved state into this one, once every entry has been found to fit."""
        views = self.views()
        if arrays.keys() != views.keys():
            raise ValueError(f"state: expected the state of these parameters, {_differ(arrays, views)}")
        for name, view in views.items():
            if arrays[name].dtype != self.dtype:
                raise TypeError(f"state[{name!r}]: expected {self.dtype}, got {arrays[name].dtype}")
            if arrays[name].shape != view.shape:
                raise ValueError(f"state[{name!r}]: expected shape {view.shape}, got {arrays[name].shape}")
        for name, view in views.items():
            view[...] = arrays[name]


def _differ(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    missing, unknown = (
        [name for name in one if name not in other] for one, other in ((wanted, given), (given, wanted))
    )
    return f"got without {missing} and with {unknown} besides"
