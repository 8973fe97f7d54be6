"""Where frames come from. A new source is one class here and one line in :data:`SOURCES`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.frame import MAX_THREADS
from vidnoise.sources.address import LIVE_SCHEMES, device_address, is_device, network_options
from vidnoise.sources.protocol import SizeChange, Source

if TYPE_CHECKING:
    from vidnoise.sources.container import ContainerSource

_DOWNLOADS = ("http", "https", "ftp", "sftp", "gopher", "gophers")
"""Schemes of URLs of files, or of what is sent like one."""

_LONGEST_SECONDS = 1_000_000_000
"""What no video lasts; libav's seeking has 64 bits for it."""

SOURCES: dict[str, str] = {
    "file": "vidnoise.sources.container:ContainerSource",
    "url": "vidnoise.sources.container:ContainerSource",
    "lavfi": "vidnoise.sources.container:ContainerSource",
    "pipe": "vidnoise.sources.pipe:PipeSource",
    "device": "vidnoise.sources.container:ContainerSource",
}
"""Kind of address to ``module:class``; a URL's own scheme (``"rtsp"``) goes before ``"url"``. Imported on use."""


def source_kind(uri: str) -> str:
    """The key of :data:`SOURCES` that reads ``uri``."""
    if uri == "-":
        return "pipe"
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in SOURCES:
        return scheme
    if is_device(uri):
        return "device"
    if "://" in uri:
        return "url"
    return "file"


