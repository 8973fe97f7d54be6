"""Sample aspect ratios where FFmpeg's writers take them from a place that av has no way to: y4m, Matroska and WebM."""

from __future__ import annotations

import struct
from typing import Any

from vidnoise.frame import StreamInfo

PLACEHOLDER_ROTATION = 90
"""Of a Matroska file that is not rotated: its header gets an element of known bytes, which then give their place."""

_PROJECTION = b"\x76\x70\x8b\x76\x75\x88" + struct.pack(">d", PLACEHOLDER_ROTATION)
_UNIT, _UNKNOWN, _RATIO = b"\x54\xb2\x81", b"\x04", b"\x03"
"""DisplayUnit; DisplayWidth and DisplayHeight are unknown, or a ratio."""

_MOST = 0xFFFF


Changes = tuple[tuple[bytes, bytes], ...]
"""What to replace in a header, and by what."""


def header_changes(container_format: str, info: StreamInfo) -> Changes:
    """What makes the header say the aspect ratio; none where it cannot, or need not.

    In Matroska and WebM the header has to be written with :data:`PLACEHOLDER_ROTATION`.
    """
    aspect = info.sample_aspect_ratio
    if not aspect:
        return ()
    if container_format == "yuv4mpegpipe":
        return ((b" A0:0 ", f" A{aspect.numerator}:{aspect.denominator} ".encode()),)
    if container_format not in ("matroska", "webm") or aspect == 1 or not _has_room(info):
        return ()
    if container_format == "webm":  # which knows pixels only
        return ((_PROJECTION, _display(round(info.width * aspect), info.height)),)
    shown = (info.width * aspect / info.height).limit_denominator(_MOST // 16)
    height = info.height.to_bytes(1 if info.height < 256 else 2, "big")
    unit = b"\xba" + bytes([0x80 | len(height)]) + height + _UNIT  # behind PixelHeight
    return (unit + _UNKNOWN, unit + _RATIO), (_PROJECTION, _display(shown.numerator, shown.denominator))


def _has_room(info: StreamInfo) -> bool:
    return not info.rotation and info.passthrough.display_matrix is None


def _display(width: int, height: int) -> bytes:
    """DisplayWidth and DisplayHeight, filled up to the length of :data:`_PROJECTION`."""
    found = b"\x54\xb0\x82" + struct.pack(">H", min(width, _MOST)) + b"\x54\xba\x82" + struct.pack(">H", height)
    rest = len(_PROJECTION) - len(found)
    return found + b"\xec" + bytes([0x80 | (rest - 2)]) + bytes(rest - 2)


class HeaderWriter:
    """Passes a file on to ``output``, with ``changes`` made to its header.

    The header is what is written first, and what is written there once more at the end.
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
