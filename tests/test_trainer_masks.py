"""`mask` at the trainer's doors: masked steps count nowhere, and the state is carried over them.

Letters: N samples, T time steps, D features, H hidden_size, M outputs.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Embedding, LastStep, Linear, MaxPool, MeanPool, Sequential, Trainer, losses

N, T, D, H = 12, 9, 3, 5


def made(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (N, T, D), and a mask (N, T) with a row of none, one of all, and gaps at either end and in the middle."""
    rng = np.random.default_rng(seed)
    x, mask = rng.standard_normal((N, T, D)), rng.random((N, T)) < 0.6
    mask[3], mask[4] = True, False
    mask[5, :2] = mask[6, -2:] = False
    return x, mask


def model(M: int, *pool: Any, batch_first: bool = True, cell: Any = LSTM) -> Sequential:
    """In float64, so that sums in another order are close."""
    front = Linear(D, 4, dtype="float64", rng=5)
    pools = [p(batch_first=batch_first) for p in pool]
    return Sequential(
        front, cell(4, H, batch_first=batch_first, dtype="float64", rng=0), *pools, Linear(H, M, dtype="float64", rng=1)
    )


def trainer(net: Sequential, loss: Any, **options: Any) -> Trainer:
    return Trainer(net, loss, fastrnn.SGD(lr=0.05), **options)


