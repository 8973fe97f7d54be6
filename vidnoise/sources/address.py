"""Translation of addresses into what libav expects: demuxer, name and options."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field

from vidnoise.errors import SourceOpenError

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "udp", "rtp", "srt", "tcp")
"""URL schemes of live streams."""

_DEVICES = {
    "v4l2": ("video4linux2,v4l2", ""),
    "avfoundation": ("avfoundation", ""),
    "dshow": ("dshow", "video="),
    "x11grab": ("x11grab", ""),
    "gdigrab": ("gdigrab", ""),
    "fbdev": ("fbdev", ""),
    "kmsgrab": ("kmsgrab", ""),
}
"""Prefix of an address to FFmpeg's demuxer, and the prefix that it requires before a device's name."""

DEVICE_PREFIXES = (*_DEVICES, "screen")

_PROBE_MICROSECONDS = "2000000"


@dataclass(frozen=True, slots=True)
class Address:
    """Arguments with which libav opens an input."""

    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def is_device(uri: str) -> bool:
    """Whether ``uri`` names a camera or a screen."""
    prefix, colon, _ = uri.partition(":")
    return bool(colon and prefix in DEVICE_PREFIXES) or bool(re.fullmatch(r"/dev/video\d+", uri))


def device_address(uri: str) -> Address:
    """Translate the URI of a camera (``/dev/video0``, ``dshow:NAME``, ``avfoundation:NAME``) or screen (``screen:``).

    Raises:
        SourceOpenError: It names no device, or there is no screen.
    """
    if uri.startswith("/"):
        return Address(uri, "video4linux2,v4l2")
    prefix, _, name = uri.partition(":")
    if prefix == "screen":
        prefix, name = _screen(name, uri)
    if not name:
        raise SourceOpenError(f"{uri}: name a device, as in {prefix}:NAME", uri)
    format, before = _DEVICES[prefix]
    if before and not name.startswith(("video=", "audio=")):
        name = before + name
    return Address(name, format)


def _screen(number: str, uri: str) -> tuple[str, str]:
    if sys.platform == "win32":
        return "gdigrab", "desktop"
    if sys.platform == "darwin":
        return "avfoundation", f"Capture screen {number or 0}"
    display = os.environ.get("DISPLAY", "")
    if not display:
        raise SourceOpenError(f"{uri}: there is no screen here (DISPLAY is not set)", uri)
    return "x11grab", display if not number else f"{display.partition('.')[0]}.{number}"


def network_options(uri: str, transport: str | None) -> dict[str, str]:
    """Return libav's options for a live URL: short probing, and no error when a burst overruns a buffer.

    Args:
        uri: The URL.
        transport: ``tcp`` or ``udp`` for RTSP; None for TCP.
    """
    scheme = uri.partition(":")[0]
    options = {"analyzeduration": _PROBE_MICROSECONDS}
    if scheme in LIVE_SCHEMES:  # not for streams served like files, which may be only seconds long
        options["fflags"] = "nobuffer"
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = transport or "tcp"
    elif scheme == "udp":
        options |= {"overrun_nonfatal": "1", "fifo_size": "100000"}
    return options
