"""Raw video without a header, whose format the user has to specify."""

from __future__ import annotations

import re
from fractions import Fraction

import av
import av.error

from vidnoise.errors import UsageError

DEFAULT_RATE = "25"

_RATE = r"\d{1,9}(\.\d{0,9})?|\d{1,9}/\d{1,9}"


def raw_options(size: str | None, format: str | None, rate: str | None) -> dict[str, str]:
    """Return options of FFmpeg's ``rawvideo`` demuxer.

    Args:
        size: ``WIDTHxHEIGHT``.
        format: FFmpeg's name of the pixel format.
        rate: Frames per second: ``30``, ``29.97``, ``30000/1001``; None for 25.

    Raises:
        UsageError: A value is missing or invalid.
    """
    if size is None or format is None:
        given = "raw_format" if format is not None else "raw_rate" if size is None else "raw_size"
        raise UsageError(
            f"raw video needs both raw_size and raw_format, for example 1920x1080 and yuv420p (got {given})",
            "raw_size",
            "raw_format",
        )
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise UsageError(f"raw_size must be WIDTHxHEIGHT, as in 1920x1080; got {size!r}", "raw_size")
    try:
        av.VideoFormat(format)
    except (ValueError, av.error.FFmpegError) as ex:
        raise UsageError(
            f"unknown raw_format {format!r}; yuv420p, yuv420p10le, rgb24 and gray are common ones", "raw_format"
        ) from ex
    exact = frames_per_second(rate or DEFAULT_RATE, "raw_rate")
    return {"video_size": size, "pixel_format": format, "framerate": f"{exact.numerator}/{exact.denominator}"}


def frames_per_second(rate: str, option: str) -> Fraction:
    """Parse a frame rate.

    Args:
        rate: ``30``, ``29.97``, ``30000/1001``.
        option: Name of the option that it was given for, for messages.

    Raises:
        UsageError: It is not a rate, or not more than 0.
    """
    try:
        if not re.fullmatch(_RATE, rate):  # parsing 1e9999999 would take hours
            raise ValueError(rate)
        found = Fraction(rate)
    except (ValueError, ZeroDivisionError) as ex:
        raise UsageError(f"{option} must be frames per second, as in 25 or 30000/1001; got {rate!r}", option) from ex
    if not 0 < found <= 100_000:
        raise UsageError(f"{option} must be more than 0 frames per second; got {rate}", option)
    return found.limit_denominator(100_000)
