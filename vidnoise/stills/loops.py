"""Number of times that an animation is played, which libav's demuxers do not report and its muxers need."""

from __future__ import annotations

import struct

from vidnoise.stills import png

_LOOK = 1 << 20
"""Number of bytes at the beginning of a file that contain it."""

FOREVER = 0


def read_plays(path: str) -> int | None:
    """Return the number of times that a GIF or animated PNG is played, 0 for ever; None if the file is neither."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LOOK)
    except OSError:
        return None
    if data.startswith(b"GIF8"):
        at = data.find(b"NETSCAPE2.0\x03\x01")
        if at < 0:
            return 1
        (again,) = struct.unpack_from("<H", data, at + 13)
        return again + 1 if again else FOREVER
    return apng_plays(data)


def is_animation(path: str) -> bool:
    """Whether the picture file ``path`` is an animated PNG."""
    if not path.lower().endswith(".png"):
        return False
    plays = read_plays(path)
    return plays is not None


def apng_plays(data: bytes) -> int | None:
    """Return the number of times that an animated PNG is played, from its first bytes; None if it is none."""
    if not data.startswith(png.SIGNATURE):
        return None
    at, end = data.find(b"acTL"), data.find(b"IDAT")
    if at < 0 or 0 <= end < at:
        return None
    return struct.unpack_from(">I", data, at + 8)[0]


def loop_options(format_name: str, plays: int | None) -> dict[str, str]:
    """Return the options of FFmpeg's muxer ``format_name`` for an animation that is played ``plays`` times."""
    if plays is None:
        return {}
    if format_name == "gif":
        return {"loop": str(-1 if plays == 1 else max(plays - 1, 0))}
    option = {"apng": "plays", "webp": "loop"}.get(format_name)
    return {option: str(min(plays, 65535))} if option else {}
