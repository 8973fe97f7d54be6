"""Metadata of PNG files: the ancillary chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

from vidnoise.stills.fields import Density, PictureTags

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_XMP = b"XML:com.adobe.xmp\0"
_OF_THE_SAMPLES = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"acTL", b"fcTL", b"fdAT"}
)
"""Chunks that describe the storage of samples, which the encoder writes anew."""
_WRITTEN = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_METRES = Fraction(254, 10000)
"""Metres in an inch."""
_MOST_PROFILE = 1 << 26
"""Maximum size of an ICC profile in bytes, as a few compressed bytes can demand any amount of memory."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise ValueError("a chunk without an end")
        yield name, data[at + 8 : at + 8 + size]
        if name == b"IEND":
            return
        at += 12 + size


def read(data: bytes) -> PictureTags:
    """Return the tags of a PNG file; raises ValueError, struct.error or zlib.error if it is damaged."""
    exif = icc = xmp = b""
    density: Density | None = None
    size = None
    kept: list[tuple[str, bytes]] = []
    for name, content in chunks(data):
        if name == b"IHDR":
            size = struct.unpack_from(">II", content)
        elif name == b"eXIf":
            exif = content.removeprefix(b"Exif\0\0")
        elif name == b"iCCP":
            icc = zlib.decompressobj().decompress(content[content.index(b"\0") + 2 :], _MOST_PROFILE)
        elif name == b"iTXt" and content.startswith(_XMP):
            xmp = _international_text(content)
        elif name == b"pHYs":
            x, y, unit = struct.unpack(">IIB", content)
            if x and y:
                density = Density(x * _METRES, y * _METRES, "inch") if unit == 1 else Density(x, y, "")
        elif name not in _OF_THE_SAMPLES:
            kept.append((f"PNG's {name.decode('latin-1')}", name + content))
    return PictureTags("png", exif=exif, icc=icc, xmp=xmp, density=density, kept=tuple(kept), size=size)


def _international_text(content: bytes) -> bytes:
    compressed = content[len(_XMP)]
    _, _, text = content[len(_XMP) + 2 :].split(b"\0", 2)
    return zlib.decompressobj().decompress(text, _MOST_PROFILE) if compressed else text


def write(data: bytes, tags: PictureTags) -> tuple[bytes, list[str]]:
    """Replace the tags of an encoded file; returns the file, and the names of the tags that it cannot hold."""
    told: list[bytes] = []
    if tags.kind == "png":
        told += [_chunk(content[:4], content[4:]) for _, content in tags.kept]
    if tags.icc:
        told.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(tags.icc)))
    if tags.density is not None:
        x, y = tags.density.per_inch() if tags.density.unit else (tags.density.x, tags.density.y)
        scale = _METRES if tags.density.unit else 1
        told.append(_chunk(b"pHYs", struct.pack(">IIB", round(x / scale), round(y / scale), bool(tags.density.unit))))
    if tags.exif:
        told.append(_chunk(b"eXIf", tags.exif))
    if tags.xmp:
        told.append(_chunk(b"iTXt", _XMP + b"\0\0\0\0" + tags.xmp))
    parts = [SIGNATURE]
    for name, content in chunks(data):
        if name in _WRITTEN:
            parts.append(_chunk(name, content))
        if name == b"IHDR":  # colour information must precede the samples
            parts += told
    return b"".join(parts), []


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), name) + content + struct.pack(">I", zlib.crc32(name + content))
