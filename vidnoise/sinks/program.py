"""Outputs that another program shows or sends on: it reads what we write from its standard input."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidnoise.errors import EncodeError, SinkOpenError, UsageError
from vidnoise.frame import Packet, StreamInfo
from vidnoise.options import SinkOptions
from vidnoise.sinks.output_file import Output
from vidnoise.sinks.pipe import PipeFile, PipeSink
from vidnoise.text import shown

_END_SECONDS = 5
"""How long a program may take to end once it has been told to, or has closed its input."""


class Program:
    """A program that runs and reads its standard input.

    Args:
        arguments: Its name, and what it is told.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the program)
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us: what was begun is sent and shown to its end
        )  # fmt: skip

    def input(self) -> PipeFile:
        """What is written here is what it reads; its closing is the end, once :meth:`close_input` was called."""
        assert self._process.stdin is not None
        return PipeFile(self._process.stdin.fileno())

    def close_input(self) -> None:
        """Keep no end of its input but those that :meth:`input` gave."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self, is_hurried: Callable[[], bool]) -> int:
        """Wait for its end, with little patience where ``is_hurried``; returns its exit status."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_SECONDS)
            if is_hurried():
                self._process.kill()

    def terminate(self) -> None:
        """End it, whatever it is doing."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    def last_words(self) -> str:
        """What it complained of, in one line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read(10_000).decode(errors="replace").splitlines()]
        return next((line for line in lines if line), f"exit status {self._process.returncode}")


@dataclass(frozen=True)
class Receiver:
    """A program that may be given an output."""

    program: str
    why: str
    """Where it comes from or why it is needed, for the message where it is not there."""
    arguments: Callable[[str, str], list[str]]
    """What it is told, from the output's address and FFmpeg's name of the container."""
    format: str = "y4m"
    """Container where none is asked for."""
    is_live: bool = False
    """Whether someone watches: the encoder then holds nothing back."""
    may_be_closed: bool = False
    """Whether its end is what the user wants, and no failure."""


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


class ProgramSink(PipeSink):
    """Writes into a program that it starts; see :func:`vidnoise.sinks.open_sink` for the other arguments.

    Args:
        receiver: Which program.
        name: The output, for messages.
    """

    def __init__(self, path: str, options: SinkOptions, *, receiver: Receiver, name: str) -> None:
        self._receiver, self._name = receiver, name
        self._program: Program | None = None
        self._is_ending = False
        self.default_format, self.is_live = receiver.format, receiver.is_live
        super().__init__(path, options)

    @property
    def name(self) -> str:
        return self._name

    def _check_path(self) -> None:
        program, why = self._receiver.program, self._receiver.why
        if shutil.which(program) is None:
            raise SinkOpenError(f"{self.path} needs {program}, which is not installed ({why})", self.path)

    def _create(self) -> Output:
        receiver = self._receiver
        self._program = Program([receiver.program, *receiver.arguments(self.path, self._format_name)])
        return self._program.input()

    def open(self, info: StreamInfo) -> None:
        try:
            super().open(info)
        finally:
            if self._program is not None:
                self._program.close_input()

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        super().close(trailing_packets)
        program = self._program
        if program is not None and program.end(lambda: self._is_ending) != 0:
            raise EncodeError(f"{self.name}: {self._receiver.program} failed: {program.last_words()}", self.path)

    def stop(self) -> None:
        self._is_ending = True
        super().stop()

    def abort(self) -> None:
        super().abort()
        program, self._program = self._program, None
        if program is not None:
            program.terminate()

    def _is_reader_gone(self, error: BaseException) -> bool:
        return self._receiver.may_be_closed and super()._is_reader_gone(error)

    def _reason(self, error: BaseException) -> str:
        is_failure = not self._receiver.may_be_closed and super()._is_reader_gone(error)
        return self._program.last_words() if self._program is not None and is_failure else super()._reason(error)


def preview_sink(path: str, options: SinkOptions) -> ProgramSink:
    """Shows the video in a window (``window:``) of FFmpeg's player; closing the window ends it."""
    if path != "window:":
        raise UsageError(f"{path}: write window: for a preview")
    return ProgramSink(path, options, receiver=PREVIEW, name="the preview window")


def srt_sink(path: str, options: SinkOptions) -> ProgramSink:
    """Pushes over SRT by the program ffmpeg, since PyAV's wheels have no SRT."""
    return ProgramSink(path, options, receiver=SRT, name=shown(path))
