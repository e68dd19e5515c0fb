"""An optimiser's step and gradient clipping."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]

def optimizer_step(
    shapes: dict[str, tuple[int, ...]],
    dtype: Any,
    slots: list[Array],
    params: Mapping[str, Any],
    grads: Mapping[str, Any],
    block: int,
    rule: Literal["sgd", "rmsprop", "adagrad", "adam"],
    *,
    rate: float,
    l2_weight_decay: float = 0,
    decoupled_weight_decay: float = 0,
    momentum: float = 0,
    nesterov: Any = False,
    decay: float = 0,
    decay_squares: float = 0,
    eps: float = 0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    own: Mapping[str, tuple[float, float, float, float]] = ...,
    idle: Collection[str] = ...,
) -> float | None: ...
def zero_gradients(gradients: Mapping[str, Any]) -> None: ...
def clip_gradients(grads: Mapping[str, Any], block: int, max_norm: float | None, value: float | None) -> Any: ...
