"""Metadata of a picture file, independent of its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

_CM = Fraction(254, 100)
"""Centimetres in an inch."""


@dataclass(frozen=True, slots=True)
class Density:
    """Resolution in pixels per inch or centimetre on paper; without a unit, only the aspect ratio of pixels."""

    x: Fraction | int
    y: Fraction | int
    unit: str
    """``inch``, ``cm``, or empty."""

    def per_inch(self) -> tuple[Fraction, Fraction]:
        """Return the pixels per inch, horizontal and vertical."""
        scale = _CM if self.unit == "cm" else Fraction(1)
        return self.x * scale, self.y * scale

    def whole(self) -> tuple[int, int, str]:
        """Return whole pixels per unit, as JPEG stores them, and the unit."""
        return max(1, min(round(self.x), 65535)), max(1, min(round(self.y), 65535)), self.unit


@dataclass(frozen=True, slots=True)
class PictureTags:
    """The tags of one picture file."""

    kind: str = ""
    """Kind of the file; see :data:`vidnoise.stills.names.KINDS`."""
    exif: bytes = b""
    """EXIF data as in JPEG files, beginning with its byte order."""
    icc: bytes = b""
    """The colour profile."""
    xmp: bytes = b""
    density: Density | None = None
    kept: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """Entries that only a file of the same kind can hold: a readable name, and the data."""
    lost: tuple[str, ...] = ()
    """Names of entries that no output keeps."""
    channels: int = 0
    """Number of channels of a JPEG; 0 if unknown."""
    size: tuple[int, ...] | None = None
    """Width and height, if the header states them."""

    def names(self) -> list[str]:
        """Return readable names of all entries."""
        told = {"EXIF": self.exif, "the ICC profile": self.icc, "XMP": self.xmp}
        words = [word for word, data in told.items() if data]
        if self.density is not None and self.density.unit:
            words.append("the resolution (DPI)")
        return [*words, *dict.fromkeys(name for name, _ in self.kept), *self.lost]


@dataclass(frozen=True, slots=True)
class PictureFile:
    """The file that a frame was read from; kept in the ``side_data`` of the frame."""

    number: int
    """Number of the picture in the name of its file."""
    tags: PictureTags
