"""Positions of the tiles of a picture, and blending of their results."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vidnoise.model.network import MULTIPLE

OVERLAP = 128
"""Pixels that neighbouring tiles share, for motion between frames and the network's receptive field."""


@dataclass(frozen=True, slots=True)
class Span:
    """Position of a tile along one axis, and the weights of its pixels."""

    start: int
    weights: tuple[float, ...]
    """One per :data:`MULTIPLE` / 2 pixels, from 0 to 1; those of neighbouring tiles add up to 1."""


def spans(size: int, tile: int, overlap: int = OVERLAP) -> list[Span]:
    """Distribute tiles of one size evenly over an axis; ``size`` and ``tile`` are multiples of :data:`MULTIPLE`."""
    unit = MULTIPLE // 2
    if tile >= size:
        return [Span(0, (1.0,) * (size // unit))]
    count = -(-(size - overlap) // (tile - overlap))
    last = (size - tile) // MULTIPLE
    starts = [MULTIPLE * round(last * i / (count - 1)) for i in range(count)]
    weights = [[1.0] * (tile // unit) for _ in starts]
    for (a, left), (b, right) in itertools.pairwise(zip(starts, weights, strict=True)):
        shared = (a + tile - b) // unit
        margin = shared // 4
        for i in range(shared):
            share = min(max((i + 0.5 - margin) / (shared - 2 * margin), 0.0), 1.0)
            left[tile // unit - shared + i] = min(left[tile // unit - shared + i], 1 - share)
            right[i] = min(right[i], share)
    total = [0.0] * (size // unit)
    for start, own in zip(starts, weights, strict=True):
        for i, weight in enumerate(own, start // unit):
            total[i] += weight
    return [
        Span(start, tuple(w / total[i] for i, w in enumerate(own, start // unit)))
        for start, own in zip(starts, weights, strict=True)
    ]


class Tiling:
    """The tiling of a picture; iterates over the places of the tiles."""

    def __init__(self, height: int, width: int, tile: tuple[int, int], overlap: int) -> None:
        self._height = height
        self._tile = min(tile[0], height), min(tile[1], width)
        self._rows, self._columns = spans(height, self._tile[0], overlap), spans(width, self._tile[1], overlap)
        self._made: dict[tuple[int, int], Tensor] = {}

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return itertools.product(self._rows, self._columns)

    def part(self, whole: Tensor, place: tuple[Span, Span]) -> Tensor:
        """Return a view of one tile of a tensor at 1 to 1/8 of the picture's resolution."""
        step = self._height // whole.shape[2]
        top, left = (span.start // step for span in place)
        return whole[..., top : top + self._tile[0] // step, left : left + self._tile[1] // step]

    def parts(self, wholes: Iterable[Tensor], place: tuple[Span, Span]) -> Iterator[Tensor]:
        """Yield contiguous copies of one tile of several tensors."""
        return (self.part(whole, place).contiguous() for whole in wholes)

    def blend(self, whole: Tensor, values: Tensor, place: tuple[Span, Span]) -> None:
        """Add a tile's weighted values to the whole."""
        repeats = MULTIPLE // 2 // (self._height // whole.shape[2])
        down, across = (self._weights(span, repeats, whole.device) for span in place)
        self.part(whole, place).add_(values * (down[:, None] * across[None, :]))

    def _weights(self, span: Span, repeats: int, device: torch.device) -> Tensor:
        """Return a span's weights on the device, cached because copying to a GPU synchronises with it."""
        key = id(span), repeats  # spans live as long as this object
        if key not in self._made:
            self._made[key] = torch.tensor(span.weights, device=device).repeat_interleave(repeats)
        return self._made[key]
