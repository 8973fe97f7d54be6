"""Pointwise functions, which a step computes between its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, cat, nn

from vidnoise.model.dncnn import typed

PixelFunction = Callable[..., tuple[Tensor, ...]]
"""A function from tensors ``(N, C, h, w)`` to others of the same N, h and w, each pixel by itself."""


class Pixelwise:
    """Applies pointwise functions to whole pictures; a backend may do so in chunks that stay in cache."""

    def apply(self, function: PixelFunction, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return ``function(*tensors)``."""
        return function(*tensors)

    def stack(self, function: PixelFunction, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        """Return the results concatenated along the channels, in the dtype and layout that ``layer`` expects."""
        return typed(cat(function(*tensors), 1), layer)


PLAIN = Pixelwise()
