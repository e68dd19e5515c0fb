"""The command `fastrnn`."""

from .main import main

__all__ = ["main"]