def open_source(
    uri: str | os.PathLike[str],
    *,
    start: float | None = None,
    duration: float | None = None,
    threads: int = 0,
    format: str | None = None,
    raw_size: str | None = None,
    raw_format: str | None = None,
    raw_rate: str | None = None,
    live: bool | None = None,
    connect_timeout: float = 15,
    read_timeout: float | None = None,
    reconnect: int = 5,
    rtsp_transport: str | None = None,
    input_options: dict[str, str] | None = None,
    interlaced: str = "auto",
    tracks: str | None = None,
    keeps_clock: bool = True,
    size_change: SizeChange = "stop",
    live_size_change: SizeChange | None = None,
    max_pixels: int | None = None,
    **options: Any,
) -> Source:
    """Open a video for reading.

    Args:
        uri: A path, a URL, ``lavfi:<filter graph>``, or ``-`` for standard input.
        start: Skip this many seconds; timestamps then begin at 0 again.
        duration: Stop after this many seconds.
        threads: Decoder threads; 0 lets the decoder choose.
        format: Container, where it cannot be told from the data: ``y4m``, ``mkv``, ``ts``, or FFmpeg's name.
        raw_size, raw_format, raw_rate: For video without a header: ``1920x1080``, FFmpeg's name of the pixel format,
            frames per second (``30000/1001``; by default 25).
        live: Whether the input does not wait for us; None for those that cannot. Files are then read in real time.
        connect_timeout, read_timeout: Seconds to wait for the input to open, and for its next data (by default 10 for
            live ones, 30 for other URLs, and for ever where nothing can go away).
        reconnect: Attempts in a row to open a live URL or camera again after it was lost; -1 never gives up.
        rtsp_transport: ``tcp`` (the default) or ``udp``.
        input_options: Of FFmpeg's reader, for cameras say ``{"video_size": "1280x720", "framerate": "30"}``.
        interlaced: Whether pictures are two fields: ``auto`` believes the video's marks, ``tff`` and ``bff`` say that
            they are (top or bottom field first), ``no`` that they are not.
        tracks: Which tracks are wanted: ``v:1`` the second video, ``a:eng`` the English sound only, ``-s`` no
            subtitles, ``-a:0`` all sound but the first; several with commas. Of kinds not named, all.
        keeps_clock: Whether times stay those of a broadcast's clock; if not, a transport stream begins at 0, whatever
            its clock says. Other inputs keep their times in any case.
        size_change: Where the pictures change their size or format in the middle: ``stop`` is an error, ``split`` ends
            before that picture (:meth:`next_part` then goes on with the others), ``scale`` gives all the first one's.
        live_size_change: The same for live inputs, if not that.
        max_pixels: Larger pictures are refused; by default 2^28 (16384x16384).
        options: Further options of the source's class.

    Raises:
        SourceOpenError: The input is missing, unreadable or holds no video.
        DecodeError: The input opened, but not one frame could be decoded.
        FormatError: Its pixel format cannot be processed without loss.
        UsageError: ``start`` or ``duration`` make no sense for it, or there is no such track.
    """
    text = os.fspath(uri)
    if text.startswith("file:"):
        text = text[len("file:") :]
    if not text:
        raise SourceOpenError("no input given", text)
    if "\0" in text:
        raise SourceOpenError(f"{text}: no name of a file holds a zero", text)
    if start is not None and not 0 <= start <= _LONGEST_SECONDS:
        raise UsageError(f"start must be 0 seconds to {_LONGEST_SECONDS}, got {start:g}")
    if duration is not None and not 0 < duration < float("inf"):
        raise UsageError(f"duration must be more than 0 seconds, got {duration:g}")
    live_size_change = live_size_change or size_change
    for word in (size_change, live_size_change):
        if word not in ("stop", "split", "scale"):
            raise UsageError(f"size_change must be stop, split or scale, got {word!r}")
    if not 0 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be 0 (automatic) to {MAX_THREADS}, got {threads}")
    if max_pixels is not None:
        if not 0 < max_pixels < 1 << 31:
            raise UsageError(f"max_pixels must be 1 to 2^31 - 1, got {max_pixels}")
        options["max_pixels"] = max_pixels
    if (raw_size, raw_format, raw_rate) != (None, None, None):
        from vidnoise.sources.raw import raw_options

        if format not in (None, "raw", "rawvideo"):
            raise UsageError(f"raw_size, raw_format and raw_rate are for video without a header, not for {format}")
        format, options["options"] = "rawvideo", raw_options(raw_size, raw_format, raw_rate)
    elif format in ("raw", "rawvideo"):
        raise UsageError("raw video needs raw_size and raw_format")
    kind = source_kind(text)
    given: dict[str, str] = {**options.pop("options", {}), **(input_options or {})}
    if not 0 < connect_timeout < float("inf") or (read_timeout is not None and not 0 < read_timeout < float("inf")):
        raise UsageError("connect_timeout and read_timeout must be more than 0 seconds")
    can_go_away = kind == "device" or (kind == "url" and text.partition(":")[0] in LIVE_SCHEMES)
    is_live = can_go_away if live is None else live
    if kind == "device":
        address = device_address(text)
        options["name"], format = address.name, address.format
    elif kind == "url" and is_live:
        given = {**network_options(text, rtsp_transport), **given}
    if kind in ("url", "device"):
        options.setdefault("timeout", (connect_timeout, read_timeout or (10 if is_live else 30)))
    elif read_timeout is not None:
        options.setdefault("timeout", (connect_timeout, read_timeout))
    module, _, class_name = SOURCES[kind].partition(":")
    make = getattr(importlib.import_module(module), class_name)

    change = live_size_change if is_live else size_change

    def open_once() -> Source:
        return make(
            text, start=start, duration=None if is_live else duration, threads=threads, format=format,
            options=given or None, is_live=is_live or live, interlaced=interlaced, tracks=tracks,
            keeps_clock=keeps_clock, size_change=change, **options,
        )  # fmt: skip

    if not is_live:
        first = open_once()
        if live is None and first.info.is_live:  # HLS of something that goes on, say
            change = live_size_change
            cast("ContainerSource", first).size_change = change
            return _kept_alive(
                text, open_once, first, reconnect=reconnect, duration=duration, size_change=change,
                ends=_ends_cleanly(kind, text, reconnect),
            )  # fmt: skip
        return first
    if start is not None:
        raise UsageError(f"{text}: is live, so there is no start to skip to")
    from vidnoise.sources.live import LiveSource

    return LiveSource(
        text,
        open_once,
        reconnect=reconnect,
        ends=_ends_cleanly(kind, text, reconnect),
        can_go_away=can_go_away or kind == "url",
        is_paced=kind in ("file", "lavfi"),
        duration=duration,
        size_change=change,
    )


def _ends_cleanly(kind: str, text: str, reconnect: int) -> bool:
    """Whether the end of the data is the end of the video.

    Cameras that are switched off close their connections properly, too; a web server does so when it has sent all.
    Whoever never gives up wants that asked again.
    """
    if kind == "url":
        return text.partition(":")[0] in _DOWNLOADS and reconnect >= 0
    return kind in ("file", "lavfi", "pipe")


def _kept_alive(text: str, reopen: Callable[[], Source], first: Source, **options: Any) -> Source:
    """A live source whose first connection is open already."""
    from vidnoise.sources.live import LiveSource

    waiting = [first]
    return LiveSource(text, lambda: waiting.pop() if waiting else reopen(), **options)


__all__ = ["SOURCES", "SizeChange", "Source", "open_source", "source_kind"]
