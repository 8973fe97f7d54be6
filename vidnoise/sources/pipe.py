"""Standard input and other pipes: any container that can be read without seeking, y4m, or raw samples."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys

import av.container

from vidnoise.errors import SourceOpenError
from vidnoise.frame import Packet
from vidnoise.sources.container import ContainerSource
from vidnoise.sources.opening import LONG_PROBE, open_container

_WAKE_SECONDS = 0.2
"""Interval at which a blocked read checks whether it was stopped."""

_LATE_STREAMS = (b"FLV", b"\x00\x00\x01\xba")
"""Signatures of containers without a list of streams: FLV, MPEG program streams."""

_WHITELIST = "file,crypto,data"
"""Protocols that a playlist on standard input may use: as for one in a file, none over the network."""

_FIXED_SIZE_PICTURES = ("yuv4mpegpipe", "rawvideo")
"""Formats in which nothing may follow the last complete picture."""


class PipeReader:
    """The read end of a pipe as a file object for libav; counts the bytes.

    Args:
        fd: File descriptor of the pipe.
        timeout_seconds: How long to wait for data; None for no limit.
    """

    def __init__(self, fd: int, timeout_seconds: float | None = None) -> None:
        self.n_bytes = 0
        self.ended = False
        self._fd = fd
        self._timeout_seconds = timeout_seconds
        self.stopped = False
        self._ahead = b""

    def stop(self) -> None:
        """End the data here; a blocked read returns soon. Thread-safe."""
        self.stopped = True

    def peek(self, n: int) -> bytes:
        """Return up to ``n`` bytes from the start, which :meth:`read` will return again."""
        ahead = b""
        while len(ahead) < n and (more := self._more(n - len(ahead))):
            ahead += more
        self._ahead = ahead
        return ahead

    def read(self, n: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:n], self._ahead[n:]
            return data
        return self._more(n)

    def _more(self, n: int) -> bytes:
        if not self._wait():
            return b""
        data = os.read(self._fd, n)
        self.n_bytes += len(data)
        self.ended = not data
        return data

    def _wait(self) -> bool:
        waited = 0.0
        while not self.stopped:
            if sys.platform == "win32" or select.select([self._fd], [], [], _WAKE_SECONDS)[0]:
                return True  # select() does not work on pipes on Windows; the read itself blocks
            waited += _WAKE_SECONDS
            if self._timeout_seconds is not None and waited >= self._timeout_seconds:
                raise TimeoutError("no data came in time")
        return False


class PipeSource(ContainerSource):
    """Reads standard input (``-``) or the open file ``pipe:N``; see :class:`ContainerSource` for the arguments."""

    def _open(
        self, format: str | None, options: dict[str, str] | None, timeout: float | tuple[float, float] | None
    ) -> av.container.InputContainer:
        fd = 0 if self.uri == "-" else _pipe_number(self.uri)
        try:
            is_terminal = os.isatty(fd)
            os.fstat(fd)
        except OSError as ex:
            raise SourceOpenError(f"{self.uri}: is no open file: {ex.strerror or ex}", self.uri) from ex
        if is_terminal:
            raise SourceOpenError(
                f"{self.uri}: is a terminal, not a video; send one in (... | vidnoise - -o OUT)", self.uri
            )
        self._pipe = PipeReader(fd, timeout[1] if isinstance(timeout, tuple) else timeout)
        if not self._is_live and format is None:
            with contextlib.suppress(TimeoutError):  # opening the pipe will report it
                if self._pipe.peek(4).startswith(_LATE_STREAMS):
                    options = {**LONG_PROBE, **(options or {})}
        options = {"protocol_whitelist": _WHITELIST, **(options or {})}
        return open_container(self.uri, format, options, None, file=self._pipe, accelerator=self._accelerator)

    def stop(self) -> None:
        super().stop()
        self._pipe.stop()

    def next_part(self) -> bool:
        self._pipe.stopped = False
        return super().next_part()

    def _nothing_decoded(self) -> str:
        n_bytes = self._pipe.n_bytes
        if not n_bytes:
            return f"{self.uri}: no data"
        if self._container.format.name in _FIXED_SIZE_PICTURES:
            return f"{self.uri}: ended early: {n_bytes} bytes came, which is not one whole picture"
        return f"{self.uri}: not one picture could be decoded in {n_bytes} bytes; it ended early, or is damaged"

    def _finish(self, packets: tuple[Packet, ...], n_frames: int) -> None:
        super()._finish(packets, n_frames)
        missing = self._pipe.n_bytes - self._decoded.end_position
        if self._container.format.name in _FIXED_SIZE_PICTURES and missing and not self._pipe.stopped:
            self.ended_early_seconds = float(self._pictures.ticks_per_frame() * self._time_base)
            self._notify(logging.WARNING, "%s: ended early, in the middle of frame %d", self.uri, n_frames)


def _pipe_number(uri: str) -> int:
    number = uri[len("pipe:") :]
    if number and not number.isdigit():
        raise SourceOpenError(f"{uri}: a pipe is a number of an open file, as in pipe:0; or write -", uri)
    return int(number or 0)
