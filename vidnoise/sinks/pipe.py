"""Standard output, other pipes and devices; y4m unless the options or the extension name another format."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time

from vidnoise.disk import check_free
from vidnoise.errors import FormatError, SinkOpenError, UsageError
from vidnoise.options import SinkOptions
from vidnoise.sinks.capability import container_format
from vidnoise.sinks.destination import Destination, Output
from vidnoise.text import shown

STALL_SECONDS = 3.0
"""How long to wait, once the run is ending, for a reader that takes nothing."""

_WAKE_SECONDS = 0.25


class PipeFile:
    """The write end of a pipe as a file object for libav. ``write`` blocks while the reader is slow.

    While the pipe is standard output, anything else printed there is redirected to standard error, so that nothing
    gets in between the data.

    Args:
        fd: The pipe, which is duplicated and stays open.
    """

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self.part_path = f"pipe:{fd}"
        self._is_ending = False
        self._fd, self._most = _own_end(fd)
        self._redirected = os.dup(fd) if fd == 1 else None
        if self._redirected is not None:
            with contextlib.suppress(OSError):  # standard error is closed
                os.dup2(2, 1)

    def stop(self) -> None:
        """Give up on a reader that takes nothing: the run is ending. Thread-safe."""
        self._is_ending = True

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                self._wait()
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._fd, view[: self._most]) :]
        except OSError as ex:
            self.error = self.error or ex
            raise
        return len(data)

    def _wait(self) -> None:
        """Block until the pipe can be written to."""
        if os.name == "nt":  # select() does not work on pipes there; the write itself blocks
            return
        waited = 0.0
        while not select.select([], [self._fd], [], _WAKE_SECONDS)[1]:
            waited += _WAKE_SECONDS
            if self._is_ending and waited >= STALL_SECONDS:
                raise TimeoutError(errno.ETIMEDOUT, "its reader takes nothing any more")

    def seal(self) -> None:
        """Close the pipe after the last byte.

        Raises:
            OSError: A write failed.
        """
        if self.error is not None:
            raise self.error
        self.discard()

    def publish(self, *, overwrite: bool) -> None:
        """Do nothing: the reader has the data already."""

    def release(self) -> None:
        self.discard()

    def discard(self) -> None:
        """Close the pipe. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            os.close(fd)
        if self._redirected is not None:
            os.dup2(self._redirected, 1)
            os.close(self._redirected)


def _own_end(fd: int) -> tuple[int, int]:
    """Reopen the pipe ``fd`` as a non-blocking descriptor of our own, where the system allows it.

    Setting O_NONBLOCK on ``fd`` itself would affect every process that shares it.

    Returns:
        The new descriptor, and the most bytes to pass to one write so that it never blocks in the kernel.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return os.dup(fd), 1 << 30
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK), 1 << 30
    except OSError:
        return os.dup(fd), getattr(select, "PIPE_BUF", 512)


def pipe_number(uri: str) -> int:
    """Return the file descriptor to write to for ``-``, ``pipe:`` or ``pipe:N``.

    Raises:
        UsageError: ``N`` is not a number.
    """
    number = "" if uri == "-" else uri[len("pipe:") :]
    if number and not number.isdigit():
        raise UsageError(f"{uri}: a pipe is a number of an open file, as in pipe:1; or write - for standard output")
    return int(number or 1)


def is_reader_gone(error: BaseException) -> bool:
    """Whether ``error`` means that the reader of a pipe has closed it, or takes nothing any more."""
    return isinstance(error, (BrokenPipeError, TimeoutError))


class PipeDestination(Destination):
    """Standard output, or another pipe that is open already: ``-``, ``pipe:`` or ``pipe:N``."""

    default_format = "y4m"
    is_prompt = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)

    @property
    def name(self) -> str:
        return "standard output" if self.path in ("-", "pipe:", "pipe:1") else shown(self.path)

    def check(self) -> None:
        fd = pipe_number(self.path)
        try:
            is_terminal = os.isatty(fd)
            os.fstat(fd)
        except OSError as ex:
            raise UsageError(f"{self.path}: is no open file: {ex.strerror or ex}") from ex
        if is_terminal:
            raise UsageError(
                f"{self.name}: is a terminal; send it into a program or a file (vidnoise ... -o - | ffplay -)"
            )

    def create(self, format_name: str) -> Output:
        return PipeFile(pipe_number(self.path))

    def is_reader_gone(self, error: BaseException) -> bool:
        return is_reader_gone(error)


class NodeDestination(Destination):
    """A FIFO or device, which is written to like a pipe and never replaced."""

    is_prompt = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)
        self._overwrite = options.overwrite
        self._fd = -1
        self._is_ending = False
        self.default_format = "y4m"
        with contextlib.suppress(FormatError):
            self.default_format = container_format(path)[0]

    @property
    def name(self) -> str:
        return self.path

    def check(self) -> None:
        check_free(self.path, overwrite=self._overwrite)

    def is_ready(self) -> bool:
        """Open the node if it has a reader, and keep it open; returns whether it is open."""
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0))
            except OSError as ex:
                if ex.errno != errno.ENXIO:
                    raise SinkOpenError(f"{self.path}: cannot be written: {ex.strerror or ex}", self.path) from ex
                return False
        return True

    def stop(self) -> None:
        self._is_ending = True

    def create(self, format_name: str) -> Output:
        while not self.is_ready():
            if self._is_ending:
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")
            time.sleep(_WAKE_SECONDS)
        fd, self._fd = self._fd, -1
        try:
            if os.isatty(fd):
                raise UsageError(f"{self.path}: is a terminal; send the video into a program or a file")
            return PipeFile(fd)
        finally:
            os.close(fd)

    def abort(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def is_reader_gone(self, error: BaseException) -> bool:
        return is_reader_gone(error)
