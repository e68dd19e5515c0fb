"""Layers: recurrent networks and what stands around them. `Module` says how each is called."""

from __future__ import annotations

from .activation import Activation
from .adaptive import AdaptiveSoftmax
from .custom_cell import Cell, Recurrent
from .dropout import Dropout
from .embedding import Embedding
from .jordan import Jordan
from .linear import Linear
from .module import Module, build
from .pooling import LastStep, MaxPool, MeanPool
from .quantized import QuantizedLinear, QuantizedRecurrent, quantize
from .repeat import Repeat
from .rnn import GRU, LSTM, RNN
from .seq2seq import EncoderDecoder
from .sequential import Sequential
from .tree import TreeLSTM, TreeRNN

__all__ = [
    "AdaptiveSoftmax",
    "GRU",
    "LSTM",
    "QuantizedLinear",
    "QuantizedRecurrent",
    "RNN",
    "Activation",
    "Cell",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "Jordan",
    "LastStep",
    "Linear",
    "MaxPool",
    "MeanPool",
    "Module",
    "Recurrent",
    "Repeat",
    "Sequential",
    "TreeLSTM",
    "TreeRNN",
    "build",
    "quantize",
]
