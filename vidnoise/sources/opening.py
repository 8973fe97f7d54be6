"""From an address to an opened container, every failure in one plain line."""

from __future__ import annotations

import os

import av
import av.container
import av.error

from vidnoise.errors import SourceOpenError
from vidnoise.sources.decoding import reason

_URL_TIMEOUTS = (15.0, 30.0)
"""Seconds to wait for a URL to open, and for its next packet; without them a dead server blocks for ever."""


def open_container(
    uri: str, format: str | None, options: dict[str, str] | None, timeout: float | None
) -> av.container.InputContainer:
    """Open an address for reading; see :class:`ContainerSource` for the arguments.

    Raises:
        SourceOpenError: One line that says why not.
    """
    name, waits = uri, None
    if uri == "-":
        name = "pipe:0"
    elif uri.startswith("lavfi:"):
        name, format = uri[len("lavfi:") :], "lavfi"
    elif "://" in uri or uri.startswith("pipe:"):
        waits = _URL_TIMEOUTS
    elif format is None or os.path.exists(uri):
        name = _local(uri)
    if timeout is not None:
        waits = (timeout, timeout)
    try:
        return av.open(name, "r", format=format, options=options, timeout=waits, metadata_errors="replace")
    except av.error.PermissionError as ex:
        raise SourceOpenError(f"{uri}: permission denied", uri) from ex
    except av.error.InvalidDataError as ex:
        raise SourceOpenError(f"{uri}: not a video, or damaged beyond reading (an unfinished recording?)", uri) from ex
    except av.error.EOFError as ex:
        raise SourceOpenError(f"{uri}: no data", uri) from ex
    except (av.error.ExitError, av.error.TimeoutError) as ex:
        raise SourceOpenError(f"{uri}: no answer in time", uri) from ex
    except (av.error.FFmpegError, OSError, ValueError) as ex:
        raise SourceOpenError(f"{uri}: cannot be opened: {reason(ex)}", uri) from ex


def _local(path: str) -> str:
    """The address of a local file for libav, which would take the ``a:`` of ``a:b.mp4`` for a protocol."""
    if os.path.isdir(path):
        raise SourceOpenError(f"{path}: is a directory", path)
    if not os.path.exists(path):
        if "%" in os.path.basename(path):  # a numbered sequence of pictures
            return path
        raise SourceOpenError(f"{path}: no such file", path)
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise SourceOpenError(f"{path}: is an empty file", path)
    return "file:" + path
