"""TensorBoard, by tensorboardX, which is imported when the callback is made: pip install tensorboardX."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .._validate import check_size
from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer


class TensorBoard(Callback):
    """Write the numbers of each epoch to `folder`, under the number of the epoch from 1, and the loss and the learning
    rate of every `every`-th batch, under the number of updates. Raises ImportError without tensorboardX."""

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 50) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard needs tensorboardX: pip install tensorboardX") from None
        self.folder = os.fspath(folder)
        self.every = check_size("every", every)
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        if self._writer is None:
            self._writer = self._make(self.folder)

    def on_batch_end(self, trainer: Trainer, batch: int, logs: dict[str, float]) -> None:
        if batch % self.every == 0:
            self._writer.add_scalar("batch/loss", logs["loss"], trainer.optimizer.steps)
            self._writer.add_scalar("learning_rate", trainer.optimizer.lr, trainer.optimizer.steps)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            self._writer.add_scalar(f"epoch/{name}", value, epoch + 1)
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
