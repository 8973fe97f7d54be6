"""Outputs that go through another program, which reads the video from its standard input."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidnoise.errors import EncodeError, SinkOpenError, UsageError
from vidnoise.frame import StreamInfo
from vidnoise.options import SinkOptions
from vidnoise.sinks.destination import Destination, Output
from vidnoise.sinks.pipe import PipeFile, is_reader_gone
from vidnoise.text import shown

_END_SECONDS = 5
"""How long a program may take to exit after its input was closed, or after it was terminated."""


class Program:
    """A running program that reads its standard input.

    Args:
        arguments: The program and its arguments.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the program)
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._stderr,
            start_new_session=True,  # Ctrl-C must not reach it: it still has to take the end of the video
        )  # fmt: skip

    def input(self) -> PipeFile:
        """Return the program's standard input. Closing it tells the program that the video is complete."""
        assert self._process.stdin is not None
        with self._process.stdin as stdin:  # the file has an end of its own, which must be the only one
            return PipeFile(stdin.fileno())

    def wait(self, *, is_hurried: Callable[[], bool]) -> int:
        """Wait until the program exits, and return its exit status.

        Args:
            is_hurried: Called every few seconds; once it returns True, the program is killed.
        """
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_SECONDS)
            if is_hurried():
                self._process.kill()

    def terminate(self) -> None:
        """Terminate the program, whatever it is doing."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    def error_message(self) -> str:
        """The first line that the program wrote to standard error, or its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read(10_000).decode(errors="replace").splitlines()]
        return next((line for line in lines if line), f"exit status {self._process.returncode}")


@dataclass(frozen=True)
class Receiver:
    """A program that can receive a video."""

    program: str
    why: str
    """Where the program comes from, or why it is needed, for the error message if it is missing."""
    arguments: Callable[[str, str], list[str]]
    """Makes its arguments from the output's address and FFmpeg's name of the container."""
    format: str = "y4m"
    """Container to use if the user names none."""
    is_live: bool = False
    """Whether someone watches as the video is written, so that the encoder must not buffer frames."""
    may_be_closed: bool = False
    """Whether the user may close the program; otherwise its exit is a failure."""


PREVIEW = Receiver(
    "ffplay", "it comes with FFmpeg",
    lambda _, form: ["-v", "error", "-nostats", "-autoexit", "-window_title", "vidnoise", "-i", "-"],
    may_be_closed=True,
)  # fmt: skip

SRT = Receiver(
    "ffmpeg", "PyAV's wheels have no SRT, Debian's ffmpeg and most others do",
    lambda address, form: [
        "-v", "error", "-nostdin", "-analyzeduration", "500000", "-f", form, "-i", "-",
        "-map", "0", "-c", "copy", "-flush_packets", "1", "-f", form, address,
    ],
    format="mpegts", is_live=True,
)  # fmt: skip


class ProgramDestination(Destination):
    """A program that is started, and reads the video from its standard input.

    Args:
        path: The output as the user gave it.
        receiver: The program to start.
        name: The output's name in messages.
    """

    is_prompt = True

    def __init__(self, path: str, receiver: Receiver, name: str) -> None:
        super().__init__(path)
        self.default_format = receiver.format
        self._receiver, self._name = receiver, name
        self._program: Program | None = None
        self._is_ending = False

    @property
    def name(self) -> str:
        return self._name

    def check(self) -> None:
        program, why = self._receiver.program, self._receiver.why
        if shutil.which(program) is None:
            raise SinkOpenError(f"{self.path} needs {program}, which is not installed ({why})", self.path)

    def create(self, format_name: str) -> Output:
        receiver = self._receiver
        self._program = Program([receiver.program, *receiver.arguments(self.path, format_name)])
        return self._program.input()

    def is_watched(self, info: StreamInfo) -> bool:
        return self._receiver.is_live

    def stop(self) -> None:
        self._is_ending = True

    def finish(self) -> None:
        program = self._program
        if program is not None and program.wait(is_hurried=lambda: self._is_ending) != 0:
            raise EncodeError(f"{self.name}: {self._receiver.program} failed: {program.error_message()}", self.path)

    def abort(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.terminate()

    def is_reader_gone(self, error: BaseException) -> bool:
        return self._receiver.may_be_closed and is_reader_gone(error)

    def explanation(self, error: BaseException) -> str:
        """The program's own error message, where writing failed because the program ended."""
        is_failure = not self._receiver.may_be_closed and is_reader_gone(error)
        return self._program.error_message() if self._program is not None and is_failure else ""


def preview(path: str, options: SinkOptions) -> ProgramDestination:
    """A window (``window:``) of FFmpeg's player; closing the window ends the run."""
    if path != "window:":
        raise UsageError(f"{path}: write window: for a preview")
    return ProgramDestination(path, PREVIEW, "the preview window")


def srt(path: str, options: SinkOptions) -> ProgramDestination:
    """An SRT address, served by the ffmpeg program, since PyAV's wheels are built without SRT."""
    return ProgramDestination(path, SRT, shown(path))
