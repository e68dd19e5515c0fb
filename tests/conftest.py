"""What the tests share: the one tolerance table, random cases of the stateless core, the instruction sets.

Letters: T time steps, N batch, D input_size, H hidden_size, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Iterator

import numpy as np
import pytest

from fastrnn import reference

# How far a result may be from the float64 reference: outputs and states by |error| <= tol * (1 + |value|), gradients
# by |error| <= tol * (the gradient's largest entry). A gradient whose largest entry is below CANCELLED is a sum of
# terms of order one that cancel, and keeps the rounding of those terms: it is measured against CANCELLED.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
CANCELLED = 0.1

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
STATES = {"rnn": ("h",), "gru": ("h",), "lstm": ("h", "c")}

# Every cell in every form, as (cell, options of its forward).
CELLS = [
    ("rnn", {"nonlinearity": "tanh"}),
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"nonlinearity": "sigmoid"}),
    ("rnn", {"nonlinearity": "identity"}),
    ("gru", {"reset_after": True}),
    ("gru", {"reset_after": False}),
    ("lstm", {}),
]
CELL_IDS = ["-".join([cell, *map(str, options.values())]) for cell, options in CELLS]
every_cell = pytest.mark.parametrize("cell, options", CELLS, ids=CELL_IDS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@dataclass(frozen=True)
class Case:
    """Arguments for one sequence: inputs, initial states, weights and the gradients that arrive from above."""

    cell: str
    options: dict[str, Any]
    x: np.ndarray  # (T, N, D)
    state: tuple[np.ndarray | None, ...]  # each (N, H)
    weights: tuple[np.ndarray | None, ...]  # weight_ih (G*H, D), weight_hh (G*H, H), bias_ih, bias_hh (G*H,)
    doutput: np.ndarray | None  # (T, N, H)
    dstate: tuple[np.ndarray | None, ...] = field(default=())  # each (N, H)

    def astype(self, dtype: Any) -> Case:
        def cast(a: np.ndarray | None) -> np.ndarray | None:
            return None if a is None else a.astype(dtype)

        return replace(
            self,
            x=cast(self.x),
            state=tuple(map(cast, self.state)),
            weights=tuple(map(cast, self.weights)),
            doutput=cast(self.doutput),
            dstate=tuple(map(cast, self.dstate)),
        )

    def forward(self, module: ModuleType, **kwargs: Any) -> tuple[Any, ...]:
        function = getattr(module, self.cell + "_forward")
        return function(self.x, *self.state, *self.weights, **self.options, **kwargs)

    def backward(self, module: ModuleType, cache: Any, **kwargs: Any) -> dict[str, Any]:
        return getattr(module, self.cell + "_backward")(self.doutput, *self.dstate, cache, **kwargs)

    def run(self, module: ModuleType) -> dict[str, Any]:
        """All results by name: output, h_n, (c_n,) and the gradients as dx, dh0, (dc0,) dweight_ih, ..."""
        *outputs, cache = self.forward(module)
        results = dict(zip(["output", *(s + "_n" for s in STATES[self.cell])], outputs))
        return results | {"d" + name: grad for name, grad in self.backward(module, cache).items()}


def make_case(
    cell: str, options: dict[str, Any], shape: tuple[int, ...], dtype: str, *, seed: int = 0, bias: bool = True
) -> Case:
    """A random case of shape (T, N, D, H): everything non-zero, pre-activations of order one."""
    T, N, D, H = shape
    rng = np.random.default_rng([seed, T, N, D, H, len(cell)])
    GH = GATES[cell] * H

    def normal(*size: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(size)).astype(dtype)

    x = normal(T, N, D)
    weight_ih, weight_hh = normal(GH, D, scale=D**-0.5), normal(GH, H, scale=0.9 * H**-0.5)
    weights = (weight_ih, weight_hh, normal(GH, scale=0.3), normal(GH, scale=0.3))
    state = tuple(normal(N, H, scale=0.7) for _ in STATES[cell])
    dstate = tuple(normal(N, H) for _ in STATES[cell])
    doutput = normal(T, N, H)
    return Case(cell, options, x, state, weights if bias else (*weights[:2], None, None), doutput, dstate)


def expect(case: Case) -> dict[str, Any]:
    """The specification's results: the reference in float64 on exactly these inputs."""
    return case.astype(np.float64).run(reference)


def assert_output_close(actual: np.ndarray, expected: np.ndarray, dtype: str, name: str = "output") -> None:
    """`actual` has `dtype` and is within the table's tolerance of `expected`; NaN and infinities must agree."""
    assert actual.dtype == dtype and actual.shape == expected.shape, name
    tol = TOLERANCE[dtype]
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=tol, atol=tol, err_msg=name)


def assert_gradient_close(actual: np.ndarray, expected: np.ndarray, dtype: str, name: str = "gradient") -> None:
    """`actual` has `dtype` and is within the table's tolerance of `expected`, relative to its largest entry."""
    assert actual.dtype == dtype and actual.shape == expected.shape, name
    largest = float(np.abs(expected).max(initial=CANCELLED))
    np.testing.assert_allclose(
        actual.astype(np.float64), expected, rtol=0, atol=TOLERANCE[dtype] * largest, err_msg=name
    )


def assert_results_close(actual: dict[str, Any], expected: dict[str, Any], dtype: str) -> None:
    """Results as `Case.run` names them: the same keys, the same None, every array close."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        if value is None:
            assert actual[name] is None, name
        elif name.startswith("d"):
            assert_gradient_close(actual[name], value, dtype, name)
        else:
            assert_output_close(actual[name], value, dtype, name)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on this instruction set's kernels; skipped where the CPU lacks it."""
    from fastrnn import _native

    if request.param not in _native.isas():
        pytest.skip("this CPU has no " + request.param)
    before = _native.isa()
    _native.use_isa(request.param)
    yield request.param
    _native.use_isa(before)
