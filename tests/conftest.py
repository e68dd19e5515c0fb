"""What the tests share: the one tolerance table, random cases of the stateless core, the instruction sets.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, G gates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastrnn import _native, functional, reference
from fastrnn.functional.spec import CELLS as FORMS

# So that a failed assertion in a helper says its numbers, as one in a test does.
pytest.register_assert_rewrite("batch_cases", "layer_cases", "torch_cases", "trainer_cases", "tree_cases")

# How far a result may be from the float64 reference: outputs and states by |error| <= tol * (1 + |value|), gradients
# by |error| <= tol * (the gradient's largest entry). A gradient whose largest entry is below CANCELLED is a sum of
# terms of order one that cancel, and keeps the rounding of those terms: it is measured against CANCELLED.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
CANCELLED = 0.1

GATES = {cell: len(form.gates) for cell, form in FORMS.items()}
STATES = {cell: form.states for cell, form in FORMS.items()}

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
# The variants, alone and together. Here `peephole` and `projection` ask `make_case` for the weights of that name.
HARD_GRU = {"reset_after": False, "gate_activation": "hard_sigmoid_6", "activation": "relu"}
HARD_LSTM = {"gate_activation": "hard_sigmoid", "activation": "relu"}
CELLS_MORE = [
    ("gru", {"reset_after": True, "gate_activation": "hard_sigmoid"}),
    ("gru", {"reset_after": True, "activation": "identity"}),
    ("gru", {"reset_after": True, "activation": "relu"}),
    ("gru", {"reset_after": False, "activation": "sigmoid"}),
    ("gru", HARD_GRU),
    ("lstm", {"peephole": True}),
    ("lstm", {"projection": True}),
    ("lstm", {"gate_activation": "hard_sigmoid"}),
    ("lstm", {"gate_activation": "hard_sigmoid_6", "activation": "sigmoid"}),
    ("lstm", {"activation": "relu"}),
    ("lstm", {"activation": "identity"}),
    ("lstm", {"cell_clip": 0.8}),
    ("lstm", {"peephole": True, "projection": True}),
    ("lstm", {"peephole": True, "cell_clip": 0.8}),
    ("lstm", {"cell_clip": 0.8, "gate_activation": "hard_sigmoid_6", "activation": "identity"}),
    ("lstm", {"peephole": True, "projection": True, "cell_clip": 1.2, **HARD_LSTM}),
]


def cell_id(cell: str, options: dict[str, Any]) -> str:
    return "-".join([cell, *(name if name in ("peephole", "projection") else str(o) for name, o in options.items())])


every_cell = pytest.mark.parametrize("cell, options", CELLS, ids=[cell_id(*c) for c in CELLS])
every_variant = pytest.mark.parametrize("cell, options", CELLS_MORE, ids=[cell_id(*c) for c in CELLS_MORE])
every_cell_and_variant = pytest.mark.parametrize(
    "cell, options", CELLS + CELLS_MORE, ids=[cell_id(*c) for c in CELLS + CELLS_MORE]
)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@dataclass(frozen=True)
class Case:
    """Arguments for one sequence: inputs, initial states, weights and the gradients that arrive from above.

    P is H unless there is a projection.
    """

    cell: str
    options: dict[str, Any]
    x: np.ndarray  # (T, N, D)
    state: tuple[np.ndarray | None, ...]  # h0 (N, P), c0 (N, H)
    weights: tuple[np.ndarray | None, ...]  # weight_ih (G*H, D), weight_hh (G*H, P), bias_ih, bias_hh (G*H,)
    doutput: np.ndarray | None  # (T, N, P)
    dstate: tuple[np.ndarray | None, ...] = field(default=())  # as state
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # weight_hr (P, H), weight_peephole (3*H,)
    lengths: Any = None  # (N,)
    reset_mask: Any = None  # (T, N)
    reverse: bool = False
    mask: Any = None  # (T, N)

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
            extra={name: cast(weight) for name, weight in self.extra.items()},
        )

    def forward(self, module: ModuleType, **kwargs: Any) -> tuple[Any, ...]:
        function = getattr(module, self.cell + "_forward")
        return function(self.x, *self.state, *self.weights, **self.options, **self.keywords(), **kwargs)

    def keywords(self) -> dict[str, Any]:
        """The extra weights and what happens over time, as far as the case has them."""
        over_time = {"lengths": self.lengths, "reset_mask": self.reset_mask, "reverse": self.reverse or None}
        over_time["mask"] = self.mask
        return self.extra | {name: value for name, value in over_time.items() if value is not None}

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
    """A random case of shape (T, N, D, H): everything non-zero, pre-activations of order one.

    With the option `projection`, P = H // 2 + 1.
    """
    T, N, D, H = shape
    options = dict(options)
    peephole, projection = options.pop("peephole", False), options.pop("projection", False)
    P = H // 2 + 1 if projection else H
    rng = np.random.default_rng([seed, T, N, D, H, len(cell)])
    GH = GATES[cell] * H

    def normal(*size: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(size)).astype(dtype)

    x = normal(T, N, D)
    weight_ih, weight_hh = normal(GH, D, scale=max(D, 1) ** -0.5), normal(GH, P, scale=0.9 * P**-0.5)
    weights = (weight_ih, weight_hh, normal(GH, scale=0.3), normal(GH, scale=0.3))
    widths = {"h": P, "c": H}
    state = tuple(normal(N, widths[s], scale=0.7) for s in STATES[cell])
    dstate = tuple(normal(N, widths[s]) for s in STATES[cell])
    doutput = normal(T, N, P)
    extra = {"weight_hr": normal(P, H, scale=1.5 * H**-0.5)} if projection else {}
    if peephole:
        extra["weight_peephole"] = normal(3 * H, scale=0.5)
    return Case(cell, options, x, state, weights if bias else (*weights[:2], None, None), doutput, dstate, extra)


def over_time(case: Case, seed: int = 0, *, resets: float = 0.2) -> dict[str, np.ndarray]:
    """Random lengths and resets for `case`: lengths in no order, with 0 and T among them where N allows."""
    T, N = case.x.shape[:2]
    rng = np.random.default_rng([seed, T, N])
    lengths = rng.integers(0, T + 1, N)
    if N > 1:
        lengths[rng.choice(N, 2, replace=False)] = 0, T
    return {"lengths": lengths, "reset_mask": rng.random((T, N)) < resets}


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


def assert_same_bits_however_shared_out(case: Case) -> None:
    """Whatever plan runs the case: the reference's results, and the same bits."""
    try:
        for fused in (True, False):
            results = []
            for threads, by_units in ((1, False), (2, False), (3, True), (8, True), (8, False)):
                _native.force_plan(threads=threads, by_units=by_units, fused=fused)
                results.append(case.run(functional))
            assert_results_close(results[0], expect(case), case.x.dtype.name)
            for other in results[1:]:
                for name, value in results[0].items():
                    np.testing.assert_array_equal(other[name], value, err_msg=name)
    finally:
        _native.force_plan()


def run_in_threads(work: Callable[[], None], count: int = 4) -> None:
    """work() in so many threads at once, until all have returned."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on this instruction set's kernels; skipped where the CPU lacks it."""
    if request.param not in _native.isas():
        pytest.skip("this CPU has no " + request.param)
    before = _native.isa()
    _native.use_isa(request.param)
    yield request.param
    _native.use_isa(before)


@pytest.fixture
def torch() -> Iterator[ModuleType]:
    """PyTorch on one thread, for loops of many small calls; skipped where it is not installed."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture
def fresh_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """fastrnn.interop.torch takes every call that it can: shapes of a test are small, and their speed is no matter."""
    torch = pytest.importorskip("torch")
    import fastrnn.interop.torch as door
    from fastrnn.interop.torch import _rules

    for rule in ("loses", "cell_loses", "half_loses"):
        monkeypatch.setattr(_rules, rule, lambda *args: False)
    torch.manual_seed(0)
    door.report(reset=True)
    yield
    door.unpatch()
