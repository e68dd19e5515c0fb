"""Doors to other libraries. Each needs an extra of its own and is imported by its own name: `fastrnn.interop.torch`."""
