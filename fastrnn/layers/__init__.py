"""Layers: recurrent networks and what stands around them. `Module` says how each is called."""

from __future__ import annotations

from .basic import Activation, Embedding, LastStep, Linear
from .container import Sequential
from .dropout import Dropout
from .module import Module, build
from .recurrent import GRU, LSTM, RNN
from .trees import TreeLSTM, TreeRNN

__all__ = [
    "Activation", "Dropout", "Embedding", "GRU", "LSTM", "LastStep", "Linear", "Module", "RNN", "Sequential", "TreeLSTM",
    "TreeRNN", "build",
]  # fmt: skip
