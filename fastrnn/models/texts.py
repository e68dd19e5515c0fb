"""Texts to train on: files, or one that every Python has."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..words.tokens import read_lines


def read_texts(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The text of UTF-8 files, gzipped where a name ends in .gz, one behind the other with a new line between.

    Raises OSError for a file that cannot be read, ValueError that names a file of no UTF-8 text or without any."""
    texts = []
    for path in paths:
        texts.append("\n".join(read_lines(path)))
        if not texts[-1].strip():
            raise ValueError(f"{os.fspath(path)}: expected some text, got none")
    return "\n".join(texts)


def help_topics() -> str:
    """The help topics of Python's standard library, some 460,000 characters of English about a programming language:
    `pydoc_data.topics`, in the order of their names. They differ a little from one version of Python to the next."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
