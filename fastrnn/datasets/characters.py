"""Characters: texts as integer tokens and back. The reserved tokens are those of all tasks on pairs of sequences.

Letters: N texts, T source steps, T' target steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PADDING, START, END = 0, 1, 2  # fills up sources; what a decoder reads first; the last token of each target
IGNORED = -100  # fills up targets behind END: `fastrnn.losses.cross_entropy` leaves it out
RESERVED = 3  # the first token that stands for something


class Characters:
    """Tokens of single characters: those of `alphabet`, in its order, behind the reserved ones."""

    def __init__(self, alphabet: str) -> None:
        if not isinstance(alphabet, str) or not alphabet or len(set(alphabet)) != len(alphabet):
            raise ValueError(f"alphabet: expected a string of different characters, got {alphabet!r}")
        self.alphabet = alphabet
        self._token = {character: RESERVED + k for k, character in enumerate(alphabet)}

    def __len__(self) -> int:
        """The size of the vocabulary, reserved tokens included."""
        return RESERVED + len(self.alphabet)

    def source(self, texts: Sequence[str], width: int | None = None) -> Array:
        """Tokens (N, T) filled up with PADDING to the longest text, or to width."""
        return self._tokens([[*map(self._of, text)] for text in texts], PADDING, width)

    def targets(self, texts: Sequence[str]) -> Array:
        """Tokens (N, T') with END behind each text, then IGNORED."""
        return self._tokens([[*map(self._of, text), END] for text in texts], IGNORED, None)

    def texts(self, tokens: Array) -> list[str]:
        """The text of each row, up to its END; reserved tokens before it are left out."""
        texts = []
        for row in np.asarray(tokens).tolist():
            row = row[: row.index(END)] if END in row else row
            texts.append("".join(self.alphabet[token - RESERVED] for token in row if token >= RESERVED))
        return texts

    def _of(self, character: str) -> int:
        if character not in self._token:
            raise ValueError(f"texts: expected characters of {self.alphabet!r}, got {character!r}")
        return self._token[character]

    def _tokens(self, rows: list[list[int]], fill: int, width: int | None) -> Array:
        longest = max(map(len, rows), default=0)
        if width is not None and width < longest:
            raise ValueError(f"width: expected at least {longest}, got {width}")
        tokens = np.full((len(rows), width or longest), fill)
        for row, values in zip(tokens, rows):
            row[: len(values)] = values
        return tokens
