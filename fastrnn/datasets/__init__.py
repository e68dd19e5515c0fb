"""Data to train on: handwritten digits, and the IDX format they come in."""

from .idx import read_idx
from .mnist import mnist

__all__ = ["mnist", "read_idx"]
