"""All layers and directions of a stack in training."""

from typing import Any

from ._rnn import SequenceCache
from ._stack import Stack

def map_forward(stack: Stack, x: Any) -> tuple[Any, SequenceCache] | None: ...
def map_backward(
    stack: Stack, cache: SequenceCache, shape: tuple[int, ...], dy: Any, gradients: dict[str, Any], need_dx: bool
) -> tuple[Any, None] | None: ...
def train_forward(
    stack: Stack, x: Any, state: Any, lengths: Any, reset_mask: Any, batch_first: bool, draw: Any
) -> tuple[Any, Any, tuple[int, int, int], list[SequenceCache], dict[int, Any]] | None: ...
def train_backward(
    stack: Stack,
    caches: list[SequenceCache],
    masks: dict[int, Any],
    dy: Any,
    dstate_n: Any,
    gradients: dict[str, Any],
    batched: bool,
    batch_first: bool,
    need_dx: bool,
) -> tuple[Any, Any] | None: ...
