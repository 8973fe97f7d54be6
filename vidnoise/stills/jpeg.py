"""Metadata of JPEG files: the segments before the picture's data."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vidnoise.stills.fields import Density, PictureTags

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_MPF = b"MPF\0"
_JFIF = b"JFIF\0"
_MOST = 65533
"""Maximum number of bytes in a segment."""

_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT, _SCAN = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDA
_NAMES = {_APP1: "extended XMP", _APP13: "IPTC", _COMMENT: "the comment"}
_UNITS = {1: "inch", 2: "cm"}


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of each segment up to the picture's data."""
    at = 2
    while True:
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise ValueError("no marker where one should be")
        marker = data[at + 1]
        (size,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + size
        if size < 2 or end > len(data):
            raise ValueError("a segment without an end")
        yield marker, data[at + 4 : end], end
        if marker == _SCAN:
            return
        at = end


def read(data: bytes) -> PictureTags:
    """Return the tags of a JPEG file; raises ValueError, IndexError or struct.error if it is damaged."""
    exif = xmp = b""
    density: Density | None = None
    profile: dict[int, bytes] = {}
    kept: list[tuple[str, bytes]] = []
    channels, size, has_others = 0, None, False
    for marker, content, _ in _segments(data):
        if marker == _APP1 and content.startswith(_EXIF):
            exif = exif or content[len(_EXIF) :]
        elif marker == _APP1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == _APP2 and content.startswith(_ICC):
            profile[content[len(_ICC)]] = content[len(_ICC) + 2 :]
        elif marker == _APP2 and content.startswith(_MPF):
            has_others = True  # it contains offsets into this very file
        elif marker == _APP0 and content.startswith(_JFIF):
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            if x and y and (unit in _UNITS or x != y):
                density = Density(x, y, _UNITS.get(unit, ""))
        elif marker == _COMMENT or (_APP0 < marker <= 0xEF and marker != _APP14):
            kept.append((_NAMES.get(marker, f"APP{marker - _APP0}"), bytes([marker]) + content))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", content, 1)
            size = (width, height)
    icc = b"".join(profile[number] for number in sorted(profile))
    return PictureTags(
        "jpeg", exif=exif, icc=icc, xmp=xmp, density=density, kept=tuple(kept), channels=channels, size=size,
        lost=("the other pictures inside",) if has_others else (),
    )  # fmt: skip


def is_cut_off(data: bytes) -> bool:
    """Whether the end of the picture is missing."""
    return b"\xff\xd9" not in data[-(1 << 16) :] and b"\xff\xd9" not in data


def write(data: bytes, tags: PictureTags) -> tuple[bytes, list[str]]:
    """Replace the tags of an encoded file; returns the file, and the names of the tags that it cannot hold."""
    lost: list[str] = []
    told: list[bytes] = []

    def add(marker: int, content: bytes, what: str) -> None:
        if len(content) > _MOST:
            lost.append(what)
        else:
            told.append(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)

    if tags.density is not None or not tags.exif:
        x, y, unit = tags.density.whole() if tags.density else (1, 1, "")
        code = next((code for code, name in _UNITS.items() if name == unit), 0)
        add(_APP0, _JFIF + struct.pack(">HBHHBB", 0x0101, code, x, y, 0, 0), "the resolution")
    if tags.exif:
        add(_APP1, _EXIF + tags.exif, "EXIF (of more than 64 kB)")
    if tags.xmp:
        add(_APP1, _XMP + tags.xmp, "XMP (of more than 64 kB)")
    room = _MOST - len(_ICC) - 2
    parts = [tags.icc[i : i + room] for i in range(0, len(tags.icc), room)]
    for number, part in enumerate(parts, 1):
        add(_APP2, _ICC + bytes([number, len(parts)]) + part, "the ICC profile")
    for what, content in tags.kept if tags.kind == "jpeg" else ():
        add(content[0], content[1:], what)
    rest: list[bytes] = []
    end = 2
    for marker, content, after in _segments(data):
        is_tag = _APP0 <= marker <= 0xEF and marker != _APP14
        if not (is_tag or marker == _COMMENT):
            rest.append(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)
        end = after
    return b"".join([data[:2], *told, *rest, data[end:]]), lost
