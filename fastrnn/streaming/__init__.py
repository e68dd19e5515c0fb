"""Models that run step by step: streams, and what is generated with them."""

from .decode import beam_search
from .generate import generate
from .stream import ChainBuilder, CompiledStream, PiecewiseStream, Stream, open_stream

__all__ = ["ChainBuilder", "CompiledStream", "PiecewiseStream", "Stream", "beam_search", "generate", "open_stream"]
