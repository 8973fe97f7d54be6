"""Destinations of a video: what distinguishes files, pipes, addresses and programs as outputs."""

from __future__ import annotations

import abc
import os
from typing import Protocol

from vidnoise.disk import is_same_file
from vidnoise.errors import SinkOpenError
from vidnoise.frame import StreamInfo
from vidnoise.sinks.muxer import output_options
from vidnoise.text import shown


class Output(Protocol):
    """The file object that libav writes into.

    It has ``write``; where a muxer can seek, also ``read``, ``seek`` and ``tell``.
    """

    error: OSError | None
    """The first error while writing; None without one."""
    part_path: str
    """Where the bytes are until the output is published, for messages."""

    def write(self, data: bytes) -> int: ...

    def seal(self) -> None:
        """Finish writing.

        Raises:
            OSError: A write failed, now or earlier.
        """
        ...

    def publish(self, *, overwrite: bool) -> None:
        """Give the sealed output its final name."""
        ...

    def release(self) -> None:
        """Close, and leave what was written where it is."""
        ...

    def discard(self) -> None:
        """Close, and remove what can be removed. Idempotent; may be called at any time."""
        ...


class Destination(abc.ABC):
    """Where a :class:`~vidnoise.sinks.container.ContainerSink` sends a video.

    A kind of output overrides what is special about it. Not thread-safe, except for :meth:`stop`.

    Args:
        path: The output as the user gave it.
    """

    default_format: str | None = None
    """Container to use if the user names none; None derives it from the extension of the path."""
    is_prompt = False
    """Whether each frame must be flushed at once, because a reader is waiting for it."""
    is_exclusive = False
    """Whether only one run at a time may write there."""
    address: str | None = None
    """URL or path that libav opens itself; None if it writes into the :class:`Output`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The output's name in messages."""
        return shown(self.path)

    @abc.abstractmethod
    def check(self) -> None:
        """Check that the output could be created now, without creating it.

        Raises:
            SinkOpenError: It could not.
            UsageError: Nothing of this kind can be written to.
        """

    @abc.abstractmethod
    def create(self, format_name: str) -> Output:
        """Create the output.

        Args:
            format_name: FFmpeg's name of the container.

        Raises:
            OSError, SinkOpenError, UsageError: It cannot be created.
        """

    def check_not_input(self, uri: str) -> None:
        """Check that writing does not destroy the input.

        Args:
            uri: The input; may be empty.

        Raises:
            SinkOpenError: The output is the input.
        """
        if uri and os.path.exists(uri) and is_same_file(uri, self.path):
            raise SinkOpenError(f"{self.name}: is the input itself; choose another name", self.path)

    def is_watched(self, info: StreamInfo) -> bool:
        """Whether someone watches the video as it is written, so that the encoder must not buffer frames."""
        return False

    def muxer_options(self, format_name: str, *, is_live: bool) -> dict[str, str]:
        """Options for FFmpeg's muxer.

        Args:
            format_name: FFmpeg's name of the container.
            is_live: Whether the input is live.
        """
        return output_options(format_name, is_prompt=self.is_prompt, is_live=is_live)

    def is_ready(self) -> bool:
        """Whether :meth:`create` would return without waiting for a reader."""
        return True

    def stop(self) -> None:  # noqa: B027 (a hook)
        """Stop waiting for a reader: the run is ending. Thread-safe."""

    def gives_up(self, n_written: int) -> bool:
        """Whether the peer has stalled for so long that the writing thread should be abandoned.

        Called repeatedly while the run is ending.

        Args:
            n_written: Frames written so far.
        """
        return False

    def finish(self) -> None:  # noqa: B027 (a hook)
        """Wait until the reader has taken the complete output.

        Raises:
            EncodeError: The reader failed.
        """

    def abort(self) -> None:  # noqa: B027 (a hook)
        """Release what is held for the output. Idempotent; may be called at any time."""

    def is_reader_gone(self, error: BaseException) -> bool:
        """Whether ``error`` means that the reader has gone away, which is not a failure."""
        return False

    def explanation(self, error: BaseException) -> str:
        """The reason for ``error`` if this end knows more than the error says; otherwise empty."""
        return ""
