"""Containers of uncompressed video: YUV4MPEG2 (y4m), raw samples, and virtual cameras."""

from __future__ import annotations

import logging

from vidnoise.errors import UsageError
from vidnoise.frame import ColorInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.notices import Notify
from vidnoise.text import printable

Y4M_FORMATS: tuple[str, ...] = (
    *("gray", "gray9le", "gray10le", "gray12le", "gray16le", "yuv411p", "yuva444p"),
    *(
        f"yuv{chroma}p{depth}"
        for chroma in ("420", "422", "444")
        for depth in ("", "9le", "10le", "12le", "14le", "16le")
    ),
)
"""Pixel formats that FFmpeg's y4m muxer supports."""

_CAMERA_FORMATS = ("yuv420p", "nv12", "yuv422p", "rgb24", "bgr24", "gray")
"""Pixel formats that V4L2 supports and that programs expect of a camera."""

UNCOMPRESSED = {"yuv4mpegpipe": "y4m", "rawvideo": "raw video", "v4l2": "a virtual camera"}
"""FFmpeg's names of containers of uncompressed video to names for users."""


def is_uncompressed(container_format: str) -> bool:
    """Whether a container, by FFmpeg's name, holds a single video of uncompressed samples and nothing else."""
    return container_format in UNCOMPRESSED


def check_no_encoder_options(container_format: str, codec: str | None, crf: float | None, preset: str | None) -> None:
    """Raise UsageError if an option was given that applies to encoders only."""
    name = UNCOMPRESSED[container_format]
    asked = [("codec", codec if codec != "rawvideo" else None), ("crf", crf), ("preset", preset)]
    found = [option for option, value in asked if value is not None]
    if found:
        raise UsageError(
            f"{name} is not compressed, so there is no {found[0]} to choose; use format mkv, nut or ts", found[0]
        )


def picture_formats(container_format: str) -> tuple[str, ...]:
    """Return the pixel formats that a container supports; empty if it supports all."""
    return {"yuv4mpegpipe": Y4M_FORMATS, "v4l2": _CAMERA_FORMATS}.get(container_format, ())


def muxer_options(container_format: str) -> dict[str, str]:
    """Return muxer options; y4m with more than 8 bits is a common extension that has to be enabled."""
    return {"strict": "-1"} if container_format == "yuv4mpegpipe" else {}


def warn_of_losses(
    container_format: str, copies: Passthrough, color: ColorInfo, tags: dict[str, str], uri: str, notify: Notify
) -> None:
    """Report what is left out besides the pictures."""
    lost = [str(stream) for stream in copies.streams]
    if copies.chapters:
        lost.append("chapters")
    if copies.hdr:
        lost.append("HDR mastering metadata")
    if lost:
        notify(
            logging.WARNING,
            "%s: %s holds pictures only; left out: %s",
            uri,
            UNCOMPRESSED[container_format],
            ", ".join(lost),
        )
    # Nobody expects raw pictures to carry tags, so this is only informational.
    details = [printable(f"tags {', '.join(tags)}")] if tags else []
    if (color.matrix, color.primaries, color.transfer) != (2, 2, 2):
        details.append(f"colour tags (matrix {color.matrix}, primaries {color.primaries}, transfer {color.transfer})")
    if details:
        notify(logging.INFO, "%s: left out: %s", uri, ", ".join(details))
