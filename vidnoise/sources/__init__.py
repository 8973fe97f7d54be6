"""Inputs of every kind. A new kind of input is one class here and one line in :data:`SOURCES`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from vidnoise.checked import takes
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.option_values import SizeChange
from vidnoise.options import SourceOptions
from vidnoise.sources.address import LIVE_SCHEMES, device_address, is_device, network_options
from vidnoise.sources.protocol import Source
from vidnoise.stills.loops import is_animation
from vidnoise.stills.names import kind_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from vidnoise.notices import Notify
    from vidnoise.option_keywords import SourceKeywords
    from vidnoise.sources.container import ContainerSource

_DOWNLOADS = ("http", "https", "ftp", "sftp", "gopher", "gophers")
"""URL schemes of files, and of streams that are served like files."""

SOURCES: dict[str, str] = {
    "file": "vidnoise.sources.container:ContainerSource",
    "url": "vidnoise.sources.container:ContainerSource",
    "lavfi": "vidnoise.sources.container:ContainerSource",
    "pipe": "vidnoise.sources.pipe:PipeSource",
    "stills": "vidnoise.sources.stills:StillsSource",
    "device": "vidnoise.sources.container:ContainerSource",
}
"""Kind of input to ``module:class``, imported on first use; the scheme of a URL (``"rtsp"``) takes precedence over
``"url"``.
"""


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
    return "stills" if kind_of(uri) and not is_animation(uri) else "file"


@takes(SourceOptions)
def open_source(
    uri: str | os.PathLike[str],
    *,
    format: str | None = None,
    keeps_clock: bool = True,
    live_size_change: SizeChange | None = None,
    device: str | torch.device = "cpu",
    notify: Notify | None = None,
    **options: Unpack[SourceKeywords],
) -> Source:
    """Open a video for reading.

    Args:
        uri: A path, a URL, ``lavfi:<filter graph>``, or ``-`` for standard input.
        format: Short for ``input_format``.
        keeps_clock: Whether a transport stream keeps the timestamps of its clock; if not, it begins at 0. Other inputs
            always keep their timestamps.
        live_size_change: Default of ``size_change`` for live inputs.
        device: Device of the network: pictures that ``hwaccel`` decodes on that GPU stay there.
        notify: Called for what a user should know of the input; by default, the logger.
        options: See below, and :class:`vidnoise.options.SourceOptions`.

    Raises:
        SourceOpenError: The input is missing, unreadable or contains no video.
        DecodeError: The input opened, but not one frame could be decoded.
        FormatError: Its pixel format cannot be processed without loss.
        UsageError: An option is out of range or does not apply to this input, or a chosen track does not exist.
        DeviceError: ``hwaccel`` is ``cuda``, and no GPU can decode.
    """
    if format is not None:
        options["input_format"] = format
    return make_source(
        uri, SourceOptions.of("open_source", options),
        keeps_clock=keeps_clock, live_size_change=live_size_change, device=device, notify=notify,
    )  # fmt: skip


def make_source(
    uri: str | os.PathLike[str],
    options: SourceOptions,
    *,
    keeps_clock: bool = True,
    live_size_change: SizeChange | None = None,
    device: str | torch.device = "cpu",
    notify: Notify | None = None,
) -> Source:
    """Open a video with options that have been validated; see :func:`open_source`."""
    text = os.fspath(uri)
    if text.startswith("file:"):
        text = text[len("file:") :]
    if not text:
        raise SourceOpenError("no input given", text)
    if "\0" in text:
        raise SourceOpenError(f"{text}: no name of a file holds a zero", text)
    kind = source_kind(text)
    format, given = _demuxer(options)
    if kind == "stills" and (format or given or options.live):
        kind = "file"  # these options are for FFmpeg's demuxers
    if options.rate is not None and kind != "stills":
        raise UsageError(f"{text}: rate is for sequences of pictures; other inputs have their own", "rate")
    can_go_away = kind == "device" or (kind == "url" and text.partition(":")[0] in LIVE_SCHEMES)
    is_live = can_go_away if options.live is None else options.live
    if is_live and options.start is not None:
        raise UsageError(f"{text}: is live, so there is no start to skip to", "start")
    more: dict[str, Any] = {"keeps_clock": keeps_clock, "is_live": is_live or options.live}
    if notify is not None:
        more["notify"] = notify
    if options.hwaccel != "none":
        import torch

        from vidnoise.sources.hardware import Hardware

        more["hardware"] = Hardware(options.hwaccel, torch.device(device))
    if kind == "device":
        address = device_address(text)
        more["name"], format = address.name, address.format
    elif kind == "url" and is_live:
        given = {**network_options(text, options.rtsp_transport), **given}
    if kind in ("url", "device"):
        more["timeout"] = (options.connect_timeout, options.read_timeout or (10 if is_live else 30))
    elif options.read_timeout is not None:
        more["timeout"] = (options.connect_timeout, options.read_timeout)
    change: SizeChange = options.size_change or "stop"
    live_change = options.size_change or live_size_change or "stop"
    chosen = replace(
        options, input_format=format, input_options=given or None,
        duration=None if is_live else options.duration, size_change=live_change if is_live else change,
    )  # fmt: skip
    module, _, class_name = SOURCES[kind].partition(":")
    make = getattr(importlib.import_module(module), class_name)
    if kind == "stills":
        return make(text, options, **({} if notify is None else {"notify": notify}))

    def open_once() -> Source:
        return make(text, chosen, **more)

    ends = _ends_cleanly(kind, text, options.reconnect)
    if not is_live:
        first = open_once()
        if options.live is None and first.info.is_live:  # for example, HLS of an ongoing broadcast
            chosen = replace(chosen, size_change=live_change)
            cast("ContainerSource", first).size_change = live_change
            return _kept_alive(
                text, open_once, first, reconnect=options.reconnect, duration=options.duration,
                size_change=live_change, ends=ends,
            )  # fmt: skip
        return first
    from vidnoise.sources.live import LiveSource

    return LiveSource(
        text,
        open_once,
        reconnect=options.reconnect,
        ends=ends,
        can_go_away=can_go_away or kind == "url",
        is_paced=kind in ("file", "lavfi"),
        duration=options.duration,
        size_change=live_change,
    )


def _demuxer(options: SourceOptions) -> tuple[str | None, dict[str, str]]:
    """Return FFmpeg's name of the demuxer, if the user named one, and its options."""
    given = options.input_options or {}
    raw = (options.raw_size, options.raw_format, options.raw_rate)
    if raw != (None, None, None):
        from vidnoise.sources.raw import raw_options

        if options.input_format not in (None, "raw", "rawvideo"):
            raise UsageError(
                f"raw_size, raw_format and raw_rate are for video without a header, not for {options.input_format}",
                "raw_size", "raw_format", "raw_rate",
            )  # fmt: skip
        return "rawvideo", {**raw_options(*raw), **given}
    if options.input_format in ("raw", "rawvideo"):
        raise UsageError("raw video needs raw_size and raw_format", "raw_size", "raw_format")
    return options.input_format, dict(given)


def _ends_cleanly(kind: str, text: str, reconnect: int) -> bool:
    """Whether the end of the data is the end of the video rather than a lost connection.

    Cameras that are switched off also close their connections properly, and so does a web server that has sent
    everything. With endless ``reconnect``, a web server is asked again.
    """
    if kind == "url":
        return text.partition(":")[0] in _DOWNLOADS and reconnect >= 0
    return kind in ("file", "lavfi", "pipe")


def _kept_alive(text: str, reopen: Callable[[], Source], first: Source, **options: Any) -> Source:
    """Make a live source from a connection that is already open."""
    from vidnoise.sources.live import LiveSource

    opened = [first]
    return LiveSource(text, lambda: opened.pop() if opened else reopen(), **options)


__all__ = ["SOURCES", "SizeChange", "Source", "make_source", "open_source", "source_kind"]
