"""Data to train on: handwritten digits and the IDX format they come in; spoken vowels."""

from .idx import read_idx
from .japanese_vowels import japanese_vowels
from .mnist import mnist

__all__ = ["japanese_vowels", "mnist", "read_idx"]
