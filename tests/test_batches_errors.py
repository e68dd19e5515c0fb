"""What a trainer says of data that do not fit together, and of options that do not fit the data.

Letters: N samples, T time steps, T_i those of sample i, D input size, H hidden size, M outputs, V vocabulary.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from batch_cases import LENGTHS, D, M, model, padded, sequences

from fastrnn.layers import LastStep, Linear, Sequential
from fastrnn.trainer import Trainer


def fit(x: Any, y: Any, pool: Any = None, **options: Any) -> Any:
    return lambda: Trainer(model(pool)).fit(x, y, progress=False, **options)


X, Y, CLASSES = sequences()
ARRAY = padded(X)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            fit(X, Y, lengths=LENGTHS),
            ValueError,
            "lengths: expected None, as x is a list of sequences, which have their own",
        ),
        (fit(X[:-1], Y), ValueError, "y: expected one target per sample of x, 6 of them, got a list of 7"),
        (fit(X, [*Y[:-1], Y[0]]), ValueError, "y: expected 6 targets for sequence 6, got shape (4,)"),
        (
            fit(X, CLASSES[:-1], LastStep),
            ValueError,
            "y: expected one target per sample of x, 7 of them, got shape (6,)",
        ),
        (
            fit([*X, X[0][:, :1]], Y),
            ValueError,
            "x: expected sequences of one shape per step, (T_7, 2), got (4, 1) at 7",
        ),
        (fit([*X, X[0].astype("c16")], Y), TypeError, "x: expected real numbers, got complex128"),
        (fit([*X, 3.0], Y), ValueError, "x: expected sequences of one shape per step, (T_7, 2), got () at 7"),
        (fit([], Y), ValueError, "x: expected samples first, at least one, got shape (0,)"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[3] * 6), ValueError, "lengths: expected shape (7,), got (6,)"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[12] * 7), ValueError, "lengths: expected values from 0 to 11, got 12"),
        (fit(ARRAY, CLASSES, LastStep, lengths=[2.0] * 7), TypeError, "lengths: expected "),
        (
            fit(CLASSES, CLASSES, lengths=[2] * 7),
            ValueError,
            "lengths: expected None for x without time steps, got x of shape (7,)",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, bucket=True),
            ValueError,
            "bucket: expected False for sequences of one length, got True",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, validation_data=(ARRAY,)),
            TypeError,
            "validation_data: expected a tuple (x, y) or (x, y, lengths)",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(3, bool)] * 7),
            ValueError,
            "reset_mask: expected shape (4,) for sequence 0, got (3,)",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(n) for n in LENGTHS]),
            TypeError,
            "reset_mask: expected bool for sequence 0, got float64",
        ),
        (
            fit(X, Y, reset_mask=[np.zeros(4, bool)]),
            ValueError,
            "reset_mask: expected one entry per sample of x, 7 of them, got a list of 1",
        ),
        (
            fit(ARRAY, CLASSES, LastStep, reset_mask=np.zeros((7, 9), bool)),
            ValueError,
            "reset_mask: expected shape (7, 11) = (N, T), got (7, 9)",
        ),
        (
            lambda: Trainer(Sequential(Linear(D, M, dtype="f8"))).predict(ARRAY, reset_mask=np.zeros((7, 11), bool)),
            ValueError,
            "reset_mask: expected None, as no layer of the model takes resets",
        ),
        (fit(X, CLASSES), ValueError, "y: expected a target at each step, (7, 9, ...), got shape (7,)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()
