"""The optimisers, with PyTorch's names, defaults and formulas, and how they are made from names and configurations.

In the formulas p is a parameter, g its gradient, t the number of the step, from 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._validate import check_boolean, check_not_negative
from .base import Optimizer
from .groups import GroupSpecs

Betas = tuple[float, float]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013).

    g += weight_decay p;  b = momentum b + g;  p -= lr b  (without momentum: p -= lr g)
    Nesterov, in PyTorch's form: p -= lr (g + momentum b).
    """

    name = "sgd"
    _rule = "sgd"
    hyperparameters = ("lr", "momentum", "nesterov", "weight_decay")

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        groups: GroupSpecs = (),
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases=decay_biases, groups=groups)
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
    _rule = "rmsprop"
    hyperparameters = ("lr", "alpha", "eps", "weight_decay", "momentum")

    def __init__(
        self,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        decay_biases: bool = True,
        groups: GroupSpecs = (),
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases=decay_biases, groups=groups)
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
    _rule = "adagrad"
    hyperparameters = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        lr: float = 1e-2,
        *,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        decay_biases: bool = True,
        groups: GroupSpecs = (),
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases=decay_biases, groups=groups)
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
    _rule = "adam"
    hyperparameters = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        groups: GroupSpecs = (),
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases=decay_biases, groups=groups)
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
        self,
        lr: float = 1e-3,
        *,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        decay_biases: bool = True,
        groups: GroupSpecs = (),
    ) -> None:
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay, decay_biases=decay_biases, groups=groups)


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
