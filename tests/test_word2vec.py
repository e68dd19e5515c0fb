"""Word2Vec: what it learns, how it reads, what its vectors can be asked, and gensim beside it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import serialization
from fastrnn._native import _words
from fastrnn.words import KeyedVectors, Word2Vec
from fastrnn.words import corpus as corpora


def topics(sentences: int = 600, seed: int = 0) -> list[list[str]]:
    """Sentences of 10 words, each of one of three topics of 20 words."""
    rng = np.random.default_rng(seed)
    return [[f"{topic}{word}" for word in rng.integers(0, 20, 10)] for topic in rng.choice(list("abc"), sentences)]


SMALL: dict[str, Any] = {
    "vector_size": 24,
    "window": 4,
    "min_count": 1,
    "epochs": 8,
    "workers": 1,
    "seed": 3,
    "sample": 0,
}


def same_topic(wv: KeyedVectors) -> float:
    """How many of a word's nearest five are of its topic."""
    return float(np.mean([near[0] == word[0] for word in wv.index_to_key for near, _ in wv.most_similar(word, topn=5)]))


@pytest.mark.parametrize(
    "options",
    [
        {"sg": 1},
        {"sg": 1, "shared_negatives": False},
        {"sg": 0, "alpha": 0.05},
        {"sg": 0, "cbow_mean": 0},
        {"sg": 1, "hs": 1, "negative": 0},
        {"sg": 0, "hs": 1, "negative": 0, "alpha": 0.05},
        {"sg": 1, "hs": 1},
        {"sg": 1, "min_n": 1, "max_n": 2, "bucket": 500},
        {"sg": 1, "workers": 3},
    ],
    ids=str,
)
def test_words_of_a_topic_lie_together(options: dict[str, Any]) -> None:
    model = Word2Vec(topics(), **{**SMALL, **options}, compute_loss=True)
    assert same_topic(model.wv) > 0.97
    assert len(model.epoch_losses) == 8 and model.epoch_losses[-1] < 0.9 * model.epoch_losses[0]
    assert model.get_latest_training_loss() == pytest.approx(sum(model.epoch_losses))


def test_untrained_vectors_know_nothing() -> None:
    model = Word2Vec(**SMALL)
    model.build_vocab(topics())
    assert same_topic(model.wv) < 0.6


# --- Corpora ------------------------------------------------------------------------------------------------------


class Again:
    """An iterable that is no list."""

    def __init__(self, sentences: list[list[str]]) -> None:
        self.sentences = sentences

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self.sentences)


def write(path: Path, sentences: list[list[str]], end: str = "\n") -> Path:
    text = "\n".join(" ".join(sentence) for sentence in sentences) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("kept", [True, False])
