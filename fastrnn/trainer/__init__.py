"""Training: `Trainer` with what it consists of."""

from .history import History
from .trainer import Trainer

__all__ = ["History", "Trainer"]
