"""Words and text: vocabularies, tokenisers, windows of a long text, and vectors of words learned from their
neighbours."""

from .keyed_vectors import KeyedVectors
from .subwords import SubwordVectors
from .tokens import Tokenizer, streams, windows
from .vocabulary import Vocabulary
from .word2vec import Word2Vec

__all__ = ["KeyedVectors", "SubwordVectors", "Tokenizer", "Vocabulary", "Word2Vec", "streams", "windows"]
