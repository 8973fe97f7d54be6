"""Functions of each pixel by itself: what a step computes between its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, cat, nn

from vidnoise.model.dncnn import typed

PixelFunction = Callable[..., tuple[Tensor, ...]]
"""Of tensors ``(N, C, h, w)`` to others of the same N, h and w."""


class Pixelwise:
    """Applies them to whole pictures; a backend may do it piece by piece, so that what is between stays in caches."""

    def apply(self, function: PixelFunction, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What ``function`` makes of ``tensors``."""
        return function(*tensors)

    def stack(self, function: PixelFunction, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        """The same, side by side as channels, in the type and layout that ``layer`` wants."""
        return typed(cat(function(*tensors), 1), layer)


PLAIN = Pixelwise()
