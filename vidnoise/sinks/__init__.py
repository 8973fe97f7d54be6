"""Outputs of every kind. A new kind of output is one class here and one line in :data:`DESTINATIONS`."""

from __future__ import annotations

import importlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vidnoise.checked import takes
from vidnoise.disk import check_distinct, is_node
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame.passthrough import FORMAT_NAMES
from vidnoise.options import SinkOptions
from vidnoise.sinks.protocol import Sink
from vidnoise.stills.names import kind_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vidnoise.option_keywords import SinkKeywords

DESTINATIONS: dict[str, str] = {
    "file": "vidnoise.sinks.file:FileDestination",
    "pipe": "vidnoise.sinks.pipe:PipeDestination",
    "node": "vidnoise.sinks.pipe:NodeDestination",
    "url": "vidnoise.sinks.direct:NetworkDestination",
    "hls": "vidnoise.sinks.direct:HlsDestination",
    "camera": "vidnoise.sinks.direct:CameraDestination",
    "window": "vidnoise.sinks.program:preview",
    "srt": "vidnoise.sinks.program:srt",
}
"""Kind of output to ``module:name`` of what makes its destination from a path and options; imported on first use."""


def sink_kind(uri: str) -> str:
    """Return the key of :data:`DESTINATIONS` for ``uri``; ``stills`` for pictures, which are a file each."""
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in DESTINATIONS and scheme != "node":
        return scheme
    if uri == "-":
        return "pipe"
    if "://" in uri:
        return "url"
    if re.fullmatch(r"/dev/video\d+", uri):
        return "camera"
    if is_node(uri.removeprefix("file:")):
        return "node"
    if kind_of(uri.removeprefix("file:")):
        return "stills"
    return "hls" if uri.lower().endswith(".m3u8") else "file"


_CLOCKED = ("mpegts", "m2ts", "mts", "m2t", "mpeg", "mpg", "vob")
"""Formats and extensions of containers with a running clock, which need not start at zero."""


def check_places(outputs: Iterable[str], *, reads: Iterable[str], writes: Iterable[str] = ()) -> None:
    """Check that no file of a run overwrites another that the run reads or writes.

    Args:
        outputs: URIs as :func:`open_sink` takes them.
        reads: Paths of the other files that the run reads.
        writes: Paths of the other files that the run writes.

    Raises:
        SinkOpenError: A file would be overwritten; segments of HLS playlists count.
    """
    outputs, reads, writes = list(outputs), list(reads), list(writes)
    files = [uri.removeprefix("file:") for uri in outputs if sink_kind(uri) in ("file", "stills", "hls", "node")]
    check_distinct(reads, [*files, *writes])
    for playlist in (uri for uri in outputs if sink_kind(uri) == "hls"):
        from vidnoise.sinks.direct import is_segment

        for path in (*reads, *files, *writes):
            if is_segment(path, playlist):
                raise SinkOpenError(f"{path}: has the name of a segment of {playlist}; choose another one", path)


def numbered(uri: str) -> str:
    """Return the first free name that continues ``uri``: ``rec-2.mkv``, ``rec-3.mkv``, ... for ``rec.mkv``."""
    stem, extension = os.path.splitext(uri.removeprefix("file:"))
    return next(name for n in itertools.count(2) if not os.path.lexists(name := f"{stem}-{n}{extension}"))


def keeps_clock(uri: str | os.PathLike[str], format: str | None = None) -> bool:
    """Whether the timestamps of an output may start anywhere, so that it can keep the clock of a broadcast."""
    name = format or os.path.splitext(os.fspath(uri))[1].lower().lstrip(".")
    return FORMAT_NAMES.get(name, name) in _CLOCKED


@takes(SinkOptions)
def open_sink(uri: str | os.PathLike[str], **options: Unpack[SinkKeywords]) -> Sink:
    """Prepare an output without creating anything yet; see :meth:`Sink.open`.

    Args:
        uri: A path, whose extension selects the container; ``-`` for standard output; a URL to push to; ``x.m3u8`` for
            HLS; ``/dev/videoN`` for a virtual camera; ``window:`` for a preview. A FIFO or device is written to like a
            pipe.
        options: See below, and :class:`vidnoise.options.SinkOptions`.

    Raises:
        SinkOpenError: The file exists, its folder does not, or the path is a folder.
        FormatError: The extension belongs to no video container.
        UsageError: An unknown codec, or options that do not go together.
    """
    return make_sink(uri, SinkOptions.of("open_sink", options))


def make_sink(uri: str | os.PathLike[str], options: SinkOptions) -> Sink:
    """Prepare an output from options that have been validated; see :func:`open_sink`."""
    text = os.fspath(uri)
    if text.startswith("file:"):
        text = text[len("file:") :]
    if not text:
        raise SinkOpenError("no output given", text)
    if "\0" in text:
        raise SinkOpenError(f"{text}: no name of a file holds a zero", text)
    if options.tee:
        from vidnoise.sinks.several import TeeSink

        _check_different(text, *(os.fspath(other) for other in options.tee))
        tee_options = replace(
            options, tee=(), codec=None, crf=None, quality=None, preset=None, pix_fmt=None, format=None
        )
        first = make_sink(text, replace(options, tee=()))
        return TeeSink([first, *(make_sink(other, tee_options) for other in options.tee)])
    kind = sink_kind(text)
    if kind == "stills":
        from vidnoise.sinks.stills import picture_sink

        return picture_sink(text, options)
    from vidnoise.sinks.container import ContainerSink

    module, _, name = DESTINATIONS[kind].partition(":")
    return ContainerSink(getattr(importlib.import_module(module), name)(text, options), options)


def _check_different(*uris: str) -> None:
    """Raise UsageError if two outputs are the same; windows never are."""
    seen: set[str] = set()
    for uri in uris:
        kind = sink_kind(uri)
        same = {"pipe": f"pipe:{uri.removeprefix('pipe:').removeprefix('-') or 1}", "window": f"{uri} {len(seen)}"}
        place = same.get(kind) or (uri if "://" in uri else os.path.realpath(uri.removeprefix("file:")))
        if place in seen:
            raise UsageError(f"{uri}: is an output already; each output needs a place of its own")
        seen.add(place)


__all__ = ["DESTINATIONS", "Sink", "check_places", "keeps_clock", "make_sink", "numbered", "open_sink", "sink_kind"]
