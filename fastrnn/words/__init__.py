"""Words and text: vocabularies, tokenisers, windows of a long text."""

from .tokens import Tokenizer, streams, windows
from .vocabulary import Vocabulary

__all__ = ["Tokenizer", "Vocabulary", "streams", "windows"]
