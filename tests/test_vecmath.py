"""The kernels' sigmoid and tanh, through an RNN cell of one unit: accuracy in ulp, saturation, NaN."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import every_dtype

from fastrnn import functional


def activation(name, values):
    """g(values) as the compiled cell computes it: weight 1, no bias, state zero."""
    one = np.ones((1, 1), values.dtype)
    return functional.rnn_cell_forward(values[:, None], None, one, one, None, None, nonlinearity=name)[0][:, 0]


def grid(dtype, low, high):
    """Both signs, evenly spaced and spread over the exponents, so that small arguments are met too."""
    tiny = 30 * np.finfo(dtype).tiny
    spread = np.concatenate([np.geomspace(tiny, high, 50_000), -np.geomspace(tiny, -low, 50_000)])
    return np.concatenate([np.linspace(low, high, 100_000), spread]).astype(dtype)


def exact(name, values):
    wide = values.astype(np.longdouble)
    return np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))


@every_dtype
@pytest.mark.parametrize(("name", "low"), [("tanh", -30.0), ("sigmoid", -80.0)])
def test_at_most_four_ulp(isa, dtype, name, low):
    dtype = np.dtype(dtype)
    values = grid(dtype, low, -low)
    expected = exact(name, values)
    ulp = np.abs(activation(name, values) - expected) / np.spacing(np.abs(expected).astype(dtype))
    worst = int(np.argmax(ulp))
    assert ulp[worst] <= 4, f"{name}({values[worst]!r}) is {float(ulp[worst]):.2f} ulp off"


@every_dtype
def test_saturates(isa, dtype):
    far = np.array([20_000, -20_000, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(activation("tanh", far), np.array([1, -1, 1, -1], dtype))
    np.testing.assert_allclose(activation("sigmoid", far), np.array([1, 0, 1, 0], dtype), atol=1e-37, rtol=0)


@every_dtype
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "identity"])
def test_every_nan_stays_nan(isa, dtype, name):
    bits = {np.float32: np.uint32, np.float64: np.uint64}[np.dtype(dtype).type]
    quiet = np.array([np.nan], dtype).view(bits)
    payloads = np.concatenate([quiet, quiet | bits(1), quiet | bits(255), quiet | bits(511)]).view(dtype)
    assert np.isnan(activation(name, payloads)).all()
