"""Word vectors and texts from bad files, and bad words: one error each, which says what is wrong, with the name."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn.models import read_texts
from fastrnn.words import KeyedVectors, Vocabulary, Word2Vec

SMALL: dict[str, Any] = {"vector_size": 4, "min_count": 1, "epochs": 1, "workers": 1}
SENTENCES = [["a", "b", "c", "d"] * 5] * 20
READERS: dict[str, Any] = {
    "text": KeyedVectors.load_word2vec_format,
    "binary": lambda path: KeyedVectors.load_word2vec_format(path, binary=True),
    "corpus": lambda path: Word2Vec(corpus_file=path, **SMALL),
    "vocabulary": lambda path: Vocabulary().fit(Path(path)),
    "texts": lambda path: read_texts([path]),
}


def packed(kind: str) -> bytes:
    words = b"".join(b"word%d %d %d\n" % (i, i, i) for i in range(500))
    rows = b"".join(b"word%d " % i + bytes(8) for i in range(500))
    return gzip.compress({"text": b"500 2\n" + words, "binary": b"500 2\n" + rows}.get(kind, words))


@pytest.mark.parametrize("damage", ["cut short", "no gzip", "a wrong byte"])
@pytest.mark.parametrize("kind", READERS)
def test_damaged_gzip_files_are_named(kind: str, damage: str, tmp_path: Path) -> None:
    data, path = packed(kind), tmp_path / "file.gz"
    path.write_bytes(data)
    READERS[kind](path)  # as long as it is whole
    middle = len(data) // 2
    wrong = data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]
    path.write_bytes({"cut short": data[: len(data) - 9], "no gzip": b"a 1 2\n", "a wrong byte": wrong}[damage])
    with pytest.raises(ValueError, match=r"file\.gz: expected .*") as caught:
        READERS[kind](path)
    assert damage == "a wrong byte" or "a gzip file, got a damaged one" in str(caught.value)


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_a_mark_before_utf_8_is_no_part_of_the_first_word(name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    def write(text: str) -> None:
        data = text.encode("utf-8-sig")
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    write("a b\r\na b\r\n")
    assert sorted(Word2Vec(corpus_file=path, **SMALL).wv.index_to_key) == ["a", "b"]
    assert read_texts([path]) == "a b\na b"
    assert "a" in Vocabulary().fit(path)
    write("2 2\na 1 2\nb 3 4\n")
    np.testing.assert_array_equal(KeyedVectors.load_word2vec_format(path)["b"], [3, 4])


@pytest.mark.parametrize(
    ("text", "binary"),
    [
        (b"1 " + b"1" * 5000 + b"\na 1\n", False),  # more digits than Python reads
        (b"9999999 1\na 1\n", False),
        (b"99999999999 99999999999\n", True),
        (b"1 2\na 1 1e99\n", False),  # no float32
        (b"1 2\na 1 x\n", False),
    ],
    ids=["digits", "rows", "size", "float32", "number"],
)
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_numbers_beyond_reason(text: bytes, binary: bool, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"{name}: expected"):
            KeyedVectors.load_word2vec_format(path, binary=binary)


def test_words_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    vectors = KeyedVectors(2)
    vectors.set_vectors(["a\ud800"], np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="words that UTF-8 can hold"):
        vectors.save_word2vec_format(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Word2Vec(SENTENCES, **SMALL, seed=2**64), ValueError, r"seed: expected a whole number below 2\*\*64"),
        (
            lambda: Word2Vec(SENTENCES, **SMALL, alpha=1e30),
            FloatingPointError,
            "alpha: expected one .* stay finite, got 1e",
        ),
        (lambda: Word2Vec([[["a"], "b"]], **SMALL), TypeError, "lists of words, got a word of list"),
        (lambda: Word2Vec(**SMALL).build_vocab_from_freq({"a": 2**62}), ValueError, "word_freq: expected counts"),
        (lambda: Word2Vec(**SMALL).build_vocab_from_freq({"a": "x"}), TypeError, "word_freq: expected"),
        (
            lambda: Word2Vec(SENTENCES, **SMALL).train([["x"]], epochs=1),
            ValueError,
            "words of the vocabulary, got none",
        ),
        (lambda: Word2Vec(SENTENCES, **SMALL).train([], epochs=1), ValueError, "words of the vocabulary, got none"),
        (lambda: Word2Vec(SENTENCES, **SMALL).wv[5], TypeError, "key: expected a word or several, got int"),
        (
            lambda: Word2Vec(SENTENCES, **SMALL).wv.most_similar(np.full(4, np.nan)),
            ValueError,
            "vector: expected finite numbers",
        ),
    ],
)
def test_bad_words_and_numbers(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("exponent", [1000.0, -1000.0])
def test_any_exponent_of_the_negative_words(exponent: float) -> None:
    """Far out, only the most or the least frequent words are drawn."""
    text = [["a"] * 3 + ["b"]] * 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Word2Vec(text, **SMALL, ns_exponent=exponent, sample=0)
    assert np.isfinite(model.wv.vectors).all()
