"""Where frames go. A new sink is one class here and one line in :data:`SINKS`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo


@runtime_checkable
class Sink(Protocol):
    """Takes the frames of one video. Not thread-safe: one thread opens, writes, and closes or aborts."""

    def open(self, info: StreamInfo) -> None:
        """Begin an output for frames as ``info`` describes them; nothing appears under its final name yet."""
        ...

    def write(self, frame: Frame) -> None:
        """Encode one frame (its planes in main memory) and the packets that ride on it."""
        ...

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Finish the output and give it its final name."""
        ...

    def abort(self) -> None:
        """Throw the output away. May be called at any time, also twice, also after :meth:`close`."""
        ...


SINKS: dict[str, str] = {
    "file": "vidnoise.sinks.container:ContainerSink",
    "pipe": "vidnoise.sinks.pipe:PipeSink",
}
"""Kind of address to ``module:class``; imported on use."""


def sink_kind(uri: str) -> str:
    """The key of :data:`SINKS` that writes ``uri``.

    Raises:
        UsageError: Nothing writes to such an address.
    """
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in SINKS:
        return scheme
    if uri == "-":
        return "pipe"
    if "://" in uri:
        if "url" in SINKS:
            return "url"
        raise UsageError(f"{uri}: writing to network addresses is not supported; give a file name")
    return "file"


def open_sink(
    uri: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    threads: int = 0,
    audio: str = "copy",
    format: str | None = None,
    **options: Any,
) -> Sink:
    """Prepare an output. Nothing is created before :meth:`Sink.open`.

    Args:
        uri: A path, whose extension chooses the container, or ``-`` for standard output.
        overwrite: Whether an existing file may be replaced (when the new one is complete).
        codec: ``h264``, ``hevc``, ``av1``, ``vp9``, ``ffv1``, ``prores``, or the name of any FFmpeg video encoder;
            None takes the input's codec where there is an encoder for it.
        crf: Constant quality in the encoder's own scale (lower is better); None for a good default.
        preset: Speed, ``ultrafast`` to ``veryslow`` (or the encoder's own name or number).
        pix_fmt: Pixel format; None keeps the input's, or the nearest that loses nothing.
        threads: Encoder threads; 0 lets the encoder choose.
        audio: ``copy``, ``none``, or an encoder: ``aac``, ``opus``, ``flac``.
        format: Container: ``y4m`` (the default of pipes), ``raw``, ``mkv``, ``ts``, ``nut``, or FFmpeg's name.
        options: Further options of the sink's class.

    Raises:
        SinkOpenError: The file exists, its folder does not, or the path is a folder.
        FormatError: The extension belongs to no video container.
        UsageError: An unknown codec, or options that do not go together.
    """
    text = os.fspath(uri)
    if text.startswith("file:"):
        text = text[len("file:") :]
    if not text:
        raise SinkOpenError("no output given", text)
    module, _, name = SINKS[sink_kind(text)].partition(":")
    make = getattr(importlib.import_module(module), name)
    return make(
        text,
        overwrite=overwrite,
        codec=codec,
        crf=crf,
        preset=preset,
        pix_fmt=pix_fmt,
        threads=threads,
        audio=audio,
        format=format,
        **options,
    )


__all__ = ["SINKS", "Sink", "open_sink", "sink_kind"]
