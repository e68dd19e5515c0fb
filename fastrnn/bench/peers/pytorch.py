"""PyTorch, eager: its modules, and its cells for streaming.

Letters: T time steps, N batch, D input_size, H hidden_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.bench.peers.base import WEIGHTS, Arrays, Peer, Problem
from fastrnn.bench.shapes import STEP, Shape


class Torch(Peer):
    """torch.nn.RNN, GRU and LSTM; forward and steps under no_grad. A step is a call with T = 1 and the state given."""

    name = "torch"
    requires = ("torch",)
    counts_threads = takes_lengths = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import torch

        shape = problem.shape
        self._no_grad = torch.no_grad
        self.module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[problem.cell](
            shape.D, shape.H, shape.num_layers, bidirectional=shape.bidirectional, dtype=getattr(torch, shape.dtype)
        )
        self.module.load_state_dict({name: torch.tensor(array) for name, array in problem.weights.items()})
        self.x = torch.tensor(problem.x)
        self.x_with_grad = torch.tensor(problem.x, requires_grad=True)
        self.doutput = torch.tensor(problem.doutput)
        self._x_t = list(self.x.split(1))
        self._lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        import torch

        torch.set_num_threads(num_threads)
        return None

    def forward(self) -> Any:
        with self._no_grad():
            return self.module(self.x) if self._lengths is None else self._packed()

    def _packed(self) -> Any:
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        output, state = self.module(pack_padded_sequence(self.x, self._lengths, enforce_sorted=False))
        return pad_packed_sequence(output, total_length=len(self.x))[0], state

    def output(self) -> np.ndarray:
        return self.forward()[0].numpy()

    def forward_backward(self) -> None:
        self.x_with_grad.grad = None
        self.module.zero_grad(set_to_none=True)
        output, _ = self.module(self.x_with_grad)
        output.backward(self.doutput)

    def gradients(self) -> Arrays:
        self.forward_backward()
        by_weight = {name: getattr(self.module, name).grad.numpy() for name in self.problem.weights}
        return {"x": self.x_with_grad.grad.numpy(), **by_weight}

    def steps(self) -> list[Any]:
        module, state, outputs = self.module, None, []
        with self._no_grad():
            for x_t in self._x_t:
                y, state = module(x_t, state)
                outputs.append(y)
        return outputs


class TorchCell(Peer):
    """torch.nn.RNNCell, GRUCell and LSTMCell: one layer, one time step."""

    name = "torch-cell"
    requires = ("torch",)
    counts_threads = True
    modes = (STEP,)

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import torch

        shape = problem.shape
        self._no_grad = torch.no_grad
        self.cell = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[problem.cell](
            shape.D, shape.H, dtype=getattr(torch, shape.dtype)
        )
        self.cell.load_state_dict({name: torch.tensor(problem.weights[f"{name}_l0"]) for name in WEIGHTS})
        self._x_t = [torch.tensor(x_t) for x_t in problem.steps()]
        self._is_lstm = problem.cell == "lstm"

    set_num_threads = Torch.set_num_threads

    @classmethod
    def suits(cls, shape: Shape, mode: str) -> bool:
        return super().suits(shape, mode) and shape.num_layers == 1

    def steps(self) -> list[Any]:
        cell, state, outputs, is_lstm = self.cell, None, [], self._is_lstm
        with self._no_grad():
            for x_t in self._x_t:
                state = cell(x_t, state)
                outputs.append(state[0] if is_lstm else state)
        return outputs
