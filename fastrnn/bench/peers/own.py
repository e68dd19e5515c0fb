"""fastrnn itself, and its NumPy reference as a contender.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

import fastrnn
from fastrnn.bench.peers.base import WEIGHTS, Arrays, Peer, Problem


class FastRNN(Peer):
    """The layer classes, as users call them; step by step through the layer's stream."""

    name = "fastrnn"
    takes_lengths = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        shape = problem.shape
        layer_class = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[problem.cell]
        self.layer = layer_class(
            shape.D, shape.H, shape.num_layers, bidirectional=shape.bidirectional, dtype=shape.dtype
        )
        self.layer.load_state_dict(problem.weights)
        self._stream: Any = None

    def forward(self) -> Any:
        return self.layer(self.problem.x, lengths=self.problem.lengths)

    def output(self) -> np.ndarray:
        return self.forward()[0]

    def forward_backward(self) -> np.ndarray:
        self.layer.zero_grad()
        self.layer(self.problem.x, training=True)
        dx, _ = self.layer.backward(self.problem.doutput)
        return dx

    def gradients(self) -> Arrays:
        dx = self.forward_backward()
        return {"x": dx, **{name: self.layer.grads[name].copy() for name in self.problem.weights}}

    def steps(self) -> list[np.ndarray]:
        if self._stream is None:
            self._stream, self._x_t = self.layer.stream(batch_size=self.problem.shape.N), self.problem.steps()
        self._stream.reset()
        step = self._stream.step
        return [step(x_t) for x_t in self._x_t]


class NumPyReference(Peer):
    """fastrnn.reference: plain NumPy, a Python loop over time; stacked and turned round here, as it is one layer."""

    name = "numpy"
    counts_threads = True
    settling = 0.12  # OpenBLAS's threads spin for about 0.1 s; 50 ms after a product others still ran at half speed
    most_flops = 3e10

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        from fastrnn import reference

        self._forward = getattr(reference, f"{problem.cell}_forward")
        self._backward = getattr(reference, f"{problem.cell}_backward")
        self._cell_forward = getattr(reference, f"{problem.cell}_cell_forward")
        self._states = (None, None) if problem.cell == "lstm" else (None,)
        self._x_t = problem.steps()

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        """Through threadpoolctl, as NumPy has no function for it; if that is missing its BLAS takes every CPU."""
        if importlib.util.find_spec("threadpoolctl") is None:
            return "its BLAS uses all CPUs: threadpoolctl, which could limit it, is not installed"
        import threadpoolctl

        threadpoolctl.threadpool_limits(num_threads, user_api="blas")
        return None

    def forward(self, training: bool = False) -> Any:
        y, caches = self.problem.x, []
        for suffixes in self.problem.shape.suffixes:
            outputs = []
            for s, suffix in enumerate(suffixes):
                weights = self.problem.weights_of(suffix)
                output, *_, cache = self._forward(y[::-1] if s else y, *self._states, *weights, training=training)
                outputs.append(output[::-1] if s else output)
                caches.append(cache)
            y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
        return y, caches

    def output(self) -> np.ndarray:
        return self.forward()[0]

    def forward_backward(self) -> Arrays:
        _, caches = self.forward(training=True)
        dy, gradients = self.problem.doutput, {}
        for suffixes in reversed(self.problem.shape.suffixes):
            dx = []
            halves = np.split(dy, len(suffixes), axis=-1)
            for s in reversed(range(len(suffixes))):
                grads = self._backward(halves[s][::-1] if s else halves[s], *self._states, caches.pop())
                dx.append(grads["x"][::-1] if s else grads["x"])
                gradients.update({name + suffixes[s]: grads[name] for name in WEIGHTS})
            dy = dx[0] if len(dx) == 1 else dx[0] + dx[1]
        return {"x": dy, **gradients}

    def gradients(self) -> Arrays:
        return self.forward_backward()

    def steps(self) -> list[np.ndarray]:
        shape = self.problem.shape
        zeros = np.zeros((shape.N, shape.H), shape.dtype)
        layers = [(self.problem.weights_of(suffix), [zeros] * len(self._states)) for [suffix] in shape.suffixes]
        outputs = []
        for y in self._x_t:
            for weights, state in layers:
                *state_n, _ = self._cell_forward(y, *state, *weights)
                state[:], y = state_n, state_n[0]
            outputs.append(y)
        return outputs
