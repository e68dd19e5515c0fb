"""Vocabularies, the tokeniser, windows of a text."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn.words import Tokenizer, Vocabulary, streams, windows

TEXTS = ["the cat sat", "the dog sat on the cat", "a bird"]


def test_tokenizer_splits_words_and_punctuation() -> None:
    assert Tokenizer()("Don't stop, me now…") == ["Don't", "stop", ",", "me", "now", "…"]
    assert Tokenizer(r"\S+", lowercase=True)(" Über  DAS\tHaus\n") == ["über", "das", "haus"]
    assert Tokenizer()("") == []


def test_tokenizer_pickles_and_compares() -> None:
    tokenizer = Tokenizer(r"[a-z]+", lowercase=True)
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer != Tokenizer()
    assert len({tokenizer, Tokenizer(r"[a-z]+", lowercase=True)}) == 1


@pytest.mark.parametrize(
    "pattern, error, message",
    [
        (3, TypeError, "pattern: expected a regular expression as a string, got int"),
        ("(", ValueError, r"pattern: expected a regular expression, got '\('"),
        ("(a)(b)", ValueError, r"pattern: expected no groups"),
        ("a*", ValueError, r"pattern: expected one that matches some text"),
    ],
)
def test_tokenizer_refuses(pattern: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Tokenizer(pattern)
    with pytest.raises(TypeError, match="text: expected a string, got int"):
        Tokenizer()(3)  # type: ignore[arg-type]


def test_tokens_stand_by_count_behind_the_special_ones() -> None:
    vocabulary = Vocabulary().fit(TEXTS)
    assert vocabulary.tokens == ("<pad>", "<unk>", "the", "cat", "sat", "dog", "on", "a", "bird")
    assert vocabulary.counts == [0, 0, 3, 2, 2, 1, 1, 1, 1]
    assert [vocabulary[token] for token in ("<pad>", "the", "fish")] == [0, 2, 1]
    assert "cat" in vocabulary and "fish" not in vocabulary and len(vocabulary) == 9


def test_min_count_and_max_size() -> None:
    assert Vocabulary(min_count=2).fit(TEXTS).tokens[2:] == ("the", "cat", "sat")
    assert Vocabulary(max_size=4).fit(TEXTS).tokens == ("<pad>", "<unk>", "the", "cat")
    assert Vocabulary(max_size=1).fit(TEXTS).tokens == ("<pad>", "<unk>")  # special tokens are never left out
    everything = Vocabulary().fit(TEXTS).tokens
    for size in range(2, 9):
        assert Vocabulary(max_size=size).fit(TEXTS).tokens == everything[:size]


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary(start="<s>", end="</s>").fit(TEXTS)
    numbers = vocabulary.encode("the fish sat")
    assert numbers.dtype == np.intp
    assert vocabulary.decode(numbers) == "the sat"
    assert vocabulary.decode(numbers, special=True) == "<s> the <unk> sat </s>"
    assert vocabulary.encode("the", start=False).tolist() == [4, 3]
    assert vocabulary.encode(["the"], end=False).tolist() == [2, 4]
    assert vocabulary.decode([4, 3, 4]) == "the"  # nothing behind the end
    assert vocabulary.decode([]) == ""


def test_characters_come_back_as_they_were() -> None:
    text = "Ünïcode\n\ttabs, 漢字 and 🙂"
    vocabulary = Vocabulary(level="characters", padding=None, unknown=None).fit(text)
    assert len(vocabulary) == len(set(text))
    assert vocabulary.decode(vocabulary.encode(text)) == text
    with pytest.raises(ValueError, match="text: expected tokens that are known, got 'x'"):
        vocabulary.encode("x")
    with pytest.raises(KeyError, match="got 'x'"):
        vocabulary["x"]


def test_batches() -> None:
    vocabulary = Vocabulary().fit(TEXTS)
    rows, lengths = vocabulary.encode_batch(TEXTS)
    assert rows.shape == (3, 6) and lengths.tolist() == [3, 6, 2]
    for row, length, text in zip(rows, lengths, TEXTS):
        assert vocabulary.decode(row[:length]) == text
        assert not row[length:].any()
    rows, lengths = vocabulary.encode_batch(TEXTS, 4)
    assert rows.shape == (3, 4) and lengths.tolist() == [3, 4, 2]
    unpadded = Vocabulary(padding=None).fit(TEXTS)
    assert unpadded.encode_batch(["the cat", "a dog"])[0].shape == (2, 2)
    with pytest.raises(ValueError, match="texts: expected equal lengths"):
        unpadded.encode_batch(TEXTS)


def test_labels() -> None:
    classes = Vocabulary(level="labels").fit(["spam", "ham", "spam and eggs"])
    assert classes.tokens == ("ham", "spam", "spam and eggs")
    assert classes.encode_labels(["spam", "ham"]).tolist() == [1, 0]
    tags = Vocabulary(level="labels").fit([["NOUN", "VERB"], ["NOUN"]])
    assert tags.encode_labels([["VERB", "NOUN"], ["NOUN"]]).tolist() == [[1, 0], [0, -100]]
    with pytest.raises(ValueError, match="got 'ADV'"):
        tags.encode_labels([["ADV"]])


def test_one_hot() -> None:
    vocabulary = Vocabulary().fit(TEXTS)
    numbers = np.array([[2, 0], [8, 3]])
    np.testing.assert_array_equal(vocabulary.one_hot(numbers), np.eye(9, dtype=np.float32)[numbers])
    assert vocabulary.one_hot([], np.float64).shape == (0, 9)
    with pytest.raises(ValueError, match=r"numbers: expected 0\.\.8, got 9"):
        vocabulary.one_hot([9])
    with pytest.raises(TypeError, match="numbers: expected whole numbers, got float64"):
        vocabulary.decode([0.5])


def test_fits_from_files_line_by_line(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    plain.write_text("the cat sat\nthe dog sat on the cat\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(b"a bird\r\n"))
    assert Vocabulary().fit([plain, packed]) == Vocabulary().fit(TEXTS)
    assert Vocabulary().fit(plain) == Vocabulary().fit(TEXTS[:2])
    (tmp_path / "c.txt").write_bytes(b"fine\nnot \xff\n")
    with pytest.raises(ValueError, match=r"c\.txt: expected UTF-8 text, .*line 2"):
        Vocabulary().fit(tmp_path / "c.txt")


@pytest.mark.parametrize("texts", [3, b"bytes", [3], [b"bytes"], [["a", 3]]])
def test_fit_refuses_what_is_no_text(texts: Any) -> None:
    with pytest.raises(TypeError, match="texts: expected texts, paths or lists of tokens, got"):
        Vocabulary().fit(texts)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="level: expected one of"):
        Vocabulary(level="syllables")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding, unknown, start, end: expected different strings"):
        Vocabulary(start="<pad>")
    with pytest.raises(ValueError, match="tokenizer: expected None where level is 'characters'"):
        Vocabulary(level="characters", tokenizer=str.split)
    with pytest.raises(TypeError, match="tokenizer: expected a function"):
        Vocabulary(tokenizer="words")
    with pytest.raises(ValueError, match="tokens: expected each once, got 'a' again"):
        Vocabulary.from_tokens(["a", "b", "a"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": "characters", "unknown": None},
        {"level": "labels"},
        {"start": "^", "end": "$", "min_count": 2, "max_size": 6, "tokenizer": Tokenizer(r"\w", lowercase=True)},
    ],
)
def test_save_and_load(options: dict[str, Any], tmp_path: Path) -> None:
    vocabulary = Vocabulary(**options).fit([*TEXTS, "漢字"])
    vocabulary.save(tmp_path / "v.json")
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded == vocabulary and loaded.counts == vocabulary.counts
    assert loaded.encode(TEXTS[0]).tolist() == vocabulary.encode(TEXTS[0]).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]


def test_load_names_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    Vocabulary().fit(TEXTS).save(path)
    whole = path.read_bytes()
    content = json.loads(whole)
    cases = [
        (whole[:50], "a file that is none"),
        (b"\xff\xfe", "a file that is none"),
        (b"[]", "other JSON"),
        (json.dumps({**content, "version": 2}).encode(), "of version 1, got 2"),
        (json.dumps({**content, "counts": [1]}).encode(), "a damaged one"),
        (json.dumps({**content, "tokens": [*content["tokens"][:-1], "<pad>"]}).encode(), "a damaged one"),
        (json.dumps({**content, "surprise": 1}).encode(), "a damaged one"),
    ]
    for data, message in cases:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"v\.json: expected .*{message}"):
            Vocabulary.load(path)
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "none.json")


def test_a_tokenizer_of_ones_own_is_not_saved_in_silence(tmp_path: Path) -> None:
    vocabulary = Vocabulary(tokenizer=str.split).fit(TEXTS)
    with pytest.raises(TypeError, match="tokenizer: expected a Tokenizer to be saved"):
        vocabulary.save(tmp_path / "v.json")
    assert not list(tmp_path.iterdir())


def test_windows() -> None:
    x, y = windows(np.arange(11), 5)
    assert x.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    np.testing.assert_array_equal(y, x + 1)
    x, y = windows(range(8), 5, step=1)
    assert x[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(y, x + 1)
    x[:] = -1  # copies, no views of one row
    assert y[0, 0] == 1
    with pytest.raises(ValueError, match="tokens: expected at least length \\+ 1 = 6, got 5"):
        windows(range(5), 5)
    with pytest.raises(TypeError, match="encode texts with a Vocabulary"):
        windows("text", 2)


def test_streams_go_on_in_the_next_row() -> None:
    x, y = streams(np.arange(11), 3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    np.testing.assert_array_equal(y, x + 1)
    with pytest.raises(ValueError, match="tokens: expected at least batch_size \\+ 1 = 12, got 11"):
        streams(np.arange(11), 11)
    with pytest.raises(ValueError, match=r"tokens: expected shape \(L,\), got \(2, 2\)"):
        streams(np.zeros((2, 2), int), 1)
