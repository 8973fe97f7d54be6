"""What a picture file may tell beside its samples, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

_CM = Fraction(254, 100)
"""Of an inch."""


@dataclass(frozen=True, slots=True)
class Density:
    """How many pixels there are to an inch or centimetre on paper; without a unit, their proportions alone."""

    x: Fraction | int
    y: Fraction | int
    unit: str
    """``inch``, ``cm`` or nothing."""

    def per_inch(self) -> tuple[Fraction, Fraction]:
        """Pixels per inch across and down."""
        scale = _CM if self.unit == "cm" else Fraction(1)
        return self.x * scale, self.y * scale

    def whole(self) -> tuple[int, int, str]:
        """In whole pixels per unit, as JPEG has it."""
        return max(1, min(round(self.x), 65535)), max(1, min(round(self.y), 65535)), self.unit


@dataclass(frozen=True, slots=True)
class PictureTags:
    """The tags of one picture file."""

    kind: str = ""
    """Of the file that they come from; see :data:`vidnoise.stills.names.KINDS`."""
    exif: bytes = b""
    """As it lies in JPEG files, from its byte order on."""
    icc: bytes = b""
    """The colour profile."""
    xmp: bytes = b""
    density: Density | None = None
    kept: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """What only a file of the same kind can hold: its name for people, and the data."""
    lost: tuple[str, ...] = ()
    """What no output keeps."""
    channels: int = 0
    """Of a JPEG; 0 where it is not known."""
    size: tuple[int, ...] | None = None
    """Width and height, where the header tells."""

    def names(self) -> list[str]:
        """What there is, in words."""
        told = {"EXIF": self.exif, "the ICC profile": self.icc, "XMP": self.xmp}
        words = [word for word, data in told.items() if data]
        if self.density is not None and self.density.unit:
            words.append("the resolution (DPI)")
        return [*words, *dict.fromkeys(name for name, _ in self.kept), *self.lost]


@dataclass(frozen=True, slots=True)
class PictureFile:
    """The file that a frame comes from; its ``side_data``."""

    number: int
    """In the sequence, as its name says."""
    tags: PictureTags
