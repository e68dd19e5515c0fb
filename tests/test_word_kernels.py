"""The reference of word vectors against mathematics, and the kernels against the reference.

Letters: V words, D vector_size, M inputs, K outputs of a step, L tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import _native
from fastrnn._native import _words
from fastrnn.reference import words as reference

EVERY_ISA = pytest.mark.parametrize("isa", _native.isas())
STRIDE = 16  # rows of the kernels' matrices are padded to so many floats


# --- The reference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 0.7])
@pytest.mark.parametrize("M, K, D", [(1, 1, 1), (1, 6, 5), (4, 3, 7), (5, 9, 3)])
def test_gradients_of_a_step_match_differences(M: int, K: int, D: int, margin: float) -> None:
    rng = np.random.default_rng(M)
    x, u = rng.normal(size=(M, D)), rng.normal(size=(K, D))
    labels, repeats, draws = rng.integers(0, 2, K), rng.integers(1, 4, M), rng.integers(1, 4, K)
    gradients = reference.step_gradients(x, u, labels, repeats, draws, margin)
    for array, gradient in zip((x, u), gradients):
        for place in np.ndindex(array.shape):
            value, difference = array[place], 0.0
            for k, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                array[place] = value + k * 1e-3
                difference += weight * reference.step_loss(x, u, labels, repeats, draws, margin)
            array[place] = value
            assert abs(difference / 12e-3 - gradient[place]) < 1e-9 * (1 + abs(gradient[place]))


def test_the_loss_is_that_of_the_likelihood_and_does_not_overflow() -> None:
    x, u = np.array([[1.0, 2.0]]), np.array([[0.5, -0.25], [1.0, 1.0]])
    s = 1 / (1 + np.exp(-(x @ u.T)[0]))
    ones = np.ones(2)
    assert reference.step_loss(x, u, np.array([1, 0]), ones[:1], ones) == pytest.approx(-np.log(s[0] * (1 - s[1])))
    assert reference.step_loss(x * 1e3, u, np.array([0, 0]), ones[:1], ones) == pytest.approx(3000 + np.log(2))


def test_hierarchical_softmax_is_a_distribution() -> None:
    rng = np.random.default_rng(0)
    counts = np.sort(rng.integers(1, 100, 17))[::-1]
    paths, codes = reference.huffman(counts)
    nodes, h = rng.normal(size=(16, 4)), rng.normal(size=(1, 4))
    ones = np.ones(1)
    losses = [reference.step_loss(h, nodes[p], 1.0 - c, ones, np.ones(len(p))) for p, c in zip(paths, codes)]
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1)
    assert len(set(map(bytes, codes))) == 17 and all(p[0] == 15 for p in paths)
    lengths = np.array([*map(len, codes)])
    assert (np.diff(lengths) >= 0).all()  # the more frequent, the shorter
    expected = (lengths * counts).sum() / counts.sum()
    entropy = -(counts / counts.sum() * np.log2(counts / counts.sum())).sum()
    assert entropy <= expected < entropy + 1


def test_alias_table_draws_what_it_was_made_from() -> None:
    weights = np.random.default_rng(1).pareto(1, 50) + 1e-3
    limits, aliases = reference.alias_table(weights)
    drawn = np.bincount(np.arange(50), limits / 2.0**32, 50) + np.bincount(aliases, 1 - limits / 2.0**32, 50)
    np.testing.assert_allclose(drawn / 50, weights / weights.sum(), atol=1e-9)
    draws = reference.Draws(1, 2)
    got = np.bincount([draws.word(limits, aliases) for _ in range(20_000)], minlength=50) / 20_000
    assert np.abs(got - weights / weights.sum()).max() < 0.015


def test_keep_limits_follow_the_formula() -> None:
    counts = np.array([900, 90, 10])
    kept = reference.keep_limits(counts, 0.01) / 2**32
    np.testing.assert_allclose(kept, np.minimum(np.sqrt(10 / counts) + 10 / counts, 1), rtol=1e-6)
    assert (reference.keep_limits(counts, 0) == 2**32 - 1).all()


def test_splitmix_gives_the_published_numbers() -> None:
    draws = reference.Draws(0, 0)
    draws.state = 1234567
    assert [draws.next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_ngrams_are_fasttexts() -> None:
    inner = pytest.importorskip("gensim.models.fasttext_inner")
    for word in ("where", "a", "straße", "漢字かな", "é"):
        for min_n, max_n in ((3, 6), (1, 3), (2, 2)):
            hashes = [inner.ft_hash_bytes(ngram) % 2000 for ngram in inner.compute_ngrams_bytes(word, min_n, max_n)]
            assert reference.ngram_buckets(word, min_n, max_n, 2000) == hashes


# --- The kernels --------------------------------------------------------------------------------------------------


def make_corpus(V: int, L: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.zipf(1.5, L) - 1, V - 1).astype(np.int32)
    tokens[rng.random(L) < 0.07] = reference.BREAK
    return tokens


def make_model(V: int, D: int, tokens: np.ndarray, hs: bool = False, ngrams: int = 0, **options: Any) -> Any:
    """A model of the reference, in float64, with rows that are whole float32 numbers."""
    rng = np.random.default_rng(7)
    counts = np.maximum(np.bincount(tokens[tokens >= 0], minlength=V), 1)
    paths, codes = reference.huffman(counts)
    grams = [[int(row) for row in V + rng.integers(0, 30, ngrams)] for _ in range(V)] if ngrams else None
    limits, aliases = reference.alias_table(counts**0.75)
    options = {"window": 3, "negative": 5, **options}

    def normal(rows: int) -> np.ndarray:
        return rng.normal(0, 0.3, (rows, D)).astype(np.float32).astype(float)

    return reference.Model(
        inputs=normal(V + 30 * bool(ngrams)),
        outputs=normal(V) if options["negative"] else None,
        nodes=normal(V - 1) if hs else None,
        keep=reference.keep_limits(counts, options.pop("sample", 0.05)),
        limits=limits,
        aliases=aliases,
        paths=paths,
        codes=codes,
        grams=grams,
        **options,
    )


def padded(matrix: np.ndarray | None) -> np.ndarray | None:
    if matrix is None:
        return None
    D = matrix.shape[1]
    width = (D + STRIDE - 1) // STRIDE * STRIDE
    raw = np.zeros(len(matrix) * width + STRIDE, np.float32)
    start = -raw.ctypes.data % 64 // 4
    out = raw[start : start + len(matrix) * width].reshape(len(matrix), width)
    out[:, :D] = matrix
    return out


def begins(rows: list[Any]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([*map(len, rows)])]).astype(np.int64)


def make_trainer(model: Any, seed: int, loss: bool = True) -> tuple[Any, list[Any]]:
    arrays = [padded(model.inputs), padded(model.outputs), padded(model.nodes)]
    tree = (
        np.concatenate(model.paths).astype(np.int32),
        1 - np.concatenate(model.codes).astype(np.float32),
        begins(model.paths),
    )
    grams = None if model.grams is None else (np.concatenate(model.grams).astype(np.int32), begins(model.grams))
    aliases = np.stack([model.limits, model.aliases.view(np.uint32)], 1).copy()
    trainer = _words.Trainer(
        *arrays,
        model.keep,
        aliases,
        tree,
        grams,
        seed=seed,
        margin=model.margin,
        window=model.window,
        negative=model.negative,
        cbow=model.cbow,
        mean=model.mean,
        shrink=model.shrink,
        shared=model.shared,
        compute_loss=loss,
    )
    return trainer, arrays


CASES = [
    {},
    {"D": 16},
    {"D": 1, "window": 1},
    {"negative": 1},
    {"negative": 2},
    {"negative": 3},
    {"negative": 4},
    {"negative": 12},
    {"margin": 0.5},
    {"margin": 0.5, "hs": True, "cbow": True},
    {"shrink": False, "window": 7},
    {"shared": False},
    {"cbow": True},
    {"cbow": True, "mean": False, "D": 33},
    {"hs": True, "negative": 0},
    {"hs": True, "negative": 0, "cbow": True},
    {"hs": True},
    {"ngrams": 4},
    {"ngrams": 3, "cbow": True},
    {"ngrams": 2, "hs": True, "shared": False},
    {"V": 3, "window": 6},
]


@EVERY_ISA
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_train_as_the_reference(case: dict[str, Any], isa: str) -> None:
    case = dict(case)
    V, D = case.pop("V", 40), case.pop("D", 20)
    tokens = make_corpus(V, 300, seed=3)
    model = make_model(V, D, tokens, **case)
    in_use = _native.isa()
    _native.use_isa(isa)
    trainer, arrays = make_trainer(model, seed=11)
    _native.use_isa(in_use)
    before = [None if a is None else a.copy() for a in arrays]
    loss, wanted = 0.0, 0.0
    for begin, end in ((0, 100), (100, 200), (200, 300)):
        rate = 0.05 - 0.0001 * begin
        wanted += reference.train_task(model, tokens, begin, end, begin // 100, rate, 11, 2)
    loss = trainer.train(
        tokens, 0, 0, 300, epoch=2, task_size=100, rate=0.05, slope=0.0001, least_rate=0.001, threads=1
    )
    assert loss == pytest.approx(wanted, rel=1e-5)
    for got, old, want in zip(arrays, before, (model.inputs, model.outputs, model.nodes)):
        if want is not None:
            assert np.abs(got[:, :D] - old[:, :D]).max() > 1e-3
            np.testing.assert_allclose(got[:, :D], want, atol=2e-6)
            assert not got[:, D:].any()


@pytest.mark.parametrize("window", [1, 4])
def test_a_stretch_does_not_depend_on_where_the_tokens_at_hand_begin(window: int) -> None:
    tokens = make_corpus(30, 1000, seed=5)
    model = make_model(30, 8, tokens, window=window)
    options = {"epoch": 1, "task_size": 100, "rate": 0.05, "slope": 0.0, "least_rate": 0.0, "threads": 1}
    whole, arrays = make_trainer(model, seed=1)
    whole.train(tokens, 0, 0, 1000, **options)
    parts, others = make_trainer(model, seed=1)
    for begin in range(0, 1000, 200):
        end = begin + 200
        left = parts.left(tokens, 0, begin, 1)
        right = parts.right(tokens, 0, end, 1) if end < 1000 else 1000
        assert left <= begin and right >= end
        parts.train(tokens[left:right].copy(), left, begin - left, end - left, **options)
    for a, b in zip(arrays, others):
        np.testing.assert_array_equal(a, b)
    assert parts.right(tokens[:10], 0, 10, 1) == -1
    assert parts.left(tokens[np.arange(50, 60)], 50, 0, 1) == -1


@pytest.mark.parametrize("case", [{}, {"cbow": True}, {"hs": True}, {"ngrams": 2}], ids=str)
@pytest.mark.parametrize(
    "V", [40, 1000]
)  # words that come often, and words that come too seldom to be shared before the end
@pytest.mark.parametrize("threads", [2, 5])
def test_no_threads_changes_are_lost(threads: int, V: int, case: dict[str, Any]) -> None:
    """Threads have rows of their own for a while; what they learn has to come together in the model."""
    tokens = np.random.default_rng(9).integers(-1, V, 4000, dtype=np.int32)
    moved = []
    for count in (1, threads):
        trainer, arrays = make_trainer(make_model(V, 16, tokens, **case), seed=2)
        before = [None if a is None else a.copy() for a in arrays]
        trainer.train(tokens, 0, 0, 4000, epoch=0, task_size=100, rate=0.01, slope=0.0, least_rate=0.0, threads=count)
        moved.append([a - b for a, b in zip(arrays, before) if b is not None])
    for one, many in zip(*moved):
        assert np.linalg.norm(many - one) < 0.3 * np.linalg.norm(one)
