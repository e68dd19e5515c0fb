"""Data to train on: handwritten digits and the IDX format they come in; spoken vowels; sequence tasks that are made."""

from .idx import read_idx
from .japanese_vowels import japanese_vowels
from .mnist import mnist
from .sequence_tasks import adding_problem, copy_task, dates, reverse_task

__all__ = ["adding_problem", "copy_task", "dates", "japanese_vowels", "mnist", "read_idx", "reverse_task"]
