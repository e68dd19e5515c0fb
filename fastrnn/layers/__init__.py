"""Layers: recurrent networks and what stands around them. `Module` says how each is called."""

from __future__ import annotations

from .basic import Activation, Embedding, Linear
from .cells import GRU, LSTM, RNN
from .container import Sequential
from .dropout import Dropout
from .module import Module, build
from .pooling import LastStep, MaxPool, MeanPool
from .trees import TreeLSTM, TreeRNN

__all__ = [
    "Activation", "Dropout", "Embedding", "GRU", "LSTM", "LastStep", "Linear", "MaxPool", "MeanPool", "Module",
    "RNN", "Sequential", "TreeLSTM", "TreeRNN", "build",
]  # fmt: skip