def cut(a: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    return [row[real] for row, real in zip(a, mask)]


def targets(kind: str, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return {
        "classes": rng.integers(0, 3, (N, T)),
        "yes": rng.integers(0, 2, (N, T)),
        "numbers": rng.standard_normal((N, T, 2)),
        "one": rng.standard_normal((N, T)),
    }[kind]


def assert_same(a: Trainer, b: Trainer, histories: list[Any]) -> None:
    for name in histories[0]:
        if name not in ("seconds", "samples_per_second"):
            np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-9, err_msg=name)
    for name, value in a.model.params.items():
        np.testing.assert_allclose(value, b.model.params[name], rtol=1e-9, atol=1e-12, err_msg=name)


def own(outputs: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    return float(((outputs - y) ** 2).sum()), 2 * (outputs - y)


LOSSES = [
    ("cross_entropy", 3, "classes"),
    (functools.partial(losses.cross_entropy, label_smoothing=0.1, ignore_index=2), 3, "classes"),
    (functools.partial(losses.cross_entropy, reduction="sequence"), 3, "classes"),
    ("bce", 1, "yes"),
    ("mse", 2, "numbers"),
    (functools.partial(losses.mse, reduction="sum"), 2, "numbers"),
    ("mae", 1, "one"),
    ("huber", 2, "numbers"),
    (functools.partial(losses.quantile, quantiles=[0.1, 0.9]), 2, "one"),
    (own, 2, "numbers"),
]


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-major"])
@pytest.mark.parametrize("loss, M, kind", LOSSES, ids=lambda p: getattr(p, "__name__", None))
def test_a_mask_is_the_data_without_those_steps(loss, M, kind, batch_first):
    """As a list of sequences without the masked steps; what x and y hold at these is NaN, or no class."""
    (x, mask), y = made(), targets(kind)
    runs, histories = [], []
    for masked in (True, False):
        run = trainer(model(M, batch_first=batch_first), loss, rng=0)
        if masked:
            hidden = np.where(mask[..., None], x, np.nan)
            real = mask.reshape(mask.shape + (1,) * (y.ndim - 2))
            data, options = (hidden, np.where(real, y, -7 if y.dtype.kind == "i" else np.nan)), {"mask": mask}
        else:
            data, options = (cut(x, mask), cut(y, mask)), {}
        histories.append(run.fit(*data, epochs=3, batch_size=5, progress=False, **options))
        histories[-1]["evaluated"] = list(run.evaluate(*data, **options).values())
        runs.append(run)
    assert_same(*runs, histories)
    predicted, expected = (
        runs[0].predict(np.where(mask[..., None], x, np.nan), mask=mask),
        runs[1].predict(cut(x, mask)),
    )
    for row, other, real in zip(predicted, expected, mask):
        np.testing.assert_allclose(row[real], other, rtol=1e-9)
        first = np.flatnonzero(real)[0] if real.any() else T
        for t in range(first + 1, T):
            if not real[t]:
                np.testing.assert_array_equal(row[t], row[t - 1])


@pytest.mark.parametrize("pool", [LastStep, MeanPool, MaxPool])
@pytest.mark.parametrize("every", [None, 2])
def test_pooled(pool, every):
    (x, mask), y = made(), np.random.default_rng(2).integers(0, 3, N)
    runs, histories = [], []
    for data, options in (((np.where(mask[..., None], x, np.nan), y), {"mask": mask}), ((cut(x, mask), y), {})):
        run = trainer(model(3, pool), "cross_entropy", rng=0, checkpoint_every=every if options else None)
        histories.append(run.fit(*data, epochs=3, batch_size=5, progress=False, **options))
        runs.append(run)
    assert_same(*runs, histories)


def test_ctc():
    x, mask = made()
    mask[4, :4] = True
    said = [np.random.default_rng(n).integers(1, 3, min(2, mask[n].sum() // 2)) for n in range(N)]
    runs, histories = [], []
    for data, options in (((x, said), {"mask": mask}), ((cut(x, mask), said), {})):
        run = trainer(model(3), functools.partial(losses.ctc, zero_infinity=True), rng=0)
        histories.append(run.fit(*data, epochs=2, batch_size=5, progress=False, **options))
        runs.append(run)
    assert_same(*runs, histories)


@pytest.mark.parametrize("weights", [{"sample_weight": (N,)}, {"sample_weight": (N, T)}, {"class_weight": "balanced"}])
def test_weights(weights):
    (x, mask), y = made(), targets("classes")
    name, value = next(iter(weights.items()))
    value = value if isinstance(value, str) else np.random.default_rng(3).random(value) + 0.1
    runs, histories = [], []
    for masked in (True, False):
        run = trainer(model(3), "cross_entropy", rng=0, metrics=["accuracy", "f1"])
        given = cut(value, mask) if not masked and np.ndim(value) == 2 else value
        data = (x, y) if masked else (cut(x, mask), cut(y, mask))
        options = {name: given} | ({"mask": mask} if masked else {})
        histories.append(run.fit(*data, epochs=2, batch_size=5, progress=False, **options))
        runs.append(run)
    assert_same(*runs, histories)


@pytest.mark.parametrize("loss, M, kind", [*LOSSES[:1], *LOSSES[-1:]], ids=lambda p: getattr(p, "__name__", None))
def test_exact_gradients_in_pieces(loss, M, kind):
    """checkpoint_every is the whole; so is tbptt with windows as long as the sequences."""
    (x, mask), y = made(), targets(kind)
    runs, histories = [], []
    for options in ({}, {"checkpoint_every": 2}, {"tbptt": T}):
        run = trainer(model(M), loss, rng=0, **options)
        histories.append(run.fit(x, y, epochs=2, batch_size=5, mask=mask, lengths=np.arange(N) % T + 1, progress=False))
        runs.append(run)
    for other in (1, 2):
        assert_same(runs[0], runs[other], [histories[0], histories[other]])


def test_stateful_and_truncated():
    """The state goes over a gap of whole windows and batches."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 24, D)), rng.standard_normal((1, 24, 2))
    mask = np.ones((1, 24), bool)
    mask[:, 6:12] = mask[:, 18:21] = False
    runs, histories = [], []
    for data, options in (((x, y), {"mask": mask}), ((x[:, mask[0]], y[:, mask[0]]), {})):
        run = trainer(model(2), "mse", tbptt=3, stateful=True, rng=0)
        histories.append(run.fit(*data, epochs=3, batch_size=1, progress=False, **options))
        runs.append(run)
    assert_same(*runs, histories)
    batches = [{"x": x[:, i : i + 6], "y": y[:, i : i + 6], "mask": mask[:, i : i + 6]} for i in range(0, 24, 6)]
    run = trainer(model(2), "mse", tbptt=3, stateful=True, rng=0)
    assert_same(runs[1], run, [histories[1], run.fit(batches, epochs=3, progress=False)])


def test_every_way_to_hand_data_in():
    torch = pytest.importorskip("torch")
    (x, mask), y = made(), targets("classes")
    rows = slice(0, 8), slice(8, N)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "shuffle": False, "progress": False}
    held = {"x": x[rows[1]], "y": y[rows[1]], "mask": mask[rows[1]]}
    expected = trainer(model(3), "cross_entropy").fit(
        x[rows[0]], y[rows[0]], mask=mask[rows[0]], validation_data=held, **options
    )
    unmasked = trainer(model(3), "cross_entropy").fit(x[rows[0]], y[rows[0]], **options)
    assert expected["loss"] != unmasked["loss"]
    entries = {"x": x, "y": y, "mask": mask}
    batches = [{name: a[i : i + 4] for name, a in entries.items()} for i in (0, 4, 8)]
    loader = torch.utils.data.DataLoader(
        [{name: torch.tensor(a[i]) for name, a in entries.items()} for i in range(8)], batch_size=4
    )
    for data, given in (
        ((x, y), {"mask": mask, "validation_split": 4 / N}),
        ((x[rows[0]].tolist(), y[rows[0]].tolist()), {"mask": mask[rows[0]].tolist(), "validation_data": batches[2:]}),
        (([*x[rows[0]]], [*y[rows[0]]]), {"mask": [*mask[rows[0]]], "validation_data": batches[2:]}),
        ((batches[:2],), {"validation_data": lambda: iter(batches[2:])}),
        ((loader,), {"validation_data": batches[2]}),
    ):
        got = trainer(model(3), "cross_entropy").fit(*data, **options, **given)
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-12, err_msg=name)


def test_tokens_at_masked_steps_may_be_anything():
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(0, 7, (N, T)), made()[1]
    net = Sequential(
        Embedding(7, 3, rng=0), GRU(3, H, batch_first=True, rng=1), LastStep(batch_first=True), Linear(H, 2, rng=2)
    )
    run = Trainer(net)
    expected = run.predict(tokens, mask=mask)
    np.testing.assert_array_equal(run.predict(np.where(mask, tokens, -1), mask=mask), expected)
    np.testing.assert_allclose(run.predict(cut(tokens, mask)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("pool", [(), (LastStep,)], ids=["steps", "newest"])
def test_partial_fit(pool, window):
    """A stream with masked samples is the stream without them; streams side by side keep their own state."""
    rng = np.random.default_rng(0)
    x, y, mask = rng.standard_normal((14, 2, D)), rng.standard_normal((14, 2, 2)), rng.random(14) < 0.6
    runs = [trainer(model(2, *pool), "mse", window=window) for _ in range(2)]
    if window > 1 and mask.any():  # a masked step takes a place in the window, so only its end may be masked
        mask[:] = True
        mask[-1] = False
    for x_t, y_t, real in zip(x, y, mask):
        logs = runs[0].partial_fit(np.where(real, x_t, np.nan), y_t, mask=bool(real))
        if real:
            assert runs[1].partial_fit(x_t, y_t)["loss"] == pytest.approx(logs["loss"], rel=1e-9)
        else:
            assert np.isnan(logs["loss"])
    for name, value in runs[0].model.params.items():
        np.testing.assert_allclose(value, runs[1].model.params[name], rtol=1e-9, err_msg=name)
    state = [runs[0]._carried.state[1], runs[1]._carried.state[1]]
    if window == 1:
        for a, b in zip(*state):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    before = runs[0]._carried.state[1][0].copy()
    runs[0].partial_fit(x[0], y[0], mask=np.array([False, True]))
    after = runs[0]._carried.state[1][0]
    if window == 1:
        np.testing.assert_array_equal(after[:, 0], before[:, 0])
        assert not np.allclose(after[:, 1], before[:, 1])


def test_partial_fit_goes_on_from_a_file(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 2, D)), rng.standard_normal((8, 2, 2))
    mask = rng.random((8, 2)) < 0.6
    a = trainer(model(2), "mse", window=3)
    for i in range(5):
        a.partial_fit(x[i], y[i], mask=mask[i])
    a.save(tmp_path / "t.npz")
    b = Trainer.load(tmp_path / "t.npz")
    for i in range(5, 8):
        assert a.partial_fit(x[i], y[i], mask=mask[i]) == b.partial_fit(x[i], y[i], mask=mask[i])


# --- Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask, error",
    [
        (made()[1].T, f"mask: expected shape ({N}, {T}) = (N, T), got ({T}, {N}); write mask.T"),
        (made()[1].astype(int), "mask: expected bool, got int64; 0 and 1 are flags by .astype(bool)"),
        (made()[1][0], f"mask: expected shape ({N}, {T}) = (N, T), got ({T},)"),
        (np.ma.MaskedArray(made()[1]), "mask: expected a plain array, got a masked one"),
    ],
)
def test_wrong_masks(mask, error):
    x, _ = made()
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        trainer(model(3), "cross_entropy").fit(x, targets("classes"), mask=mask, progress=False)


def test_where_a_mask_says_nothing():
    with pytest.raises(ValueError, match="mask: expected None, as no layer of the model reads time"):
        Trainer(Sequential(Linear(3, 2, rng=0))).predict(np.zeros((4, 3)), mask=np.ones((4, 3), bool))
    with pytest.raises(ValueError, match="mask, sample_weight: expected them in the batches"):
        trainer(model(3), "cross_entropy").fit([(made()[0], targets("classes"))], mask=made()[1], progress=False)
    net = fastrnn.EncoderDecoder(
        Sequential(Embedding(5, 3, rng=0), GRU(3, 4, batch_first=True, rng=1)),
        Sequential(Embedding(5, 3, rng=0), GRU(3, 4, batch_first=True, rng=1), Linear(4, 5, rng=2)),
        start=1,
    )
    tokens = np.ones((2, 3), int)
    with pytest.raises(ValueError, match="mask: expected no mask, as targets of EncoderDecoder do not have the steps"):
        Trainer(net).fit(tokens, tokens, mask=np.ones((2, 3), bool), progress=False)


def test_entries_of_validation_data():
    """reset_mask was dropped in silence, as any other name."""
    (x, mask), y = made(), targets("classes")
    run = trainer(model(3), "cross_entropy")
    with pytest.raises(TypeError, match="validation_data: expected entries x, y, .*, got masks"):
        run.fit(x, y, validation_data={"x": x, "y": y, "masks": mask}, progress=False)
    resets = np.ones((N, T), bool)
    got = run.fit(x, y, validation_data={"x": x, "y": y, "reset_mask": resets}, progress=False)["val_loss"]
    assert got == [run.evaluate(x, y, reset_mask=resets)["loss"]] != [run.evaluate(x, y)["loss"]]


def test_sequences_for_an_adaptive_softmax():
    """Its targets have the steps of its inputs; lengths used to be refused as for an EncoderDecoder."""
    tokens = [np.arange(n) % 9 for n in (4, 7, 3)]
    net = Sequential(
        Embedding(9, 4, rng=0), GRU(4, 6, batch_first=True, rng=1), fastrnn.AdaptiveSoftmax(6, 9, [3], rng=2)
    )
    run = Trainer(net, "nll", rng=0)
    alone = [run.evaluate(t[None], t[None])["loss"] * len(t) for t in tokens]
    assert run.evaluate(tokens, tokens)["loss"] == pytest.approx(sum(alone) / 14, rel=1e-6)
    run.fit(tokens, tokens, progress=False)
