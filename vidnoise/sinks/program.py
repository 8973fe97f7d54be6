"""Outputs that another program shows or sends on: it reads what we write from its standard input."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

from vidnoise.errors import EncodeError, SinkOpenError, UsageError
from vidnoise.frame import Packet, StreamInfo
from vidnoise.options import SinkOptions
from vidnoise.sinks.output_file import Output
from vidnoise.sinks.pipe import PipeFile, PipeSink
from vidnoise.text import shown

_END_SECONDS = 5
"""How long a program may take to end once it has been told to, or has closed its input."""


class ProgramSink(PipeSink):
    """Writes into a program that it starts; see :func:`vidnoise.sinks.open_sink` for the arguments."""

    program = ""
    why = ""
    """Where it comes from or why it is needed, for the message where it is not there."""

    def __init__(self, path: str, options: SinkOptions) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._is_ending = False
        super().__init__(path, options)

    def _command(self) -> list[str]:
        """The program's arguments."""
        raise NotImplementedError

    def _check_path(self) -> None:
        if shutil.which(self.program) is None:
            raise SinkOpenError(f"{self.path} needs {self.program}, which is not installed ({self.why})", self.path)

    def _create(self) -> Output:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the program)
        self._process = subprocess.Popen(
            [self.program, *self._command()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us: what was begun is sent and shown to its end
        )  # fmt: skip
        assert self._process.stdin is not None
        return PipeFile(self._process.stdin.fileno())

    def open(self, info: StreamInfo) -> None:
        try:
            super().open(info)
        finally:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()  # the sink holds a copy: its closing is the end of the video

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        super().close(trailing_packets)
        if self._process is not None and self._end() != 0:
            raise EncodeError(f"{self.name}: {self.program} failed: {self._last_words()}", self.path)

    def stop(self) -> None:
        self._is_ending = True
        super().stop()

    def _end(self) -> int:
        """Wait for the program's end, with little patience where the run is to end."""
        assert self._process is not None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_SECONDS)
            if self._is_ending:
                self._process.kill()

    def abort(self) -> None:
        super().abort()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)

    def _last_words(self) -> str:
        """What the program complained of, in one line."""
        assert self._process is not None
        assert self._said is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read(10_000).decode(errors="replace").splitlines()]
        return next((line for line in lines if line), f"exit status {self._process.returncode}")


class PreviewSink(ProgramSink):
    """Shows the video in a window (``window:``) of FFmpeg's player; closing the window ends it."""

    program = "ffplay"
    why = "it comes with FFmpeg"

    def __init__(self, path: str, options: SinkOptions) -> None:
        if path != "window:":
            raise UsageError(f"{path}: write window: for a preview")
        super().__init__(path, options)

    @property
    def name(self) -> str:
        return "the preview window"

    def _command(self) -> list[str]:
        return ["-v", "error", "-nostats", "-autoexit", "-window_title", "vidnoise", "-i", "-"]


class SrtSink(ProgramSink):
    """Pushes over SRT by the program ffmpeg, since PyAV's wheels have no SRT."""

    program = "ffmpeg"
    why = "PyAV's wheels have no SRT, Debian's ffmpeg and most others do"
    default_format = "mpegts"
    is_live = True

    @property
    def name(self) -> str:
        return shown(self.path)

    def _command(self) -> list[str]:
        form = self._format_name
        read = ["-analyzeduration", "500000", "-f", form, "-i", "-"]
        return [
            "-v",
            "error",
            "-nostdin",
            *read,
            "-map",
            "0",
            "-c",
            "copy",
            "-flush_packets",
            "1",
            "-f",
            form,
            self.path,
        ]

    def _is_reader_gone(self, error: BaseException) -> bool:
        return False

    def _reason(self, error: BaseException) -> str:
        is_ours = self._process is None or not super()._is_reader_gone(error)
        return super()._reason(error) if is_ours else self._last_words()
