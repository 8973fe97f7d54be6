"""The network of these tests, unless a file has its own."""

from support.streams import network

__all__ = ["network"]
