"""A window that shows the result while it is made: FFmpeg's player, fed with y4m."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import Packet, StreamInfo
from vidnoise.sinks.output_file import Output
from vidnoise.sinks.pipe import PipeFile, PipeSink

_PLAYER = "ffplay"


class PreviewSink(PipeSink):
    """Shows the video in a window (``window:``); closing the window ends it."""

    def __init__(self, path: str, **options: Any) -> None:
        if path != "window:":
            raise UsageError(f"{path}: write window: for a preview")
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(path, **options)

    @property
    def name(self) -> str:
        return "the preview window"

    def _check_path(self) -> None:
        if shutil.which(_PLAYER) is None:
            raise SinkOpenError(f"window: needs {_PLAYER}, which is not installed (it comes with FFmpeg)", self.path)

    def _create(self) -> Output:
        self._process = subprocess.Popen(
            [_PLAYER, "-v", "error", "-nostats", "-autoexit", "-window_title", "vidnoise", "-i", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
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
        if self._process is not None:
            self._process.wait()

    def abort(self) -> None:
        super().abort()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
