"""The compiled core. Arrays are float32 or float64; the functions of `fastrnn.functional` say what each call takes."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

CELLS: dict[str, int]
ACTIVATIONS: dict[str, int]
RULES: dict[str, int]

class Tape:
    """What a forward pass with training=True leaves for its backward pass; used once."""

class TreeTape:
    """The same, of a pass over trees."""

class Stack:
    """Layers and directions that run in one call without training, from weights that stay packed."""

    frozen: bool
    generation: int
    @property
    def trusts(self) -> bool: ...
    def __init__(self, params: Any, names: list[dict[str, str]], directions: int, kernel: tuple[Any, ...]) -> None: ...
    def run(self, x: Any, state: Any, lengths: Any, reset_mask: Any, batch_first: bool) -> tuple[Array, Any] | None: ...
    def map(self, x: Any) -> Array | None: ...
    def freeze(self, frozen: bool) -> None: ...
    def forget(self) -> None: ...
    def kept_bytes(self) -> int: ...

class Chain:
    """Layers with their weights packed once, which take a step of all of them in one call."""

    def __init__(self, N: int, layers: list[dict[str, Any]], embedding: Array | None = None) -> None: ...
    def step(self, x: Any, out: Array | None = None, rows: Any = None) -> Array: ...
    def step_frames(self, rows: dict[Any, int], frames: Mapping[Any, Any]) -> dict[Any, Array]: ...
    def run(self, x: Any) -> Array: ...
    def states(self, rows: Any = None) -> list[Any]: ...
    def set_states(self, states: list[Any], rows: Any = None) -> None: ...
    def generate(
        self, y: Array, steps: int, uniform: Array | None, temperature: float, top_k: int, end: int
    ) -> Array: ...
    def feed_back(self, y: Array, steps: int) -> Array: ...

def row_indices(rows: Any, N: int) -> Array: ...
def forward(
    cell: int,
    activation: int,
    x: Any,
    h0: Any,
    c0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any,
    bias_hh: Any,
    out: Any,
    training: bool,
    *,
    gate_activation: int = ...,
    clip: float | None = None,
    weight_peephole: Any = None,
    weight_hr: Any = None,
    bias_hr: Any = None,
    output_activation: int = ...,
    lengths: Any = None,
    reset_mask: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any, Any, Tape | None]: ...
def backward(
    owner: str, cells: tuple[int, ...], cache: Any, doutput: Any, dh_n: Any, dc_n: Any, into: Any
) -> dict[str, Any]: ...
def tree_forward(
    lstm: bool,
    activation: int,
    children: int,
    x: Any,
    levels: Any,
    num_trees: int,
    weight_ih: Any,
    weight_hh: Any,
    bias: Any,
    training: bool,
) -> tuple[Any, ...]: ...
def tree_backward(
    owner: str, lstm: bool, cache: Any, dh: Any, dh_root: Any, dc_root: Any, into: Any
) -> dict[str, Any]: ...
def count_classes(classes: Array, M: int, ignored: int) -> int: ...
def cross_entropy(logits: Array, classes: Array, ignored: int, share: float) -> tuple[Array, Array]: ...
def optimizer_step(
    shapes: dict[str, tuple[int, ...]],
    dtype: Any,
    slots: list[Array],
    params: Mapping[str, Any],
    grads: Mapping[str, Any],
    block: int,
    rule: int,
    *,
    rate: float,
    couple: float = 0,
    shrink: float = 1,
    momentum: float = 0,
    nesterov: Any = False,
    decay: float = 0,
    decay_squares: float = 0,
    eps: float = 0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
) -> float | None: ...
def clip_gradients(grads: Mapping[str, Any], block: int, max_norm: float | None, value: float | None) -> Any: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...
def set_matmul_precision(precision: str) -> None: ...
def get_matmul_precision() -> str: ...
def why_no_amx() -> str | None: ...
def emulate_amx(emulate: bool, at_any_size: bool = True) -> None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def kept_bytes() -> int: ...
def force_plan(
    threads: int | None = None,
    by_units: bool | None = None,
    fused: bool | None = None,
    shares: int | None = None,
    chunk: int | None = None,
) -> None: ...
