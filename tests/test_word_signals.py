"""Ctrl-C while word vectors are trained: it acts at once, and what was learned until then is there."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.words import Word2Vec

AT_ONCE = 0.2  # seconds
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


class Stop(BaseException):
    """As KeyboardInterrupt, but not the user's."""


@pytest.fixture
def stop_after() -> Iterator[Any]:
    """stop_after(delay): raises Stop in the main thread once so many seconds have gone by."""

    def stop(*_: Any) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    yield lambda delay: signal.setitimer(signal.ITIMER_REAL, delay)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    yield
    fastrnn.set_num_threads(before)


def sentences(tokens: int = 100_000) -> list[list[str]]:
    return [[str(word) for word in np.random.default_rng(0).zipf(1.3, tokens) % 1000]]


SLOW = {"vector_size": 512, "window": 10, "negative": 60, "sample": 0, "min_count": 1, "epochs": 1, "sg": 1}
KINDS: dict[str, dict[str, Any]] = {
    "skip-gram": {"workers": 1},
    "two threads": {"workers": 2},
    "each pair alone": {"workers": 1, "shared_negatives": False},
    "CBOW": {"workers": 1, "sg": 0, "epochs": 100},
    "hierarchical softmax": {"workers": 1, "hs": 1, "negative": 0, "epochs": 100},
    "n-grams": {"workers": 1, "min_n": 1, "max_n": 3, "bucket": 1000},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("two_threads")
def test_training_stops_at_once_and_the_model_is_whole(kind: str, stop_after: Any) -> None:
    text = sentences()
    model = Word2Vec(**{**SLOW, **KINDS[kind]}, compute_loss=True)
    model.build_vocab(text)
    before = model.wv.vectors.copy()
    late = []
    for delay in (0.3, 0.5, 0.7):  # a machine with other work to do may need a second try
        stop_after(delay)
        begin = time.perf_counter()
        with pytest.raises(Stop):
            model.train(text, epochs=1000)
        late.append(time.perf_counter() - begin - delay)
        if late[-1] < AT_ONCE:
            break
    assert min(late) < AT_ONCE
    assert np.isfinite(model.wv.vectors).all() and not np.array_equal(model.wv.vectors, before)
    units = model.wv.get_vector("1", norm=True)
    np.testing.assert_allclose(np.linalg.norm(units), 1, rtol=1e-5)  # of the vectors as they are now
    assert model.wv.most_similar("1", topn=3)
    short = [text[0][:2000]]
    model.train(short, epochs=1, start_alpha=0.001)
    assert len(model.epoch_losses) == 1


def test_counting_one_endless_sentence_stops(stop_after: Any) -> None:
    text = [["a", "b", "c", "d"] * 3_000_000]
    begin = time.perf_counter()
    stop_after(0.15)
    with pytest.raises(Stop):
        while True:
            Word2Vec(min_count=1).build_vocab(text)
    assert time.perf_counter() - begin < 0.15 + 2 * AT_ONCE
