"""The version, which other modules may import without a circle."""

__version__ = "0.1.0"
