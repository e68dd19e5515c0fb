"""Layers: recurrent networks and what stands around them. `Module` says how each is called."""

from __future__ import annotations

from .basic import Activation, Embedding, Linear
from .container import Sequential
from .dropout import Dropout
from .module import Module, build
from .pooling import LastStep, MaxPool, MeanPool
from .recurrent import GRU, LSTM, RNN

__all__ = [
    "Activation", "Dropout", "Embedding", "GRU", "LSTM", "LastStep", "Linear", "MaxPool", "MeanPool", "Module",
    "RNN", "Sequential", "build",
]  # fmt: skip
