"""Models that know their data: a language model its vocabulary, a model of series its columns."""

from .language import LanguageModel
from .series import SeriesModel
from .table import Table
from .texts import help_topics, read_texts

__all__ = ["LanguageModel", "SeriesModel", "Table", "help_topics", "read_texts"]
