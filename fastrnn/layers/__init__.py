"""Layers: recurrent networks and what stands around them. `Module` says how each is called."""

from __future__ import annotations

from .basic import Activation, Embedding, Linear
from .cells import GRU, LSTM, RNN
from .container import Sequential
from .custom import Cell, Recurrent
from .dropout import Dropout
from .encoder_decoder import EncoderDecoder
from .jordan import Jordan
from .module import Module, build
from .pooling import LastStep, MaxPool, MeanPool
from .repeat import Repeat
from .trees import TreeLSTM, TreeRNN

__all__ = [
    "Activation", "Cell", "Dropout", "Embedding", "EncoderDecoder", "GRU", "Jordan", "LSTM", "LastStep", "Linear",
    "MaxPool", "MeanPool", "Module", "RNN", "Recurrent", "Repeat", "Sequential", "TreeLSTM", "TreeRNN", "build",
]  # fmt: skip
