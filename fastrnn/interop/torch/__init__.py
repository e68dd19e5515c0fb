"""PyTorch's recurrent modules on fastrnn's kernels: change one line of a program, or none.

    from fastrnn.interop.torch import LSTM          # in place of torch.nn.LSTM
    fastrnn.interop.torch.accelerate(model)         # or: every recurrent module of a model, in place
    fastrnn.interop.torch.patch()                   # or: torch.nn's own classes, for the whole program
    python -m fastrnn.interop.torch script.py       # or: an unchanged script

A call that the kernels cannot take (a GPU tensor, another dtype, torch.compile, autocast, ...) runs in torch's own code
and gives torch's own result or error; `report()` counts both kinds and says why.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError('fastrnn.interop.torch: expected PyTorch, got none; pip install "fastrnn[torch]"') from None

from . import _threads
from ._masked import masked
from ._modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from ._report import Report, report
from ._swap import Swapped, accelerate, patch, restore, unpatch

_threads.borrow()

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "Swapped",
    "accelerate",
    "masked",
    "patch",
    "report",
    "restore",
    "unpatch",
]
