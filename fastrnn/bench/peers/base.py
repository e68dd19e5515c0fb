"""What a contender is, and the problem that all contenders get.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates, L num_layers, S directions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastrnn.bench.shapes import FORWARD, FORWARD_BACKWARD, GATES, MODES, STEP, Shape

Arrays = dict[str, np.ndarray]

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Problem:
    """One layer (or stack of them) with its input; the initial state is zero.

    weights: PyTorch's names and layouts, weight_ih_l0 (G*H, D), weight_hh_l0 (G*H, H), bias_ih_l0 and bias_hh_l0
    (G*H,), then those of the reverse direction and of the further layers.
    x: (T, N, D). doutput: (T, N, S*H), the gradient of some loss by the output. lengths: (N,) or None.
    """

    cell: str
    shape: Shape
    weights: Arrays
    x: np.ndarray
    doutput: np.ndarray
    lengths: np.ndarray | None = None

    def weights_of(self, suffix: str) -> list[np.ndarray]:
        """weight_ih, weight_hh, bias_ih and bias_hh of one layer and direction, say "_l0_reverse"."""
        return [self.weights[name + suffix] for name in WEIGHTS]

    def steps(self) -> list[np.ndarray]:
        """x cut into its T time steps, each (N, D)."""
        return list(self.x)


def make_problem(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Weights from PyTorch's U(-1/sqrt(H), 1/sqrt(H)), input and output gradient from the normal distribution."""
    T, N, D, H = shape[:4]
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(H)
    rows = GATES[cell] * H
    weights = {}
    for layer, suffixes in enumerate(shape.suffixes):
        for suffix in suffixes:
            for name, size in zip(WEIGHTS, ((rows, shape.inputs(layer)), (rows, H), (rows,), (rows,))):
                weights[name + suffix] = rng.uniform(-bound, bound, size).astype(shape.dtype)
    lengths = np.concatenate([[T], rng.integers(1, T + 1, N - 1)]) if shape.lengths else None
    return Problem(
        cell=cell,
        lengths=lengths,
        shape=shape,
        weights=weights,
        x=rng.standard_normal((T, N, D), dtype=np.dtype(shape.dtype)),
        doutput=rng.standard_normal((T, N, shape.directions * H), dtype=np.dtype(shape.dtype)),
    )


class Peer:
    """A contender. It runs in up to three modes: each has a method that is timed and one whose results are compared.

    forward             `forward`, `output` (T, N, S*H)
    forward+backward    `forward_backward`, `gradients` by x and by every weight
    step                `steps`, `step_outputs` (T, N, H): T calls of one time step each, from the zero state
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    modes: ClassVar[tuple[str, ...]] = MODES
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    most_flops: ClassVar[float] = np.inf
    """Beyond so many operations in a call the bench leaves this peer out, unless it was asked for by name."""
    counts_threads: ClassVar[bool] = False
    """Whether it can be measured at one thread and at several, of which the better time counts."""
    takes_lengths: ClassVar[bool] = False
    """Whether rows may have different lengths."""
    settling: ClassVar[float] = 0.015
    """Seconds after a call until its threads have stopped spinning, which would slow down whoever comes next."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @classmethod
    def missing(cls) -> list[str]:
        """The packages that this peer needs and that are not installed."""
        return [package for package in cls.requires if importlib.util.find_spec(package) is None]

    @classmethod
    def suits(cls, shape: Shape, mode: str) -> bool:
        """Whether this peer can run that shape in that mode."""
        if shape.lengths and not (cls.takes_lengths and mode == FORWARD):
            return False
        return mode in cls.modes and shape.dtype in cls.dtypes and not (mode == STEP and shape.bidirectional)

    @classmethod
    def counts(cls, num_threads: int) -> tuple[int, ...]:
        """The numbers of threads that it is measured at, where fastrnn may use `num_threads`."""
        return (1, num_threads) if cls.counts_threads and num_threads > 1 else (num_threads,)

    @staticmethod
    def set_num_threads(num_threads: int) -> str | None:
        """Make peers that are built from now on use this many threads. Returns why not, where that is so."""

    def call(self, mode: str) -> Callable[[], Any]:
        """What is timed in that mode."""
        return {FORWARD: self.forward, FORWARD_BACKWARD: self.forward_backward, STEP: self.steps}[mode]

    def results(self, mode: str) -> Arrays:
        """What is compared in that mode, by name."""
        if mode == FORWARD_BACKWARD:
            return self.gradients()
        return {"output": self.output() if mode == FORWARD else self.step_outputs()}

    def prepare_memory(self) -> None:
        """Do what precedes the first step of training but is not part of it, such as compiling."""

    def forward(self) -> Any:
        raise NotImplementedError

    def output(self) -> np.ndarray:
        raise NotImplementedError

    def forward_backward(self) -> Any:
        raise NotImplementedError

    def gradients(self) -> Arrays:
        raise NotImplementedError

    def steps(self) -> list[Any]:
        raise NotImplementedError

    def step_outputs(self) -> np.ndarray:
        return np.stack([np.asarray(y).reshape(self.problem.shape.N, -1) for y in self.steps()])
