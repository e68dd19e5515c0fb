"""Models that run step by step: streams, and what is generated with them."""

from .builder import ChainBuilder
from .decode import beam_search
from .generate import generate
from .pool import StreamPool
from .stream import CompiledStream, PiecewiseStream, Stream, open_stream

__all__ = [
    "ChainBuilder",
    "CompiledStream",
    "PiecewiseStream",
    "Stream",
    "StreamPool",
    "beam_search",
    "generate",
    "open_stream",
]
