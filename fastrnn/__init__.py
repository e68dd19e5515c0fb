"""fastrnn: the fastest way to train and run recurrent networks on a CPU.

    import fastrnn
    model = fastrnn.Sequential(fastrnn.LSTM(28, 128, batch_first=True), fastrnn.LastStep(batch_first=True),
                               fastrnn.Linear(128, 10))
    trainer = fastrnn.Trainer(model, loss="cross_entropy", optimizer=fastrnn.Adam(lr=2e-3))
    trainer.fit(x, y, epochs=20, batch_size=32)

Layers and the trainer stand here; `fastrnn.functional` is the stateless compiled core, `fastrnn.reference` its twin in
plain NumPy, `fastrnn.datasets` real data to start with.
"""

try:
    from . import _native
except ImportError as error:  # never fall back to the reference in silence
    raise ImportError(
        "fastrnn's compiled kernels could not be imported, so it cannot compute anything. Install the package with "
        "`pip install .` (or, to work inside its folder, `python setup.py build_ext --inplace`). The import said: "
        f"{error}"
    ) from error

from . import datasets, functional, losses
from ._native import get_num_threads, set_num_threads
from .callbacks import Callback, EarlyStopping, LearningRateSchedule, ModelCheckpoint
from .config import __version__, show_config
from .history import History
from .layers import (
    GRU, LSTM, RNN, Activation, Dropout, Embedding, LastStep, Linear, MaxPool, MeanPool, Module, Sequential,
    TreeLSTM, TreeRNN,
)  # fmt: skip
from .optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm, clip_grad_value
from .trainer import Trainer
from .trees import Trees

__all__ = [
    "Activation", "Adagrad", "Adam", "AdamW", "Callback", "Dropout", "EarlyStopping", "Embedding", "GRU", "History", "LSTM",
    "LastStep", "LearningRateSchedule", "Linear", "MaxPool", "MeanPool", "ModelCheckpoint", "Module", "Optimizer",
    "RMSprop", "RNN", "SGD", "Sequential", "Trainer", "TreeLSTM", "TreeRNN", "Trees", "__version__", "clip_grad_norm",
    "clip_grad_value", "datasets", "functional", "get_num_threads", "losses", "set_num_threads", "show_config",
]  # fmt: skip
