"""Standard output, other pipes and devices: y4m unless another format is asked for, or an extension tells."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from dataclasses import replace

from vidnoise.disk import check_free
from vidnoise.errors import FormatError, SinkOpenError, UsageError
from vidnoise.options import SinkOptions
from vidnoise.sinks.capability import container_format
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.output_file import Output
from vidnoise.text import shown

STALL_SECONDS = 3.0
"""A reader that takes nothing for so long is not waited for any more, once the run is to end."""

_WAKE_SECONDS = 0.25


class PipeFile:
    """The write end of a pipe as the object that libav writes into. A slow reader makes ``write`` wait.

    While standard output is written to, whatever else would print there goes to standard error: nothing may come
    between the data.
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
        """The run is to end: a reader that takes nothing is waited for no longer. Any thread may call this."""
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
        """Until something can be written."""
        if os.name == "nt":  # which cannot wait for pipes: there the write itself waits
            return
        waited = 0.0
        while not select.select([], [self._fd], [], _WAKE_SECONDS)[1]:
            waited += _WAKE_SECONDS
            if self._is_ending and waited >= STALL_SECONDS:
                raise TimeoutError(errno.ETIMEDOUT, "its reader takes nothing any more")

    def seal(self) -> None:
        """The data is complete.

        Raises:
            OSError: A write failed, now or before.
        """
        if self.error is not None:
            raise self.error
        self.discard()

    def publish(self, *, overwrite: bool) -> None:
        """Nothing to do: what was written is read already."""

    def let_go(self) -> None:
        self.discard()

    def discard(self) -> None:
        """Let go of the pipe."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            os.close(fd)
        if self._redirected is not None:
            os.dup2(self._redirected, 1)
            os.close(self._redirected)


def _own_end(fd: int) -> tuple[int, int]:
    """An end of the pipe ``fd`` for us alone, and how much one write may hold so as never to wait inside the system.

    Its own end can be told not to wait, which would surprise whoever shares the one that we were given.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return os.dup(fd), 1 << 30
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK), 1 << 30
    except OSError:
        return os.dup(fd), getattr(select, "PIPE_BUF", 512)


def pipe_number(uri: str) -> int:
    """The file descriptor that ``-``, ``pipe:`` or ``pipe:N`` means for writing.

    Raises:
        UsageError: ``N`` is no number.
    """
    number = "" if uri == "-" else uri[len("pipe:") :]
    if number and not number.isdigit():
        raise UsageError(f"{uri}: a pipe is a number of an open file, as in pipe:1; or write - for standard output")
    return int(number or 1)


class PipeSink(ContainerSink):
    """Writes into a pipe; see :func:`vidnoise.sinks.open_sink` for the arguments."""

    default_format = "y4m"
    is_prompt = True

    def _check_path(self) -> None:
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

    def _is_reader_gone(self, error: BaseException) -> bool:
        return isinstance((self._file and self._file.error) or error, (BrokenPipeError, TimeoutError))

    def _create(self) -> Output:
        return PipeFile(pipe_number(self.path))

    @property
    def name(self) -> str:
        return "standard output" if self.path in ("-", "pipe:", "pipe:1") else shown(self.path)


class NodeSink(PipeSink):
    """Writes to a FIFO or device as to a pipe: it stays what it is; see :func:`vidnoise.sinks.open_sink`."""

    def __init__(self, path: str, options: SinkOptions) -> None:
        self._fd = -1
        self._is_ending = False
        if options.format is None:
            with contextlib.suppress(FormatError):
                options = replace(options, format=container_format(path)[0])
        super().__init__(path, options)
        self.is_ready()  # a reader that waits already is held on to while a model is loaded

    def _check_path(self) -> None:
        check_free(self.path, overwrite=self._overwrite)

    @property
    def name(self) -> str:
        return self.path

    def is_ready(self) -> bool:
        """Whether there is a reader, so that nothing has to be waited for."""
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
        super().stop()

    def _create(self) -> Output:
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
        super().abort()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
