"""JAX: the textbook equations under jit and lax.scan, the input projection as one product ahead of the scan.

Letters: T time steps, N batch, D input_size, H hidden_size, S directions.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from fastrnn.bench.peers.base import Arrays, Peer, Problem


class Jax(Peer):
    """forward: jit of the scan; forward+backward: jit of value and vjp; a step: jit of one cell, states kept by JAX.

    Every call waits for its result (block_until_ready).
    """

    name = "jax"
    requires = ("jax",)
    _client_threads: ClassVar[int | None] = None

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import jax

        jax.config.update("jax_enable_x64", True)  # float32 arrays stay float32; without it float64 ones would not
        shape, cell = problem.shape, problem.cell
        self._weights = [
            [tuple(map(jax.numpy.asarray, problem.weights_of(suffix))) for suffix in suffixes]
            for suffixes in shape.suffixes
        ]
        self._x, self._doutput = jax.numpy.asarray(problem.x), jax.numpy.asarray(problem.doutput)
        self._x_t: list[Any] = []
        self._wait = jax.block_until_ready

        def forward(weights: Any, x: Any) -> Any:
            return _stack(cell, weights, x)

        def forward_backward(weights: Any, x: Any, doutput: Any) -> Any:
            output, pull_back = jax.vjp(forward, weights, x)
            return output, pull_back(doutput)

        self._forward = jax.jit(forward)
        self._forward_backward = jax.jit(forward_backward)
        self._step = jax.jit(lambda weights, x_t, states: _step(cell, weights, x_t, states))

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        """XLA sizes its thread pool once, when its CPU client starts: from the variable NPROC, otherwise from the CPUs
        that the process may run on. There is no call to change it, so a client that runs with another number (or
        that somebody else started) is dropped, and arrays made on it with it. The thread of the caller computes too."""
        if Jax._client_threads == num_threads:
            return None
        import jax
        from jax.extend.backend import clear_backends

        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(num_threads)
        try:
            jax.config.update("jax_platforms", "cpu")
            clear_backends()
            jax.devices()  # starts the client
        finally:
            del os.environ["NPROC"]
            if before is not None:
                os.environ["NPROC"] = before
        Jax._client_threads = num_threads
        return None

    def forward(self) -> Any:
        return self._forward(self._weights, self._x).block_until_ready()

    def output(self) -> np.ndarray:
        return np.asarray(self.forward())

    def forward_backward(self) -> Any:
        return self._wait(self._forward_backward(self._weights, self._x, self._doutput))

    def gradients(self) -> Arrays:
        _, (dweights, dx) = self.forward_backward()
        flat = [array for layer in dweights for direction in layer for array in direction]
        return {"x": np.asarray(dx), **dict(zip(self.problem.weights, map(np.asarray, flat)))}

    def steps(self) -> list[Any]:
        import jax.numpy as jnp

        if not self._x_t:
            shape = self.problem.shape
            self._x_t = [jnp.asarray(x_t) for x_t in self.problem.steps()]
            zeros = jnp.zeros((shape.N, shape.H), shape.dtype)
            self._zeros = [(zeros, zeros) if self.problem.cell == "lstm" else (zeros,)] * shape.num_layers
        step, weights, states, outputs = self._step, self._weights, self._zeros, []
        for x_t in self._x_t:
            states = step(weights, x_t, states)
            outputs.append(states[-1][0].block_until_ready())
        return outputs

    def prepare_memory(self) -> None:
        self._forward_backward = self._forward_backward.lower(self._weights, self._x, self._doutput).compile()


def _stack(cell: str, weights: Any, x: Any) -> Any:
    """(T, N, D) -> (T, N, S*H), from the zero state."""
    import jax
    import jax.numpy as jnp

    for layer in weights:
        outputs = []
        for s, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(layer):
            zeros = jnp.zeros((x.shape[1], weight_hh.shape[1]), x.dtype)

            def body(state: Any, a_t: Any, recurrent: Any = (weight_hh, bias_hh)) -> Any:
                state = _cell(cell, a_t, state, *recurrent)
                return state, state[0]

            _, output = jax.lax.scan(
                body, (zeros, zeros) if cell == "lstm" else (zeros,), x @ weight_ih.T + bias_ih, reverse=bool(s)
            )
            outputs.append(output)
        x = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
    return x


def _step(cell: str, weights: Any, x_t: Any, states: Any) -> list[Any]:
    """One time step of all layers: x_t (N, D) and the states to the next states; the output is the last one's h."""
    states_n = []
    for [(weight_ih, weight_hh, bias_ih, bias_hh)], state in zip(weights, states):
        states_n.append(_cell(cell, x_t @ weight_ih.T + bias_ih, state, weight_hh, bias_hh))
        x_t = states_n[-1][0]
    return states_n


def _cell(cell: str, a: Any, state: Any, weight_hh: Any, bias_hh: Any) -> tuple[Any, ...]:
    """(h,) or (h, c) after the step whose input projection is a (N, G*H)."""
    import jax
    import jax.numpy as jnp

    h = state[0]
    b = h @ weight_hh.T + bias_hh
    if cell == "rnn":
        return (jnp.tanh(a + b),)
    if cell == "gru":
        (a_r, a_z, a_n), (b_r, b_z, b_n) = jnp.split(a, 3, axis=-1), jnp.split(b, 3, axis=-1)
        r, z = jax.nn.sigmoid(a_r + b_r), jax.nn.sigmoid(a_z + b_z)
        n = jnp.tanh(a_n + r * b_n)
        return ((1 - z) * n + z * h,)
    i, f, g, o = jnp.split(a + b, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
