"""RNN, GRU and LSTM in their forms, random arguments for them, and PyTorch's twins, for the tests of layers.

Letters: T time steps, N batch, D input_size, H hidden_size, P proj_size, S directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient_close, assert_output_close

from fastrnn.layers import GRU, LSTM, RNN

T, N, D, H = 7, 3, 5, 6
LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
every_layer = pytest.mark.parametrize("kind", LAYERS)
FORMS = {
    "plain": {},
    "no bias": {"bias": False},
    "stacked": {"num_layers": 3},
    "bidirectional": {"bidirectional": True},
    "stacked bidirectional": {"num_layers": 2, "bidirectional": True},
    "batch first": {"batch_first": True},
    "all of it": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def joined(arrays: Any) -> Any:
    arrays = tuple(arrays)
    return arrays if len(arrays) > 1 else arrays[0]


def random_arguments(layer: Any, *, batched: bool = True, seed: int = 5, N: int = N) -> tuple[Any, Any, Any, Any]:
    """x, state, doutput and dstate_n for a layer of input_size D and hidden_size H."""
    rng = np.random.default_rng(seed)
    S = 2 if layer.bidirectional else 1
    P = getattr(layer, "proj_size", 0) or H
    lead = ((N, T) if layer.batch_first else (T, N)) if batched else (T,)
    rows = (layer.num_layers * S, N) if batched else (layer.num_layers * S,)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(layer.dtype)

    state, dstate = (joined(normal(*rows, width) for _, width in zip(layer.states, (P, H))) for _ in range(2))
    return normal(*lead, D), state, normal(*lead, S * P), dstate


def run(layer: Any, x: Any, state: Any, doutput: Any, dstate: Any, **keywords: Any) -> dict[str, np.ndarray]:
    """Results and gradients by name, starting from gradients of zero; `keywords` are those of the call."""
    layer.zero_grad()
    output, state_n = layer(x, state, training=True, **keywords)
    dx, dstate0 = layer.backward(doutput, dstate)
    results = {"output": output, "dx": dx} | {"d" + name: grad.copy() for name, grad in layer.grads.items()}
    results |= {f"{s}_n": a for s, a in zip(layer.states, parts(state_n))}
    return results | {f"d{s}0": a for s, a in zip(layer.states, parts(dstate0))}


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: Any) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        check = assert_gradient_close if name.startswith("d") else assert_output_close
        check(actual[name], value, np.dtype(dtype).name, name)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_twin(torch: Any, layer: Any, dtype: Any) -> Any:
    """PyTorch's layer of the same arguments, with other weights."""
    cls = {"RNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[type(layer).__name__]
    names = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
        "nonlinearity",
        "proj_size",
    )
    known = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    torch.manual_seed(3)
    return cls(**known, dtype=dtype)


def run_torch(
    torch: Any, module: Any, layer: Any, x: Any, state: Any, doutput: Any, dstate: Any
) -> dict[str, np.ndarray]:
    def leaf(a: np.ndarray) -> Any:
        return torch.tensor(a, dtype=torch.float64, requires_grad=True)

    x, states = leaf(x), [leaf(s) for s in parts(state)]
    output, state_n = module(x, joined(states))
    arrives = [doutput, *parts(dstate)]
    torch.autograd.backward([output, *parts(state_n)], [torch.tensor(a, dtype=torch.float64) for a in arrives])
    results = {"output": output, "dx": x.grad} | {"d" + name: p.grad for name, p in module.named_parameters()}
    results |= {f"{s}_n": a for s, a in zip(layer.states, parts(state_n))}
    results |= {f"d{s}0": a.grad for s, a in zip(layer.states, states)}
    return {name: a.detach().numpy() for name, a in results.items()}
