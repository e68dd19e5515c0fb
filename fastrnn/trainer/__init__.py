"""Training: `Trainer` with what it consists of."""

from . import metrics, schedules
from .history import History
from .trainer import Trainer

__all__ = ["History", "Trainer", "metrics", "schedules"]
