"""The part of the picture in which the noise is measured."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vidnoise.errors import UsageError

if TYPE_CHECKING:
    from vidnoise.options import RegionLike

LEAST = 32
"""Minimum width and height of a region in pixels: smaller ones hold too few samples to measure noise within 5%."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the picture as shown, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int
    lines: int | None = None
    """Number of stored lines of a whole frame, if pictures may also be fields, which have half of them."""

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    def place(self, width: int, height: int, rotation: int) -> tuple[slice, slice]:
        """Return the rows and columns of a stored picture that the region covers, whole 2x2 pixels only.

        Args:
            width, height: Size of the stored picture.
            rotation: Rotation of the video for display, in degrees.

        Raises:
            UsageError: The region is not inside the picture.
        """
        lines = self.lines or height
        is_upright = rotation % 180 == 0
        shown_width, shown_height = (width, lines) if is_upright else (lines, width)
        if self.x + self.width > shown_width or self.y + self.height > shown_height:
            raise UsageError(
                f"noise_region {self} reaches outside of the picture, which is {shown_width}x{shown_height}",
                "noise_region",
            )
        stored, across = self, shown_width
        for _ in range(-rotation // 90 % 4):  # a quarter turn counter-clockwise, from the picture as shown
            stored = replace(
                stored, x=stored.y, y=across - stored.x - stored.width, width=stored.height, height=stored.width
            )
            across = shown_width + shown_height - across
        top, bottom = (y * height // lines for y in (stored.y, stored.y + stored.height))
        return _whole(top, bottom, height), _whole(stored.x, stored.x + stored.width, width)


def _whole(begin: int, end: int, length: int) -> slice:
    """Extend to the pairs of rows or columns that the bands are made of, as far as there are pairs."""
    return slice(begin - begin % 2, min(end + end % 2, length - length % 2))


def parse_region(region: RegionLike | Region) -> Region:
    """Read a region: ``"X,Y,W,H"``, or four whole numbers; a :class:`Region` is returned as it is.

    Raises:
        UsageError: It cannot be read, begins outside the picture, or is smaller than :data:`LEAST`.
    """
    if isinstance(region, Region):
        return region
    try:
        numbers = [int(n) for n in region.split(",")] if isinstance(region, str) else [*map(operator.index, region)]
        x, y, width, height = numbers
    except (TypeError, ValueError):
        raise UsageError(
            f"noise_region must be X,Y,W,H in whole pixels, as in 16,40,128,96, got {region!r}", "noise_region"
        ) from None
    if x < 0 or y < 0:
        raise UsageError(f"noise_region {x},{y},{width},{height} begins outside of the picture", "noise_region")
    if width < LEAST or height < LEAST:
        raise UsageError(
            f"noise_region must be at least {LEAST}x{LEAST} pixels, to measure noise in it, got {width}x{height}",
            "noise_region",
        )
    return Region(x, y, width, height)
