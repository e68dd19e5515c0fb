"""Data of every form, at every door: any container of the same numbers gives the same; what is no numbers is named.

Letters: N samples, T time steps, D features.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Embedding, LastStep, Linear, Sequential, Trainer

SERIES = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])


def doors() -> dict[str, Any]:
    """What takes data by name."""

    def trainer() -> Trainer:
        return Trainer(
            Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1)), rng=0
        )

    return {
        "fit": lambda x: trainer().fit(x, LABELS, progress=False)["loss"],
        "evaluate": lambda x: list(trainer().evaluate(x, LABELS).values()),
        "predict": lambda x: trainer().predict(x),
        "layer": lambda x: LSTM(3, 4, batch_first=True, rng=0)(x)[0],
        "training": lambda x: LSTM(3, 4, batch_first=True, rng=0)(x, training=True)[0],
    }


every_door = pytest.mark.parametrize("door", doors())


@every_door
def test_real_numbers_in_any_container(door):
    """The same numbers give the same result, whoever holds them."""
    call = doors()[door]
    read_only = SERIES.copy()
    read_only.setflags(write=False)
    forms = {
        "float64": SERIES.astype("f8"),
        "big-endian": SERIES.astype(">f4"),
        "big-endian float64": SERIES.astype(">f8"),
        "long double": SERIES.astype(np.longdouble),
        "Fortran order": np.asfortranarray(SERIES),
        "list": SERIES.tolist(),
        "strided": np.repeat(SERIES, 2, axis=2)[:, :, ::2],
        "reversed": SERIES[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "tuple of arrays": tuple(SERIES),
        "memoryview": memoryview(SERIES),
    }
    expected = call(SERIES)
    for name, form in forms.items():
        np.testing.assert_allclose(call(form), expected, rtol=1e-6, err_msg=name)
    for dtype in (np.int8, np.uint64, bool, np.float16):
        whole = (np.abs(SERIES) * 3).astype(dtype)
        np.testing.assert_allclose(call(whole), call(whole.astype(np.float32)), rtol=1e-6)


@every_door
def test_what_is_no_array_of_real_numbers_is_named(door):
    call = doors()[door]
    for x, error, message in (
        (np.ma.masked_greater(SERIES, 1), TypeError, "x: expected a plain array, got a masked one"),
        ([np.ma.masked_greater(a, 1) for a in SERIES], TypeError, "x: expected a plain array, got a masked one"),
        (SERIES.astype(complex), TypeError, "x: expected real numbers, got complex128"),
        (SERIES.astype(str), TypeError, "x: expected real numbers, got <U32; encode words or classes as numbers"),
        (SERIES.astype(object), TypeError, "turn numbers into an array of them, x.astype(float)"),
        (np.zeros((6, 5, 3), "M8[D]"), TypeError, "x: expected real numbers, got datetime64[D]"),
        ({"x": SERIES}, TypeError, "x: expected what NumPy can read as an array, got dict"),
        (SERIES.astype("f8") * 1e300, ValueError, "x: expected numbers within the range of float32, got larger ones"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call(x)


@every_door
def test_tensors_that_numpy_cannot_read_are_named(door):
    torch = pytest.importorskip("torch")
    call = doors()[door]
    tensor = torch.tensor(SERIES)
    np.testing.assert_array_equal(call(tensor), call(SERIES))
    for wrong in (tensor.clone().requires_grad_(), tensor.bfloat16()):
        with pytest.raises(TypeError, match="x: expected what NumPy can read as an array, got"):
            call(wrong)


def test_masked_arrays_at_the_core_and_in_targets():
    layer, masked = GRU(3, 4, rng=0), np.ma.masked_greater(SERIES, 1)
    p = [layer.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    for module in (fastrnn.functional, fastrnn.reference):
        with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
            module.gru_forward(masked, None, *p)
        with pytest.raises(
            TypeError, match=r"x: expected float32 like weight_ih, got float64; .astype\(np.float32\) converts"
        ):
            module.gru_forward(SERIES.astype(float), None, *p)
    with pytest.raises(TypeError, match="x: expected a plain array, got a masked one"):
        layer.stream(6).step(masked[:, 0])
    trainer = Trainer(Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1)))
    flags = np.ma.MaskedArray(LABELS, mask=LABELS > 0)
    for name, value in (("y", flags), ("lengths", flags + 1), ("sample_weight", flags)):
        with pytest.raises(TypeError, match=f"{name}: expected a plain array, got a masked one"):
            trainer.fit(SERIES, **({"y": LABELS} | {name: value}), progress=False)


def test_a_file_that_is_mapped_is_read_and_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", SERIES.astype(">f8"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for call in doors().values():
        np.testing.assert_allclose(call(mapped), call(SERIES), rtol=1e-6)


def test_words_are_named_as_words():
    """Not as sequences of differing dtypes, <U3 and <U5, and not as wrong classes."""
    tagger = Sequential(Embedding(9, 4, rng=0), GRU(4, 5, batch_first=True, rng=1), Linear(5, 3, rng=2))
    words, tags, tokens = [["the", "cat"], ["a", "mouse", "eats"]], [["D", "N"], ["D", "N", "V"]], [[0, 1], [2, 3, 4]]
    with pytest.raises(TypeError, match="x: expected real numbers, got <U3; encode words or classes as numbers"):
        Trainer(tagger).fit(words, tokens, progress=False)
    with pytest.raises(
        TypeError, match="y: expected numbers, got <U1; number the classes from 0, or take an estimator"
    ):
        Trainer(tagger).fit(tokens, tags, progress=False)
    with pytest.raises(TypeError, match="y: expected numbers, got <U1; number the classes from 0"):
        Trainer(tagger).fit(tokens[:1] * 2, tags[:1] * 2, progress=False)


def test_an_iterable_of_no_batches():
    """Its epochs had a loss of nan, in silence."""
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    trainer, batch = Trainer(net, rng=0), (SERIES, LABELS)
    with pytest.raises(ValueError, match="x: expected at least one batch in epoch 1/1, got none"):
        trainer.fit(lambda: iter(()), progress=False)
    with pytest.raises(ValueError, match="validation_data: expected at least one batch, got none"):
        trainer.fit(*batch, validation_data=lambda: iter(()), progress=False)
    trainer.fit([batch], progress=False)
    assert trainer.history.epochs == 1


def test_what_is_wrong_with_validation_data_says_so():
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    for given, message in (
        ((SERIES[:0], LABELS[:0]), "validation_data: x: expected samples first, at least one"),
        ((SERIES, LABELS[:2]), "validation_data: y: expected one target per sample"),
        (iter([(SERIES, LABELS)]), "validation_data: x: expected batches that can be gone through in each epoch"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Trainer(net).fit(SERIES, LABELS, validation_data=given, progress=False)


def test_class_weights_of_no_class():
    """{"0": 5} was passed over, as no target is the string."""
    net = Sequential(GRU(3, 4, batch_first=True, rng=0), LastStep(batch_first=True), Linear(4, 2, rng=1))
    with pytest.raises(TypeError, match="class_weight: expected classes as y has them, numbers, got '0'"):
        Trainer(net).fit(SERIES, LABELS, class_weight={"0": 5.0}, progress=False)
