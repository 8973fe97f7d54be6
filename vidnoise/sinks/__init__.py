"""Where frames go. A new sink is one class here and one line in :data:`SINKS`."""

from __future__ import annotations

import importlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vidnoise.checked import takes
from vidnoise.disk import check_apart, is_node
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame.passthrough import FORMAT_NAMES
from vidnoise.options import SinkOptions
from vidnoise.sinks.protocol import Sink
from vidnoise.stills.names import kind_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vidnoise.options import SinkKeywords

SINKS: dict[str, str] = {
    "file": "vidnoise.sinks.container:ContainerSink",
    "stills": "vidnoise.sinks.stills:picture_sink",
    "pipe": "vidnoise.sinks.pipe:PipeSink",
    "node": "vidnoise.sinks.pipe:NodeSink",
    "url": "vidnoise.sinks.direct:NetworkSink",
    "hls": "vidnoise.sinks.direct:HlsSink",
    "camera": "vidnoise.sinks.direct:CameraSink",
    "window": "vidnoise.sinks.program:preview_sink",
    "srt": "vidnoise.sinks.program:srt_sink",
}
"""Kind of address to ``module:class`` (or a function that makes one); imported on use."""


def sink_kind(uri: str) -> str:
    """The key of :data:`SINKS` that writes ``uri``."""
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in SINKS and scheme != "node":
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
"""Formats and extensions of containers whose times are those of a clock: it need not begin at 0."""


def check_places(outputs: Iterable[str], *, reads: Iterable[str], writes: Iterable[str] = ()) -> None:
    """Nothing of a run is written over what it reads or writes elsewhere.

    Args:
        outputs: As :func:`open_sink` takes them.
        reads, writes: Paths of other files.

    Raises:
        SinkOpenError: It would be; the segments of HLS count.
    """
    outputs, reads, writes = list(outputs), list(reads), list(writes)
    files = [uri.removeprefix("file:") for uri in outputs if sink_kind(uri) in ("file", "stills", "hls", "node")]
    check_apart(reads, [*files, *writes])
    for playlist in (uri for uri in outputs if sink_kind(uri) == "hls"):
        from vidnoise.sinks.direct import is_segment

        for path in (*reads, *files, *writes):
            if is_segment(path, playlist):
                raise SinkOpenError(f"{path}: has the name of a segment of {playlist}; choose another one", path)


def numbered(uri: str) -> str:
    """The name of the file that goes on where ``uri`` had to end: ``rec.mkv``, ``rec-2.mkv``, ... as far as is free."""
    stem, extension = os.path.splitext(uri.removeprefix("file:"))
    return next(name for n in itertools.count(2) if not os.path.lexists(name := f"{stem}-{n}{extension}"))


def keeps_clock(uri: str | os.PathLike[str], format: str | None = None) -> bool:
    """Whether an output has a clock that may stand anywhere at its beginning, so that the input's can go on in it."""
    name = format or os.path.splitext(os.fspath(uri))[1].lower().lstrip(".")
    return FORMAT_NAMES.get(name, name) in _CLOCKED


@takes(SinkOptions)
def open_sink(uri: str | os.PathLike[str], **options: Unpack[SinkKeywords]) -> Sink:
    """Prepare an output. Nothing is created before :meth:`Sink.open`.

    Args:
        uri: A path, whose extension chooses the container (a FIFO or device is written to as to a pipe); ``-`` for
            standard output; a URL to push to; ``x.m3u8`` for
            HLS; ``/dev/videoN`` for a virtual camera; ``window:`` for a preview.
        options: See below, and :class:`vidnoise.options.SinkOptions`.

    Raises:
        SinkOpenError: The file exists, its folder does not, or the path is a folder.
        FormatError: The extension belongs to no video container.
        UsageError: An unknown codec, or options that do not go together.
    """
    return make_sink(uri, SinkOptions.of("open_sink", options))


def make_sink(uri: str | os.PathLike[str], options: SinkOptions) -> Sink:
    """What :func:`open_sink` does, from options that are checked already."""
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
        its_own = replace(options, tee=(), codec=None, crf=None, quality=None, preset=None, pix_fmt=None, format=None)
        first = make_sink(text, replace(options, tee=()))
        return TeeSink([first, *(make_sink(other, its_own) for other in options.tee)])
    module, _, name = SINKS[sink_kind(text)].partition(":")
    return getattr(importlib.import_module(module), name)(text, options)


def _check_different(*uris: str) -> None:
    """Raises UsageError where two outputs are one. Two windows are two."""
    seen: set[str] = set()
    for uri in uris:
        kind = sink_kind(uri)
        same = {"pipe": f"pipe:{uri.removeprefix('pipe:').removeprefix('-') or 1}", "window": f"{uri} {len(seen)}"}
        place = same.get(kind) or (uri if "://" in uri else os.path.realpath(uri.removeprefix("file:")))
        if place in seen:
            raise UsageError(f"{uri}: is an output already; each output needs a place of its own")
        seen.add(place)


__all__ = ["SINKS", "Sink", "check_places", "keeps_clock", "make_sink", "numbered", "open_sink", "sink_kind"]
