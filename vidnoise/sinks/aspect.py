"""Sample aspect ratios in the headers of y4m, Matroska and WebM, where PyAV offers no way to set them."""

from __future__ import annotations

import struct
from typing import Any

from vidnoise.frame import StreamInfo

PLACEHOLDER_ROTATION = 90
"""Rotation given to a Matroska muxer to make it write an element of known bytes, which is then overwritten."""

_PROJECTION = b"\x76\x70\x8b\x76\x75\x88" + struct.pack(">d", PLACEHOLDER_ROTATION)
_UNIT, _UNKNOWN, _RATIO = b"\x54\xb2\x81", b"\x04", b"\x03"
"""The DisplayUnit element, and its values for an unknown unit and for an aspect ratio."""

_MAX_SIZE = 0xFFFF


Changes = tuple[tuple[bytes, bytes], ...]
"""Pairs of bytes to find in a header and their replacements."""


def header_changes(container_format: str, info: StreamInfo) -> Changes:
    """Return the changes to a header that store the aspect ratio of ``info``; none if impossible or unnecessary.

    In Matroska and WebM, the header has to be written with :data:`PLACEHOLDER_ROTATION`.
    """
    aspect = info.sample_aspect_ratio
    if not aspect:
        return ()
    if container_format == "yuv4mpegpipe":
        return ((b" A0:0 ", f" A{aspect.numerator}:{aspect.denominator} ".encode()),)
    if container_format not in ("matroska", "webm") or aspect == 1 or not _has_room(info):
        return ()
    if container_format == "webm":  # its DisplayUnit can only be pixels
        return ((_PROJECTION, _display(round(info.width * aspect), info.height)),)
    shown = (info.width * aspect / info.height).limit_denominator(_MAX_SIZE // 16)
    height = info.height.to_bytes(1 if info.height < 256 else 2, "big")
    unit = b"\xba" + bytes([0x80 | len(height)]) + height + _UNIT  # follows PixelHeight
    return (unit + _UNKNOWN, unit + _RATIO), (_PROJECTION, _display(shown.numerator, shown.denominator))


def _has_room(info: StreamInfo) -> bool:
    return not info.rotation and info.passthrough.display_matrix is None


def _display(width: int, height: int) -> bytes:
    """Encode DisplayWidth and DisplayHeight, padded to the length of :data:`_PROJECTION`."""
    found = b"\x54\xb0\x82" + struct.pack(">H", min(width, _MAX_SIZE)) + b"\x54\xba\x82" + struct.pack(">H", height)
    rest = len(_PROJECTION) - len(found)
    return found + b"\xec" + bytes([0x80 | (rest - 2)]) + bytes(rest - 2)


class HeaderWriter:
    """A file object that applies ``changes`` to the header written through it.

    The first write is the header; so is any later write at its position.

    Args:
        output: The file object to write to.
        changes: See :func:`header_changes`.
    """

    def __init__(self, output: Any, changes: Changes) -> None:
        self._output = output
        self._changes = changes
        self._header_size: int | None = None

    def write(self, data: bytes) -> int:
        if self._header_size is None:
            self._header_size = len(data)
        elif not hasattr(self._output, "tell") or self._output.tell() >= self._header_size:
            return self._output.write(data)
        changed = bytes(data)
        for old, new in self._changes:
            changed = changed.replace(old, new, 1)
        self._output.write(changed)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)
