"""How good word vectors are: questions of analogy, and similarities that people gave.

Letters: V words, D vector_size, Q questions.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .tokens import PathLike, read_lines

if TYPE_CHECKING:
    from .keyed_vectors import KeyedVectors

Array = NDArray[Any]
Question = tuple[str, str, str, str]
AT_ONCE = 256  # questions


def _known(vectors: KeyedVectors, restrict_vocab: int, case_insensitive: bool) -> dict[str, int]:
    """Numbers of the first words; where case does not count, of words in capitals, the most frequent form of each."""
    words = vectors.index_to_key[:restrict_vocab]
    pairs = ((word.upper() if case_insensitive else word, number) for number, word in enumerate(words))
    known: dict[str, int] = {}
    for word, number in pairs:
        known.setdefault(word, number)
    return known


def word_analogies(
    vectors: KeyedVectors,
    analogies: PathLike,
    restrict_vocab: int = 300_000,
    case_insensitive: bool = True,
    dummy4unknown: bool = False,
) -> tuple[float, list[dict[str, Any]]]:
    """Answer questions "a is to b as c is to d" with the word nearest to b - a + c, a, b and c aside.

    analogies: a file with a question of four words on each line, in sections that begin with ": name". restrict_vocab:
    only the first so many words count. Questions with other words are left out, or count as wrong with dummy4unknown.
    Returns the part that was answered right, and for each section (the last is of all) a dict with section, correct,
    incorrect."""
    known = _known(vectors, restrict_vocab, case_insensitive)
    spelled = list(vectors.index_to_key[:restrict_vocab])
    if case_insensitive:
        spelled = [word.upper() for word in spelled]
    sections: list[dict[str, Any]] = []
    for number, line in enumerate(read_lines(analogies), 1):
        if line.startswith(": "):
            sections.append({"section": line.lstrip(": ").strip(), "correct": [], "incorrect": [], "asked": []})
            continue
        words = tuple((line.upper() if case_insensitive else line).split())
        if len(words) != 4:
            continue
        if not sections:
            raise ValueError(f"{os.fspath(analogies)}: expected a line ': section' before line {number}, got none")
        if all(word in known for word in words):
            sections[-1]["asked"].append(words)
        elif dummy4unknown:
            sections[-1]["incorrect"].append(words)
    units = vectors.get_normed_vectors()[:restrict_vocab]
    for section in sections:
        asked: list[Question] = section.pop("asked")
        for begin in range(0, len(asked), AT_ONCE):
            some = asked[begin : begin + AT_ONCE]
            for question, answer in zip(some, _answers(units, some, known)):
                section["correct" if spelled[answer] == question[3] else "incorrect"].append(question)
    total: dict[str, Any] = {"section": "Total accuracy"}
    for key in ("correct", "incorrect"):
        total[key] = [question for section in sections for question in section[key]]
    count = len(total["correct"]) + len(total["incorrect"])
    return len(total["correct"]) / count if count else 0.0, [*sections, total]


def _answers(units: Array, questions: list[Question], known: dict[str, int]) -> list[int]:
    a, b, c = (np.array([known[question[k]] for question in questions]) for k in range(3))
    scores = (units[b] - units[a] + units[c]) @ units.T  # (Q, V)
    rows = np.arange(len(questions))
    for asked in (a, b, c):
        scores[rows, asked] = -np.inf
    answers: list[int] = scores.argmax(1).tolist()
    return answers


def word_pairs(
    vectors: KeyedVectors,
    pairs: PathLike,
    delimiter: str = "\t",
    restrict_vocab: int = 300_000,
    case_insensitive: bool = True,
    dummy4unknown: bool = False,
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Correlate similarities with those that people gave. pairs: a file with two words and a number on each line, lines
    with # aside. Returns Pearson's correlation and Spearman's, each with its two-sided p-value, and the percentage of
    pairs with unknown words, which are left out, or count as similarity 0 with dummy4unknown."""
    known = _known(vectors, restrict_vocab, case_insensitive)
    given: list[float] = []
    found: list[float] = []
    missing = 0
    units = vectors.get_normed_vectors()
    for line in read_lines(pairs):
        parts = (line.upper() if case_insensitive else line).split(delimiter)
        if line.startswith("#") or len(parts) != 3:
            continue
        try:
            value = float(parts[2])
        except ValueError:
            continue
        both = [known.get(word) for word in parts[:2]]
        if None in both:
            missing += 1
            if not dummy4unknown:
                continue
        given.append(value)
        found.append(0.0 if None in both else float(units[both[0]] @ units[both[1]]))
    if len(given) < 2:
        name = os.fspath(pairs)
        raise ValueError(f"{name}: expected at least two pairs of words that have vectors, got {len(given)}")
    of = len(given) if dummy4unknown else len(given) + missing
    x, y = np.array(given), np.array(found)
    return _correlation(x, y), _correlation(_ranks(x), _ranks(y)), 100.0 * missing / of


def _ranks(values: Array) -> Array:
    """Places in order, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def _correlation(x: Array, y: Array) -> tuple[float, float]:
    """Pearson's r and the two-sided p-value of no correlation: that of Student's t with n - 2 degrees of freedom."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    if not size:
        return math.nan, math.nan
    r = max(-1.0, min(1.0, float(x @ y) / size))
    freedom = len(x) - 2
    return r, 1.0 if not freedom else _incomplete_beta(freedom / 2, 0.5, 1 - r * r)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Abramowitz and Stegun
    26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value
