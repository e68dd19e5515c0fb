"""fastrnn: the fastest way to train and run recurrent networks on a CPU.

    import fastrnn
    model = fastrnn.Sequential(fastrnn.LSTM(28, 128, batch_first=True), fastrnn.LastStep(batch_first=True),
                               fastrnn.Linear(128, 10))
    trainer = fastrnn.Trainer(model, loss="cross_entropy", optimizer=fastrnn.Adam(lr=2e-3))
    trainer.fit(x, y, epochs=20, batch_size=32)

Layers and the trainer stand here; `fastrnn.functional` is the stateless compiled core, `fastrnn.reference` its twin in
plain NumPy, `fastrnn.datasets` real data to start with.
"""

import importlib
from typing import TYPE_CHECKING, Any

try:
    from . import _native  # noqa: F401
except ImportError as error:  # never fall back to the reference in silence
    if any(words in str(error) for words in ("one interpreter per process", "subinterpreter", "more than once per")):
        raise ImportError(
            "fastrnn: expected the process' first interpreter that imports it, got another one; sub-interpreters are "
            "not supported, use processes or threads"
        ) from error
    raise ImportError(
        "fastrnn's compiled kernels could not be imported, so it cannot compute anything. Install the package with "
        "`pip install .` (or, to work inside its folder, `python setup.py build_ext --inplace`). The import said: "
        f"{error}"
    ) from error
except RuntimeError as error:  # a wrong FASTRNN_ISA or FASTRNN_NUM_THREADS
    import sys

    from . import _command

    if _command.runs():  # the command says what is wrong in one line
        sys.stderr.write(f"fastrnn: error: {error}\n")
        sys.exit(2)
    raise

from . import datasets, diagnose, functional, losses, runtime
from ._native import get_matmul_precision, get_num_threads, set_matmul_precision, set_num_threads
from .functional.tree_batch import Trees
from .gradcheck import GradientError, check_gradients
from .layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    AdaptiveSoftmax,
    Cell,
    Dropout,
    Embedding,
    EncoderDecoder,
    Jordan,
    LastStep,
    Linear,
    MaxPool,
    MeanPool,
    Module,
    Recurrent,
    Repeat,
    Sequential,
    TreeLSTM,
    TreeRNN,
    quantize,
)
from .optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm, clip_grad_value
from .row_gradient import RowGradient
from .runtime import __version__, free_workspace, show_config
from .streaming import StreamPool
from .trainer import History, Trainer, metrics, schedules
from .trainer.averaging import EMA, SWA
from .trainer.callbacks import Callback, EarlyStopping, LearningRateSchedule, ModelCheckpoint, ReduceLROnPlateau
from .trainer.checkpoints import Checkpoints
from .trainer.tensorboard import TensorBoard

if TYPE_CHECKING:
    from . import models
    from .models import LanguageModel


def __getattr__(name: str) -> Any:
    """What not everybody needs is imported when it is asked for."""
    if name not in ("models", "LanguageModel"):
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    found = importlib.import_module("fastrnn.models")
    return found if name == "models" else found.LanguageModel


runtime.bound_threads()
runtime.register_threadpoolctl()

__all__ = [
    "Activation",
    "Adagrad",
    "Adam",
    "AdaptiveSoftmax",
    "AdamW",
    "Callback",
    "Cell",
    "Checkpoints",
    "Dropout",
    "EMA",
    "EarlyStopping",
    "Embedding",
    "EncoderDecoder",
    "GRU",
    "GradientError",
    "History",
    "Jordan",
    "LSTM",
    "LanguageModel",
    "LastStep",
    "LearningRateSchedule",
    "Linear",
    "MaxPool",
    "MeanPool",
    "ModelCheckpoint",
    "Module",
    "Optimizer",
    "RMSprop",
    "RNN",
    "ReduceLROnPlateau",
    "Recurrent",
    "Repeat",
    "RowGradient",
    "SGD",
    "SWA",
    "Sequential",
    "StreamPool",
    "TensorBoard",
    "Trainer",
    "TreeLSTM",
    "TreeRNN",
    "Trees",
    "__version__",
    "check_gradients",
    "clip_grad_norm",
    "clip_grad_value",
    "datasets",
    "diagnose",
    "free_workspace",
    "functional",
    "get_matmul_precision",
    "get_num_threads",
    "losses",
    "metrics",
    "models",
    "quantize",
    "schedules",
    "set_matmul_precision",
    "set_num_threads",
    "show_config",
]
