"""Metadata of WebP files: the chunks around the picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vidnoise.stills import tiff
from vidnoise.stills.fields import PictureTags

_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
"""Flags of the extended header."""


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def is_animated(data: bytes) -> bool:
    """Whether a WebP file, or its beginning, holds more than one picture."""
    return data[8:16] == b"WEBPVP8X" and len(data) > 20 and bool(data[20] & _ANIMATION)


def read(data: bytes) -> PictureTags:
    """Return the tags of a WebP file."""
    found = dict(reversed(list(_chunks(data))))  # of several, the first counts
    exif = found.get(b"EXIF", b"").removeprefix(b"Exif\0\0")
    size = None
    if b"VP8X" in found:
        size = tuple(int.from_bytes(found[b"VP8X"][i : i + 3], "little") + 1 for i in (4, 7))
    return PictureTags("webp", exif=exif, icc=found.get(b"ICCP", b""), xmp=found.get(b"XMP ", b""), size=size)


def write(data: bytes, tags: PictureTags, size: tuple[int, int]) -> tuple[bytes, list[str]]:
    """Add tags to an encoded picture of ``size``; returns the file, and the names of the tags that it cannot hold."""
    exif, lost = tags.exif, []
    if tags.density is not None and tags.density.unit and not tiff.has_density(exif):
        if exif:
            lost.append("the resolution (DPI)")
        else:
            exif = tiff.exif_of(density=tags.density)
    picture = [(name, content) for name, content in _chunks(data) if name in (b"ALPH", b"VP8 ", b"VP8L")]
    if not (exif or tags.icc or tags.xmp):
        return data, lost
    has_alpha = any(
        name == b"ALPH" or (name == b"VP8L" and bool(content[4] & 0x10)) for name, content in picture
    )  # fmt: skip
    flags = bool(tags.icc) * _ICC | has_alpha * _ALPHA | bool(exif) * _EXIF | bool(tags.xmp) * _XMP
    header = struct.pack("<I", flags) + b"".join((side - 1).to_bytes(3, "little") for side in size)
    parts = [(b"VP8X", header), (b"ICCP", tags.icc), *picture, (b"EXIF", exif), (b"XMP ", tags.xmp)]
    parts = [(name, content) for name, content in parts if content]
    body = b"".join(struct.pack("<4sI", name, len(part)) + part + bytes(len(part) % 2) for name, part in parts)
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body, lost
