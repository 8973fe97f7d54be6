"""Tags of picture files (EXIF, colour profile, XMP, resolution), for files of different kinds."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

from vidnoise.stills import jpeg, png, tiff, webp
from vidnoise.stills.fields import PictureTags

_TURNED = {90: 8, 180: 3, 270: 6}
"""EXIF's orientation by rotation for display, in degrees counter-clockwise."""


def kind_by_content(data: bytes) -> str | None:
    """Return the kind of picture file that begins with ``data``; None if it is unsupported."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(png.SIGNATURE):
        return "png"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"\x76\x2f\x31\x01"):
        return "exr"
    return "bmp" if data.startswith(b"BM") else None


def read_tags(data: bytes) -> PictureTags:
    """Return the tags of a picture file; damaged ones are named in :attr:`PictureTags.lost`."""
    kind = kind_by_content(data) or ""
    reader = {"jpeg": jpeg.read, "png": png.read, "tiff": tiff.read, "webp": webp.read}.get(kind)
    if reader is None:
        return PictureTags(kind)
    try:
        tags = reader(data)
    except (ValueError, IndexError, struct.error, zlib.error):
        return PictureTags(kind, lost=("its tags, which are damaged,",))
    return replace(tags, density=tags.density or tiff.density_of(tags.exif))


def write_tags(data: bytes, kind: str, tags: PictureTags, size: tuple[int, int]) -> tuple[bytes, list[str]]:
    """Put ``tags`` into a picture file that an encoder made.

    Args:
        data: The file.
        kind: Kind of the file.
        tags: Tags of the input.
        size: Width and height of the picture.

    Returns:
        The file, and the names of the tags that it cannot hold.
    """
    if kind == "webp":
        data, lost = webp.write(data, tags, size)
    elif kind in ("jpeg", "png", "tiff"):
        data, lost = {"jpeg": jpeg, "png": png, "tiff": tiff}[kind].write(data, tags)
    else:
        return data, tags.names()
    if kind != tags.kind:
        lost += dict.fromkeys(name for name, _ in tags.kept)
    return data, [*lost, *tags.lost]


def rotation_of(tags: PictureTags) -> int:
    """Return the rotation of a picture for display, in degrees counter-clockwise; mirroring is ignored."""
    orientation = tiff.orientation_of(tags.exif)
    return next((degrees for degrees, code in _TURNED.items() if code == orientation), 0)


def tags_of_rotation(degrees: int) -> PictureTags:
    """Return the tags of a picture from a video that is rotated for display by ``degrees``, counter-clockwise."""
    return PictureTags(exif=tiff.exif_of(orientation=_TURNED[degrees]) if degrees in _TURNED else b"")
