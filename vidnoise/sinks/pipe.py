"""Standard output and other pipes: y4m unless another format is asked for."""

from __future__ import annotations

import contextlib
import os
import select

from vidnoise.errors import UsageError
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.output_file import Output
from vidnoise.text import shown


class PipeFile:
    """The write end of a pipe as the object that libav writes into. A slow reader makes ``write`` wait.

    While standard output is written to, whatever else would print there goes to standard error: nothing may come
    between the data.
    """

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self.part_path = f"pipe:{fd}"
        self._fd = os.dup(fd)
        self._redirected = fd if fd == 1 else None
        if self._redirected is not None:
            os.dup2(2, 1)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:  # someone made the pipe non-blocking
                    select.select([], [self._fd], [])
        except OSError as ex:
            self.error = self.error or ex
            raise
        return len(data)

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

    def discard(self) -> None:
        """Let go of the pipe."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._redirected is not None:
            os.dup2(fd, self._redirected)
        with contextlib.suppress(OSError):
            os.close(fd)


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
        return isinstance((self._file and self._file.error) or error, BrokenPipeError)

    def _create(self) -> Output:
        return PipeFile(pipe_number(self.path))

    @property
    def name(self) -> str:
        return "standard output" if self.path in ("-", "pipe:", "pipe:1") else shown(self.path)
