"""Recurrent nodes of ONNX Runtime that Python computes."""

from collections.abc import Callable
from typing import Any

nodes: dict[int, Callable[..., tuple[Any, ...]]]
