"""Opening of containers, with every failure reported in one plain line."""

from __future__ import annotations

import os
import time
from typing import Any, cast

import av
import av.container
import av.error

from vidnoise.errors import SourceOpenError
from vidnoise.frame.passthrough import FORMAT_NAMES
from vidnoise.sources.decoding import reason

_URL_TIMEOUTS = (15.0, 30.0)
"""Seconds to wait for a URL to open, and for its next packet; otherwise a dead server would block forever."""


_BUFFER_SIZE = 1 << 18

_METADATA_ERRORS: dict[str, Any] = (
    {"metadata_errors": "replace"} if hasattr(av.container.Container, "metadata_errors") else {}
)
"""Tags that are no UTF-8 must not stop a file from opening. PyAV 19 has no argument for this, and never stops."""

_LATE_STREAMS = ("flv", "mpeg")
"""Containers without a list of streams: each stream is known only from its first packet on."""

LONG_PROBE = {"probesize": str(64 << 20), "analyzeduration": str(600 * 1_000_000)}
"""Options for files whose audio begins late: libav probes only 5 MB or a few seconds by default."""


def open_container(
    uri: str,
    format: str | None,
    options: dict[str, str] | None,
    timeout: float | tuple[float, float] | None,
    *,
    file: Any = None,
    name: str = "",
    accelerator: Any = None,
) -> av.container.InputContainer:
    """Open an address for reading.

    Args:
        uri, format, options, timeout: As for :class:`ContainerSource`.
        file: An object with ``read`` for libav to read from, instead of the address.
        name: libav's name of a device.
        accelerator: An ``av.codec.hwaccel.HWAccel`` for decoding.

    Raises:
        SourceOpenError: The reason in one line.
    """
    target: Any = name or uri
    waits = None
    if file is not None:
        target = file
    elif name:
        if format not in av.formats_available:
            raise SourceOpenError(f"{uri}: this build of FFmpeg cannot read such devices ({format})", uri)
    elif uri.startswith("lavfi:"):
        target, format = uri[len("lavfi:") :], "lavfi"
    elif "://" in uri:
        waits = _URL_TIMEOUTS
    elif format is None or os.path.exists(uri):
        target = _local(uri)
    if timeout is not None:
        waits = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    begin = time.monotonic()
    try:

        def opened(more: dict[str, str]) -> av.container.InputContainer:
            container = av.open(
                target, "r", format=FORMAT_NAMES.get(format or "", format), options={**more, **(options or {})},
                timeout=waits, buffer_size=_BUFFER_SIZE, hwaccel=accelerator, **_METADATA_ERRORS,
            )  # fmt: skip
            return cast(av.container.InputContainer, container)

        container = opened({})
        if isinstance(target, str) and target.startswith("file:") and _needs_long_probe(container):
            container.close()
            container = opened(LONG_PROBE)
        return container
    except av.error.PermissionError as ex:
        raise SourceOpenError(f"{uri}: permission denied", uri) from ex
    except av.error.ProtocolNotFoundError as ex:
        raise SourceOpenError(
            f"{uri}: this build of FFmpeg does not know {uri.partition(':')[0]}; a program that does can send it in: "
            "ffmpeg -i URL -c copy -f mpegts - | vidnoise - --live -o OUT", uri,
        ) from ex  # fmt: skip
    except av.error.InvalidDataError as ex:
        if file is not None and file.n_bytes == 0:
            raise SourceOpenError(f"{uri}: no data", uri) from ex
        if waits and time.monotonic() - begin >= waits[0]:  # how libav's RTSP demuxer reports a timeout
            raise SourceOpenError(f"{uri}: no answer in time", uri) from ex
        raise SourceOpenError(f"{uri}: {_problem(format, file)}", uri) from ex
    except av.error.EOFError as ex:
        if file is not None and file.n_bytes:
            raise SourceOpenError(f"{uri}: {_ended_early(file)}", uri) from ex
        raise SourceOpenError(f"{uri}: no data", uri) from ex
    except (av.error.ExitError, TimeoutError) as ex:
        raise SourceOpenError(f"{uri}: no answer in time", uri) from ex
    except (av.error.FFmpegError, OSError, ValueError) as ex:
        if file is not None and file.n_bytes and file.ended:
            raise SourceOpenError(f"{uri}: {_ended_early(file)}", uri) from ex
        raise SourceOpenError(f"{uri}: cannot be opened: {reason(ex)}", uri) from ex


def _needs_long_probe(container: av.container.InputContainer) -> bool:
    """Whether there may be more streams than were found, or one without a packet yet."""
    if container.format.name in _LATE_STREAMS:
        return True
    return any(not getattr(s.codec_context, "sample_rate", 1) for s in container.streams.audio)


def _problem(format: str | None, file: Any) -> str:
    if format is not None:
        return f"is not {format}, or damaged beyond reading"
    if file is None:
        return "not a video, or damaged beyond reading (an unfinished recording?)"
    return (
        "not a video that a pipe can carry, or damaged (bare samples need raw_size and raw_format; "
        "an mp4 has to be made with -movflags frag_keyframe)"
    )


def _ended_early(file: Any) -> str:
    return f"ended early, or is no video: {file.n_bytes} bytes came, but no picture"


def _local(path: str) -> str:
    """Return libav's address of a local file: without a prefix, the ``a:`` of ``a:b.mp4`` would be a protocol."""
    if os.path.isdir(path):
        raise SourceOpenError(f"{path}: is a directory", path)
    if not os.path.exists(path):
        if "%" in os.path.basename(path):  # a numbered sequence of pictures
            return path
        raise SourceOpenError(f"{path}: no such file", path)
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise SourceOpenError(f"{path}: is an empty file", path)
    return "file:" + path
