"""Models that run step by step: streams, and what is generated with them."""

from .stream import PiecewiseStream, Stream, open_stream

__all__ = ["PiecewiseStream", "Stream", "open_stream"]
