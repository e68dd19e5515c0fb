"""What tokens there are, and which number each has.

Letters: V tokens in the vocabulary, N texts, T tokens of the longest text.

Design:
a) Special tokens come first, in the order padding, unknown, start, end; then tokens by count, the most frequent first,
   ties in the order in which they were met. So padding, where there is any, is 0, and a prefix of a vocabulary is the
   vocabulary of a smaller max_size. Labels stand in the order of the alphabet, since their counts mean nothing.
b) A string is a text, a pathlib.Path a file that is read line by line: no guess what a string might be.
c) The file is JSON, so that any program can read it, written beside its place and moved there: never half a file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._validate import check_choice, check_size
from .files import write_atomically
from .tokens import PathLike, Tokenizer, Tokens, check_tokens, texts_of

Level = Literal["words", "characters", "labels"]
FORMAT, VERSION = "fastrnn.words.Vocabulary", 1
SPECIAL = ("padding", "unknown", "start", "end")


class Vocabulary:
    """Words, characters or labels with their numbers 0..V-1.

        vocabulary = Vocabulary(min_count=2).fit(texts)
        rows, lengths = vocabulary.encode_batch(texts)        # (N, T), (N,)
        vocabulary.decode(rows[0, : lengths[0]])

    level: "words" splits texts by `tokenizer`, "characters" takes each character, "labels" takes each text whole, as
    for the classes of a classifier or tagger. min_count: tokens met less often are left out. max_size: at most so many
    tokens, special ones included. padding, unknown, start, end: the special tokens, None for none; without an unknown
    token, text with a token that is not there raises. Labels have no special tokens unless they are asked for.
    tokenizer: a `Tokenizer` or any function from a text to its tokens; only a `Tokenizer` is saved with the
    vocabulary."""

    def __init__(
        self,
        *,
        level: Level = "words",
        min_count: int = 1,
        max_size: int | None = None,
        padding: str | None = "default",
        unknown: str | None = "default",
        start: str | None = None,
        end: str | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.level = check_choice("level", level, ("words", "characters", "labels"))
        self.min_count = check_size("min_count", min_count)
        self.max_size = None if max_size is None else check_size("max_size", max_size)
        plain = level == "labels"
        self.padding = (None if plain else "<pad>") if padding == "default" else padding
        self.unknown = (None if plain else "<unk>") if unknown == "default" else unknown
        self.start, self.end = start, end
        if tokenizer is not None and not callable(tokenizer):
            raise TypeError(f"tokenizer: expected a function from a text to tokens, got {type(tokenizer).__name__}")
        if tokenizer is not None and level != "words":
            raise ValueError(f"tokenizer: expected None where level is {level!r}, got {tokenizer!r}")
        self.tokenizer = Tokenizer() if tokenizer is None and level == "words" else tokenizer
        self._set_tokens([])

    # --- Making one -----------------------------------------------------------------------------------------------

    def fit(self, texts: Any) -> Vocabulary:
        """Count tokens and number them. texts: a string, a `pathlib.Path` (read line by line, gzip too), or an
        iterable of strings, paths and token lists. Replaces what was fitted before; returns the vocabulary."""
        counts: Counter[str] = Counter()
        for text in texts_of(texts):
            counts.update(self.split(text))
        for token in self.special:
            del counts[token]
        # A stable sort: ties stay in the order in which Counter met them.
        ranked = sorted(counts.items(), key=(lambda item: item[0]) if self.level == "labels" else lambda item: -item[1])
        ranked = [(token, count) for token, count in ranked if count >= self.min_count]
        if self.max_size is not None:
            ranked = ranked[: max(self.max_size - len(self.special), 0)]
        self._set_tokens([token for token, _ in ranked], [count for _, count in ranked])
        return self

    @classmethod
    def from_tokens(cls, tokens: Iterable[str], **options: Any) -> Vocabulary:
        """A vocabulary of these tokens in this order, behind the special ones. options: as in the constructor."""
        vocabulary = cls(**options)
        tokens = check_tokens("tokens: expected strings", tokens)
        if len(set(tokens)) != len(tokens):
            raise ValueError(f"tokens: expected each once, got {Counter(tokens).most_common(1)[0][0]!r} again")
        vocabulary._set_tokens([token for token in tokens if token not in vocabulary.special])
        return vocabulary

    def _set_tokens(self, tokens: list[str], counts: list[int] | None = None) -> None:
        special = [getattr(self, name) for name in SPECIAL if getattr(self, name) is not None]
        if len(set(special)) != len(special) or not all(isinstance(token, str) for token in special):
            raise ValueError(f"padding, unknown, start, end: expected different strings or None, got {special!r}")
        self.special = tuple(special)
        self.tokens = (*special, *tokens)
        self.counts = [0] * len(special) + (counts or [0] * len(tokens))
        self.index = {token: number for number, token in enumerate(self.tokens)}

    # --- Looking up -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.index

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def __getitem__(self, token: str) -> int:
        """The number of a token, of the unknown token for one that is not there; KeyError where there is none."""
        number = self.index.get(token)
        if number is None:
            if self.unknown is None:
                raise KeyError(f"token: expected one of the {len(self)} that are known, got {token!r}")
            number = self.index[self.unknown]
        return number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary(level={self.level!r}, {len(self)} tokens)"

    # --- There and back -------------------------------------------------------------------------------------------

    def split(self, text: str | Iterable[str]) -> list[str]:
        """The tokens of a text; a list of tokens stays what it is."""
        if not isinstance(text, str):
            return check_tokens("text: expected a string or a list of tokens", text)
        if self.level == "labels":
            return [text]
        return list(text) if self.level == "characters" else self.tokenizer(text)

    def encode(self, text: str | Iterable[str], *, start: bool = True, end: bool = True) -> Tokens:
        """The numbers of a text's tokens, (T,), between the start and the end token where the vocabulary has them and
        the arguments do not say otherwise. Raises ValueError for an unknown token where there is no token for it."""
        numbers = self._numbers(self.split(text))
        before = [self.index[self.start]] if start and self.start is not None else []
        after = [self.index[self.end]] if end and self.end is not None else []
        return np.array([*before, *numbers, *after], np.intp)

    def _numbers(self, tokens: list[str]) -> list[int]:
        if self.unknown is not None:
            get, unknown = self.index.get, self.index[self.unknown]
            return [get(token, unknown) for token in tokens]
        try:
            return [self.index[token] for token in tokens]
        except KeyError as error:
            raise ValueError(f"text: expected tokens that are known, got {error.args[0]!r}") from None

    def encode_batch(self, texts: Iterable[Any], length: int | None = None) -> tuple[Tokens, Tokens]:
        """Rows (N, T) filled up with padding, and the lengths (N,). length: T; longer texts are cut to it. Needs a
        padding token where texts differ in length."""
        rows = [self.encode(text) for text in ([texts] if isinstance(texts, str) else texts)]
        T = max(map(len, rows), default=0) if length is None else check_size("length", length)
        lengths = np.array([min(len(row), T) for row in rows], np.intp)
        if self.padding is None and (lengths < T).any():
            raise ValueError("texts: expected equal lengths, as the vocabulary has no padding token")
        out = np.full((len(rows), T), 0 if self.padding is None else self.index[self.padding], np.intp)
        for row, target in zip(rows, out):
            target[: len(row)] = row[:T]
        return out, lengths

    def encode_labels(self, labels: Iterable[Any], length: int | None = None, *, ignored: int = -100) -> Tokens:
        """Classes for cross_entropy: (N,) of N labels, or (N, T) of N lists of labels, filled up with `ignored`."""
        labels = list(labels)
        if all(isinstance(label, str) for label in labels):
            return np.array(self._numbers(labels), np.intp)
        rows = [self._numbers(check_tokens("labels: expected strings or lists of strings", row)) for row in labels]
        T = max(map(len, rows), default=0) if length is None else check_size("length", length)
        out = np.full((len(rows), T), ignored, np.intp)
        for row, target in zip(rows, out):
            target[: len(row)] = row[:T]
        return out

    def decode(self, numbers: Any, *, special: bool = False) -> str:
        """The text of numbers (T,): words with spaces between, characters without. Special tokens are left out unless
        `special`; what follows the end token always is."""
        return ("" if self.level == "characters" else " ").join(self.decode_tokens(numbers, special=special))

    def decode_tokens(self, numbers: Any, *, special: bool = False) -> list[str]:
        """The tokens of numbers (T,), as in `decode`."""
        tokens: list[str] = []
        hidden = set() if special else set(self.special)
        for number in self._check_numbers(numbers, 1).tolist():
            token = self.tokens[number]
            if token == self.end and not special:
                break
            if token not in hidden:
                tokens.append(token)
        return tokens

    def one_hot(self, numbers: Any, dtype: Any = np.float32) -> NDArray[Any]:
        """Numbers of any shape as vectors o_w with a 1 at the token's place: shape (..., V)."""
        numbers = self._check_numbers(numbers)
        out = np.zeros((*numbers.shape, len(self)), dtype)
        np.put_along_axis(out, numbers[..., None], 1, axis=-1)
        return out

    def _check_numbers(self, numbers: Any, dimensions: int | None = None) -> Tokens:
        numbers = np.asarray(numbers)
        if numbers.size == 0:
            numbers = numbers.astype(np.intp)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"numbers: expected whole numbers, got {numbers.dtype}")
        if dimensions is not None and numbers.ndim != dimensions:
            raise ValueError(f"numbers: expected shape (T,), got {numbers.shape}")
        wrong = numbers[(numbers < 0) | (numbers >= len(self))]
        if wrong.size:
            raise ValueError(f"numbers: expected 0..{len(self) - 1}, got {wrong.flat[0]}")
        return numbers.astype(np.intp, copy=False)

    # --- On disk --------------------------------------------------------------------------------------------------

    def _content(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("level", "min_count", "max_size", *SPECIAL)}
        tokenizer = self.tokenizer
        if isinstance(tokenizer, Tokenizer):
            tokenizer = {"pattern": tokenizer.pattern, "lowercase": tokenizer.lowercase}
        behind = len(self.special)
        return {**options, "tokenizer": tokenizer, "tokens": self.tokens[behind:], "counts": self.counts[behind:]}

    def save(self, path: PathLike) -> None:
        """Write the vocabulary as JSON (UTF-8). Raises TypeError where its tokenizer is a function of one's own."""
        if self.tokenizer is not None and not isinstance(self.tokenizer, Tokenizer):
            raise TypeError(f"tokenizer: expected a Tokenizer to be saved, got {self.tokenizer!r}")
        content = {"format": FORMAT, "version": VERSION, **self._content()}
        write_atomically(path, [json.dumps(content, ensure_ascii=False).encode()])

    @classmethod
    def load(cls, path: PathLike) -> Vocabulary:
        """Read what `save` wrote. ValueError, with the file's name, for anything else."""
        name = os.fspath(path)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}: expected a vocabulary in JSON, got a file that is none ({error})") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{name}: expected a file of Vocabulary.save, got other JSON")
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(
                f"{name}: expected a vocabulary of version {VERSION}, got {version!r}; a newer fastrnn may read it"
            )
        try:
            tokens, counts, tokenizer = content.pop("tokens"), content.pop("counts"), content.pop("tokenizer")
            if len(tokens) != len(counts) or not all(type(count) is int for count in counts):
                raise ValueError(f"counts: expected {len(tokens)} whole numbers")
            vocabulary = cls.from_tokens(tokens, tokenizer=tokenizer and Tokenizer(**tokenizer), **content)
            if len(vocabulary) != len(tokens) + len(vocabulary.special):
                raise ValueError("tokens: expected no special ones among them")
            vocabulary._set_tokens(tokens, counts)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a complete vocabulary, got a damaged one ({error})") from None
        return vocabulary