def test_lists_iterables_and_files_train_the_same(kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = topics(2500)
    sentences[7] = [word for sentence in topics(1500, 5) for word in sentence]  # longer than a task
    sentences[9] = []
    options = {**SMALL, "epochs": 2, "sg": 1, "sample": 1e-2, "min_count": 3}
    wanted = Word2Vec(sentences, **options)
    if not kept:
        monkeypatch.setattr(corpora, "KEPT", 0)
        monkeypatch.setattr(corpora, "BYTES", 1000)
        monkeypatch.setattr(corpora, "PIECE", 3000)
    plain = write(tmp_path / "a.txt", sentences)
    packed = write(tmp_path / "b.txt.gz", sentences, end="")
    first, second = write(tmp_path / "c", sentences[:100]), write(tmp_path / "d", sentences[100:])
    for source in (
        {"sentences": Again(sentences)},
        {"sentences": [tuple(sentence) for sentence in sentences]},
        {"corpus_file": plain},
        {"corpus_file": str(packed)},
        {"corpus_file": [first, second]},
    ):
        model = Word2Vec(**source, **options)
        assert model.wv.index_to_key == wanted.wv.index_to_key
        assert (model.corpus_count, model.corpus_total_words) == (wanted.corpus_count, wanted.corpus_total_words)
        np.testing.assert_array_equal(model.wv.vectors, wanted.wv.vectors)


def test_files_are_split_as_python_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = "\t\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
    text = "".join(f"w{i}{space}é{space}漢{space}\u2027{space}\u200b\n" for i, space in enumerate(spaces))
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    for size in (1, 2, 3, 7, 1 << 20):
        monkeypatch.setattr(corpora, "BYTES", size)
        counts = corpora.Corpus(files=path).count()
        wanted = text.split()
        assert counts.words == {word: wanted.count(word) for word in wanted}
        assert list(counts.words) == list(dict.fromkeys(wanted))
        assert (counts.total_words, counts.sentences) == (len(wanted), text.count("\n"))


def test_counting_can_be_bounded(tmp_path: Path) -> None:
    sentences = [["often"] * 5 + [f"rare{i}"] for i in range(300)]
    for source in ({"sentences": sentences}, {"files": write(tmp_path / "a", sentences)}):
        counts = corpora.Corpus(**source).count(50)
        assert counts.words["often"] == 1500 and len(counts.words) <= 50
        assert (counts.total_words, counts.sentences) == (1800, 300)


@pytest.mark.parametrize(
    "source, error, message",
    [
        ({}, ValueError, "corpus_iterable, corpus_file: expected one of them, got none"),
        ({"corpus_iterable": [["a"]], "corpus_file": "x"}, ValueError, "got both"),
        ({"corpus_iterable": "text"}, TypeError, "corpus_iterable: expected lists of words, got str"),
        ({"corpus_iterable": ["text"]}, TypeError, "got a sentence of str; split it into words"),
        ({"corpus_iterable": [[1, 2]]}, TypeError, "got a word of int"),
        ({"corpus_iterable": iter([["a"]])}, TypeError, "can be read more than once"),
        ({"corpus_iterable": [["a"]]}, ValueError, "expected a word met at least 5 times, got 0 of 1; lower min_count"),
        ({"corpus_file": "/nowhere/at/all"}, FileNotFoundError, "nowhere"),
        ({"corpus_file": "/"}, IsADirectoryError, "corpus_file: expected a file, got the folder"),
    ],
)
def test_corpora_are_checked(source: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Word2Vec().build_vocab(**source)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"fine\nb\xffd\n")
    with pytest.raises(ValueError, match=r"bad\.txt: expected UTF-8 text, got the word"):
        Word2Vec(corpus_file=tmp_path / "bad.txt", min_count=1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vector_size": 0}, "vector_size: expected a whole number of at least 1, got 0"),
        ({"negative": 0}, "negative, hs: expected negative > 0 or hs=1"),
        ({"sg": 2}, "sg: expected 0 or 1, got 2"),
        ({"min_n": 3, "max_n": 2}, "min_n, max_n: expected 1 <= min_n <= max_n, got 3, 2"),
        ({"alpha": 0}, "alpha: expected a positive number, got 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Word2Vec(**options)


# --- The same again -----------------------------------------------------------------------------------------------


def test_same_seed_same_vectors_at_any_number_of_workers() -> None:
    options = {**SMALL, "epochs": 2, "sg": 1, "deterministic": True}
    wanted = Word2Vec(topics(4000), **options).wv.vectors
    for workers in (1, 2, 3, 8):
        before = fastrnn.get_num_threads()
        fastrnn.set_num_threads(8)
        try:
            got = Word2Vec(topics(4000), **{**options, "workers": workers}).wv.vectors
        finally:
            fastrnn.set_num_threads(before)
        np.testing.assert_array_equal(got, wanted)
    assert not np.array_equal(Word2Vec(topics(4000), **{**options, "seed": 4}).wv.vectors, wanted)


@pytest.mark.parametrize("options", [{"sg": 1}, {"hs": 1}, {"max_n": 2, "min_n": 1, "bucket": 50}], ids=str)
def test_saved_models_train_on_as_if_they_had_not_been(options: dict[str, Any], tmp_path: Path) -> None:
    model = Word2Vec(topics(), **{**SMALL, "epochs": 1, **options})
    model.save(tmp_path / "model")
    loaded = Word2Vec.load(tmp_path / "model")
    assert repr(loaded) == repr(model) and loaded.wv.get_vecattr("a1", "count") == model.wv.get_vecattr("a1", "count")
    for _ in range(2):
        np.testing.assert_array_equal(loaded.wv.vectors, model.wv.vectors)
        assert loaded.wv.most_similar("a1") == model.wv.most_similar("a1")
        model.train(topics())
        loaded.train(topics())


def test_other_files_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="call build_vocab first"):
        Word2Vec().save(tmp_path / "model")
    serialization.save_model(fastrnn.Linear(2, 2), tmp_path / "layer")
    with pytest.raises(ValueError, match="layer: expected a file of Word2Vec.save, got another fastrnn checkpoint"):
        Word2Vec.load(tmp_path / "layer")
    (tmp_path / "text").write_text("2 2\na 1 2\n")
    with pytest.raises(ValueError, match="text: expected a fastrnn checkpoint"):
        Word2Vec.load(tmp_path / "text")
    Word2Vec(topics(10), **SMALL).save(tmp_path / "model")
    arrays, config = serialization.read(tmp_path / "model")
    config["word2vec"]["options"]["vector_size"] = 25
    serialization.write(tmp_path / "model", arrays, config)
    with pytest.raises(ValueError, match=r"model: .*damaged one \(inputs: expected shape \(\d+, 25\)"):
        Word2Vec.load(tmp_path / "model")


def test_predicted_words_are_likely_ones() -> None:
    model = Word2Vec(topics(), **{**SMALL, "sg": 1})
    found = model.predict_output_word(["a1", "a2", "nowhere"], topn=5)
    assert all(word[0] == "a" and 0 < p < 1 for word, p in found)
    with pytest.raises(ValueError, match="context_words_list: expected a word of the vocabulary, got none"):
        model.predict_output_word(["nowhere"])


# --- Beside gensim ------------------------------------------------------------------------------------------------


def lee() -> list[list[str]]:
    gensim = pytest.importorskip("gensim")
    text = (Path(gensim.__file__).parent / "test" / "test_data" / "lee_background.cor").read_text(encoding="utf-8")
    return [gensim.utils.simple_preprocess(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "options",
    [
        {"sg": 1, "window": 4, "negative": 15, "epochs": 10},
        {"sg": 1, "window": 4, "hs": 1, "negative": 0, "epochs": 10},
        {"sg": 0, "alpha": 0.05, "window": 5, "negative": 15, "epochs": 10, "sample": 0},
        {"sg": 0, "alpha": 0.1, "window": 2, "hs": 1, "negative": 0, "epochs": 60},
    ],
    ids=str,
)
def test_gensims_own_checks_pass(options: dict[str, Any]) -> None:
    """What gensim's tests ask of a model of the Lee corpus: words that belong together are among the nearest."""
    model = Word2Vec(lee(), min_count=5, workers=2, seed=42, **options)
    wv = model.wv
    ranked = [word for word, _ in wv.most_similar("attacks", topn=len(wv))]
    assert ranked.index("bombings") < 50
    by_vector = wv.most_similar(positive=[wv["attacks"]], topn=51)
    assert by_vector[0][0] == "attacks" and "bombings" in [word for word, _ in by_vector]


def test_similarities_agree_with_peoples_as_gensims_do() -> None:
    gensim = pytest.importorskip("gensim")
    data = Path(gensim.__file__).parent / "test" / "test_data"
    model = Word2Vec(corpus_file=data / "head500.noblanks.cor", min_count=3, epochs=20, workers=2)
    pearson, spearman, unknown = model.wv.evaluate_word_pairs(data / "wordsim353.tsv")
    assert 0.1 < pearson[0] < 1 and 0.1 < spearman[0] < 1 and 0 < unknown < 90


def test_probabilities_are_gensims() -> None:
    models = pytest.importorskip("gensim.models")
    sentences = lee()
    ours, theirs = Word2Vec(min_count=3, hs=1), models.Word2Vec(min_count=3, hs=1)
    ours.build_vocab(sentences)
    theirs.build_vocab(sentences)
    assert set(ours.wv.index_to_key) == set(theirs.wv.index_to_key)
    assert (ours.corpus_count, ours.corpus_total_words) == (theirs.corpus_count, theirs.corpus_total_words)
    from fastrnn.words.word2vec import keep_limits

    keep = keep_limits(ours._counts, 1e-3)
    depth = np.diff(_words.huffman(ours._counts)[2])
    bits = theirs.wv.expandos["code"]
    for word in ours.wv.index_to_key:
        i = ours.wv.get_index(word)
        assert ours.wv.get_vecattr(word, "count") == theirs.wv.get_vecattr(word, "count")
        assert abs(int(keep[i]) - int(theirs.wv.get_vecattr(word, "sample_int"))) < 300
    counts = np.array([theirs.wv.get_vecattr(word, "count") for word in theirs.wv.index_to_key])
    assert (depth * ours._counts).sum() == sum(len(code) * count for code, count in zip(bits, counts))
    table = _words.alias_table(ours._counts**0.75)
    part = np.bincount(np.arange(len(table)), table[:, 0] / 2.0**32, len(table))
    part += np.bincount(table[:, 1], 1 - table[:, 0] / 2.0**32, len(table))
    wanted = np.diff(theirs.cum_table.astype(float), prepend=0) / (2**31 - 1)
    np.testing.assert_allclose(np.sort(part / len(table)), np.sort(wanted), atol=1e-7)


def test_training_goes_on_from_where_it_was() -> None:
    model = Word2Vec(**{**SMALL, "sg": 1})
    with pytest.raises(RuntimeError, match="call build_vocab first"):
        model.train(topics())
    model.build_vocab(topics())
    before = model.wv.vectors.copy()
    trained, words = model.train(topics(), epochs=3, start_alpha=0.05, end_alpha=0.01)
    assert (trained, words) == (3 * 6600, 3 * 6000)
    assert not np.array_equal(model.wv.vectors, before)
    assert same_topic(model.wv) > same_topic_of(before, model.wv)


def same_topic_of(vectors: np.ndarray, wv: KeyedVectors) -> float:
    other = KeyedVectors(wv.vector_size)
    other.set_vectors(wv.index_to_key, vectors)
    return same_topic(other)


def test_the_snippets_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "words.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/words.md", "exec"), {})
