"""Where frames come from. A new source is one class here and one line in :data:`SOURCES`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo


@runtime_checkable
class Source(Protocol):
    """A video stream that can be read once, front to back. One thread iterates and closes; any may call ``stop``."""

    info: StreamInfo
    n_corrupt: int
    """Packets and frames found damaged so far (skipped, or patched up by the decoder)."""
    trailing_packets: tuple[Packet, ...]
    """After the last frame: packets of other streams that came behind it."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in presentation order; closes the source at the end."""
        ...

    def stop(self) -> None:
        """No more frames are wanted: iteration ends soon, also while it waits for data. Any thread may call this."""
        ...

    def close(self) -> None:
        """Release the input. May be called twice."""
        ...


SOURCES: dict[str, str] = {
    "file": "vidnoise.sources.container:ContainerSource",
    "url": "vidnoise.sources.container:ContainerSource",
    "lavfi": "vidnoise.sources.container:ContainerSource",
    "pipe": "vidnoise.sources.pipe:PipeSource",
}
"""Kind of address to ``module:class``; a URL's own scheme (``"rtsp"``) goes before ``"url"``. Imported on use."""


def source_kind(uri: str) -> str:
    """The key of :data:`SOURCES` that reads ``uri``."""
    if uri == "-":
        return "pipe"
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in SOURCES:
        return scheme
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
        options: Further options of the source's class.

    Raises:
        SourceOpenError: The input is missing, unreadable or holds no video.
        DecodeError: The input opened, but not one frame could be decoded.
        FormatError: Its pixel format cannot be processed without loss.
        UsageError: ``start`` or ``duration`` make no sense for it.
    """
    text = os.fspath(uri)
    if text.startswith("file:"):
        text = text[len("file:") :]
    if not text:
        raise SourceOpenError("no input given", text)
    if start is not None and not 0 <= start < float("inf"):
        raise UsageError(f"start must be 0 seconds or more, got {start:g}")
    if duration is not None and not 0 < duration < float("inf"):
        raise UsageError(f"duration must be more than 0 seconds, got {duration:g}")
    if threads < 0:
        raise UsageError(f"threads must be 0 (automatic) or more, got {threads}")
    if (raw_size, raw_format, raw_rate) != (None, None, None):
        from .raw import raw_options

        if format not in (None, "raw", "rawvideo"):
            raise UsageError(f"raw_size, raw_format and raw_rate are for video without a header, not for {format}")
        format, options["options"] = "rawvideo", raw_options(raw_size, raw_format, raw_rate)
    elif format in ("raw", "rawvideo"):
        raise UsageError("raw video needs raw_size and raw_format")
    if format is not None:
        options["format"] = format
    module, _, name = SOURCES[source_kind(text)].partition(":")
    make = getattr(importlib.import_module(module), name)
    return make(text, start=start, duration=duration, threads=threads, **options)


__all__ = ["SOURCES", "Source", "open_source", "source_kind"]
