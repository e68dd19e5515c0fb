"""Vectors by their words: look-ups, nearness, judgements, files; against gensim where it is installed."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.words import KeyedVectors, SubwordVectors, Vocabulary, Word2Vec

WORDS = ["king", "queen", "man", "woman", "straße", "漢字", "a,b", "Paris"]


def some_vectors(words: list[str] | None = None, D: int = 7) -> KeyedVectors:
    words = words or WORDS
    wv = KeyedVectors(D)
    wv.set_vectors(words, np.random.default_rng(0).normal(size=(len(words), D)).astype(np.float32))
    return wv


def gensims(wv: KeyedVectors) -> Any:
    models = pytest.importorskip("gensim.models")
    other = models.KeyedVectors(wv.vector_size)
    other.add_vectors(wv.index_to_key, wv.vectors)
    return other


# --- Look-ups -----------------------------------------------------------------------------------------------------


def test_look_ups() -> None:
    wv = some_vectors()
    assert len(wv) == 8 and "king" in wv and "prince" not in wv
    np.testing.assert_array_equal(wv["queen"], wv.vectors[1])
    np.testing.assert_array_equal(wv[["queen", "king"]], wv.vectors[[1, 0]])
    assert wv[[]].shape == (0, 7)
    assert np.linalg.norm(wv.get_vector("man", norm=True)) == pytest.approx(1)
    assert wv.get_index("man") == 2 and wv.get_index("prince", 5) == 5
    wv["queen"][:] = 0  # a copy
    assert wv.vectors[1].any()
    for ask in (wv.get_vector, wv.get_index, lambda key: wv.most_similar(key), lambda key: wv.similarity(key, "king")):
        with pytest.raises(KeyError, match="expected one of the 8 words that have vectors, got 'prince'"):
            ask("prince")


def test_bad_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vectors: expected real numbers of shape \(2, 7\), got float64 of \(3, 7\)"):
        KeyedVectors(7).set_vectors(["a", "b"], np.zeros((3, 7)))
    with pytest.raises(ValueError, match="words: expected each once"):
        KeyedVectors(7).set_vectors(["a", "a"], np.zeros((2, 7)))
    with pytest.raises(ValueError, match=r"vector: expected shape \(7,\), got \(3,\)"):
        some_vectors().similar_by_vector(np.ones(3))
    with pytest.raises(ValueError, match="positive, negative: expected words or vectors, got none"):
        some_vectors().most_similar()


def test_a_zero_vector_is_near_nothing() -> None:
    wv = KeyedVectors(2)
    wv.set_vectors(["a", "b", "zero"], np.array([[1, 0], [1, 1], [0, 0]], np.float32))
    assert wv.most_similar("a", topn=2) == [("b", pytest.approx(0.5**0.5)), ("zero", 0.0)]
    assert wv.most_similar("zero", topn=1)[0][1] == 0


def test_added_vectors() -> None:
    wv = some_vectors()
    wv.most_similar("king")
    wv.add_vectors(["prince", "king"], np.ones((2, 7)))
    assert len(wv) == 9 and (wv["prince"] == 1).all() and not (wv["king"] == 1).all()
    assert wv.most_similar("prince", topn=8)
    wv.add_vectors(["king"], np.ones((1, 7)), replace=True)
    assert wv.similarity("king", "prince") == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # within gensim
def test_answers_are_gensims() -> None:
    wv = some_vectors()
    other = gensims(wv)

    def same(got: Any, wanted: Any) -> None:
        if isinstance(wanted, list) and wanted and isinstance(wanted[0], tuple):
            assert [word for word, _ in got] == [word for word, _ in wanted]
            got, wanted = [score for _, score in got], [score for _, score in wanted]
        if isinstance(wanted, str) or (isinstance(wanted, list) and wanted and isinstance(wanted[0], str)):
            assert got == wanted
        else:
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)

    asks: list[Any] = [
        lambda v: v.similarity("king", "queen"),
        lambda v: v.distance("king", "queen"),
        lambda v: v.distances("king"),
        lambda v: v.distances("king", ["queen", "man"]),
        lambda v: v.n_similarity(["king", "man"], ["queen", "woman", "漢字"]),
        lambda v: v.most_similar("king"),
        lambda v: v.most_similar(["king", "woman"], ["man"], topn=3),
        lambda v: v.most_similar(positive=[wv.vectors[0], "woman"], negative=["man"]),
        lambda v: v.most_similar([("king", 2.0), "woman"], [("man", -0.5)]),
        lambda v: v.most_similar("king", topn=None),
        lambda v: v.most_similar("king", restrict_vocab=4),
        lambda v: v.most_similar("king", clip_start=2, clip_end=6),
        lambda v: v.most_similar_cosmul(["king", "woman"], ["man"]),
        lambda v: v.similar_by_vector(wv.vectors[3], topn=2),
        lambda v: v.doesnt_match(["king", "queen", "漢字"]),
        lambda v: v.rank("king", "queen"),
        lambda v: v.closer_than("king", "man"),
        lambda v: v.get_mean_vector(["king", "queen"], [0.5, 2.0]),
        lambda v: v.get_normed_vectors(),
    ]
    for ask in asks:
        same(ask(wv), ask(other))


# --- Judgements ---------------------------------------------------------------------------------------------------


def write_questions(path: Path) -> Path:
    path.write_text(
        ": royal\nking queen man woman\nQUEEN king woman MAN\nking queen boy girl\nnot four\n"
        ": other\nking man queen woman\nParis straße 漢字 a,b\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("options", [{}, {"dummy4unknown": True}, {"case_insensitive": False}, {"restrict_vocab": 5}])
def test_analogies_are_judged_as_gensim_does(options: dict[str, Any], tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.txt")
    wv = some_vectors()
    wv.vectors[3] = wv.vectors[1] - wv.vectors[0] + wv.vectors[2]
    wv.refresh()
    score, sections = wv.evaluate_word_analogies(path, **options)
    assert score > 0 and sections[-1]["section"] == "Total accuracy"
    assert (score, sections) == gensims(wv).evaluate_word_analogies(str(path), **options)


@pytest.mark.parametrize("options", [{}, {"dummy4unknown": True}, {"case_insensitive": False}])
def test_pairs_are_judged_as_gensim_does(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "# words\nking\tqueen\t8.5\nKing\tman\t5\nman\twoman\t5\nboy\tgirl\t7\nparis\t漢字\t1\nqueen\tman\t3\nx\n"
    )
    wv = some_vectors()
    got = wv.evaluate_word_pairs(path, **options)
    wanted = gensims(wv).evaluate_word_pairs(str(path), **options)
    np.testing.assert_allclose([*got[0], *got[1], got[2]], [*wanted[0], *wanted[1], wanted[2]], rtol=1e-5)


def test_questions_without_a_section_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("king queen man woman\n")
    with pytest.raises(ValueError, match=r"q\.txt: expected a line ': section' before line 1, got none"):
        some_vectors().evaluate_word_analogies(tmp_path / "q.txt")
    (tmp_path / "p.tsv").write_text("x\ty\t1\n")
    with pytest.raises(ValueError, match=r"p\.tsv: expected at least two pairs of words that have vectors, got 0"):
        some_vectors().evaluate_word_pairs(tmp_path / "p.tsv")


# --- Files --------------------------------------------------------------------------------------------------------

FORMATS = [
    ("v.txt", {}, {}),
    ("v.bin", {"binary": True}, {"binary": True}),
    ("glove.txt", {"write_header": False}, {"no_header": True}),
    ("v.vec.gz", {}, {}),
    ("v.bin.gz", {"binary": True}, {"binary": True}),
]
every_format = pytest.mark.parametrize("name, saved, loaded", FORMATS, ids=[case[0] for case in FORMATS])


@every_format
def test_files_come_back_bit_for_bit(name: str, saved: Any, loaded: Any, tmp_path: Path) -> None:
    wv = some_vectors()
    wv.vectors[0] *= 1e-30
    wv.vectors[1] *= 1e30
    wv.save_word2vec_format(tmp_path / name, **saved)
    got = KeyedVectors.load_word2vec_format(tmp_path / name, **loaded)
    assert got.index_to_key == WORDS
    np.testing.assert_array_equal(got.vectors, wv.vectors)
    assert KeyedVectors.load_word2vec_format(tmp_path / name, limit=3, **loaded).index_to_key == WORDS[:3]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gensim leaves a file open
@every_format
def test_gensim_reads_and_writes_the_same(name: str, saved: Any, loaded: Any, tmp_path: Path) -> None:
    wv = some_vectors()
    other = gensims(wv)
    wv.save_word2vec_format(tmp_path / name, **saved)
    read = type(other).load_word2vec_format(str(tmp_path / name), **loaded)
    assert read.index_to_key == WORDS
    np.testing.assert_array_equal(read.vectors, wv.vectors)
    other.save_word2vec_format(str(tmp_path / f"gensim.{name}"), **saved)
    np.testing.assert_array_equal(
        KeyedVectors.load_word2vec_format(tmp_path / f"gensim.{name}", **loaded).vectors, wv.vectors
    )


def test_odd_files_that_others_write(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"2 3\nde 1 2 3 \n</s> -1e-3 .5 6 \n")  # fastText ends lines with a space
    assert KeyedVectors.load_word2vec_format(path)["de"].tolist() == [1, 2, 3]
    path.write_bytes(b". . . 1 2\nword 3 4\n")  # GloVe has words with spaces; the first line tells the size
    with pytest.raises(ValueError, match="expected a word and 4 numbers in line 1"):
        KeyedVectors.load_word2vec_format(path, no_header=True)
    path.write_bytes(b"word 3 4\n. . . 1 2\nword 5 6\n")
    glove = KeyedVectors.load_word2vec_format(path, no_header=True)
    assert glove.index_to_key == ["word", ". . ."] and glove["word"].tolist() == [3, 4]  # the first of two counts
    numbers = np.arange(4, dtype="<f4")
    path.write_bytes(
        b"2 2\na " + numbers[:2].tobytes() + b"\nb " + numbers[2:].tobytes() + b"\n"
    )  # word2vec's own tool
    assert KeyedVectors.load_word2vec_format(path, binary=True)["b"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "data, options, message",
    [
        (b"", {}, "expected a first line with two whole numbers, got ''"),
        (b"word 1 2\n", {}, "expected a first line with two whole numbers, got 'word 1 2'"),
        (b"2 0\n", {}, "expected vectors of at least one number, got 0"),
        (b"99999999999 300\nword 1\n", {}, "expected at least .* bytes for 99999999999 vectors of 300 numbers"),
        (b"2 2\na 1 2\nb 3 x\n", {}, "expected a word and 2 numbers in line 3, got 'b 3 x'"),
        (b"2 2\na 1 2\nb3\n     ", {}, "expected a word and 2 numbers in line 3"),
        (b"2 2\na 1 2          \n", {}, "expected 2 vectors, got 1; the file is cut short"),
        (b"1 2\n\xff 1 2\n", {}, "expected UTF-8 text"),
        (b"2 1\na \0\0\0\0b \0\0", {"binary": True}, "the file is cut short"),
        (b"1 1\n\xff \0\0\0\0", {"binary": True}, "expected UTF-8 text"),
        (b"word\n", {"no_header": True}, "expected a word and its numbers in the first line, got 'word'"),
    ],
)
def test_damaged_files_are_named(data: bytes, options: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"vectors: .*{message}"):
        KeyedVectors.load_word2vec_format(path, **options)
    if not data.startswith(b"9999") and b"0\n" not in data[:4]:
        (tmp_path / "vectors.gz").write_bytes(gzip.compress(data))
        with pytest.raises(ValueError, match="vectors.gz: "):
            KeyedVectors.load_word2vec_format(tmp_path / "vectors.gz", **options)


def test_words_with_spaces_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words: expected words without white space, got 'New York'"):
        some_vectors(["New York", "b"]).save_word2vec_format(tmp_path / "v")
    assert not list(tmp_path.iterdir())


# --- With the rest of the library ---------------------------------------------------------------------------------


def test_words_without_a_vector_get_one_from_their_ngrams() -> None:
    model = Word2Vec([["walking", "talking", "walked"]] * 30, min_count=1, vector_size=8, min_n=3, max_n=5, bucket=300)
    wv = model.wv
    assert isinstance(wv, SubwordVectors)
    assert "walks" in wv and "walks" not in wv.key_to_index
    rows, begins = model._grams
    own = [model._inputs[0, :8], *model._inputs[rows[begins[0] : begins[1]], :8]]
    np.testing.assert_allclose(wv[wv.index_to_key[0]], np.mean(own, 0), rtol=1e-5)
    with pytest.raises(KeyError, match="expected a word with n-grams of 3 to 5 characters, got ''"):
        wv[""]


@pytest.mark.parametrize("word", ["where", "a", "straße", "漢字"])
def test_ngrams_of_the_compiled_code_are_the_references(word: str) -> None:
    from fastrnn._native import _words
    from fastrnn.reference.words import ngram_buckets

    for min_n, max_n in ((1, 2), (3, 6), (2, 4)):
        rows, begins = _words.ngram_rows(["x", word], min_n, max_n, 1000, 5)
        assert (rows[begins[1] :] - 5).tolist() == ngram_buckets(word, min_n, max_n, 1000)


def test_a_layer_starts_from_the_vectors() -> None:
    wv = some_vectors()
    vocabulary = Vocabulary().fit([["king", "queen", "king"]])
    if not hasattr(fastrnn.Embedding, "from_pretrained"):
        pytest.skip("this version has no Embedding.from_pretrained")
    layer = fastrnn.Embedding.from_pretrained(wv, vocabulary)
    np.testing.assert_allclose(layer.params["weight"][vocabulary["king"]], wv["king"], rtol=1e-6)
