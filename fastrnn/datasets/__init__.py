"""Data to train on: handwritten digits and the IDX format they come in; tasks on sequences that are made."""

from .idx import read_idx
from .mnist import mnist
from .sequence_tasks import adding_problem, copy_task, dates, reverse_task

__all__ = ["adding_problem", "copy_task", "dates", "mnist", "read_idx", "reverse_task"]
