"""Statistics of a live run, once a second: a line of text for people, a line of JSON for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from vidnoise.disk import Lines

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def live_report(
    say: Callable[[str], None] | None,
    show: Callable[[Progress], None] | None,
    path: str | None,
    *,
    overwrite: bool = False,
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function to pass to a run as ``progress``.

    Args:
        say: Prints a line about a live run; None for silence.
        show: Updates a progress bar; None without one.
        path: File for lines of JSON; ``-`` is standard output.
        overwrite: Whether the file may exist.

    Raises:
        SinkOpenError: The file cannot be created.
    """
    with contextlib.ExitStack() as stack:
        lines = None if path is None else stack.enter_context(_Lines(path, overwrite=overwrite))

        def report(progress: Progress) -> None:
            if show is not None:
                show(progress)
            elif say is not None and progress.live is not None:
                say(live_line(progress))
            if lines is not None:
                lines.write(json.dumps(as_json(progress)))

        yield report


def live_line(progress: Progress) -> str:
    """Describe the delay, speed and losses of a live run."""
    live = progress.live
    assert live is not None
    return (
        f"{progress.seconds:.0f} s: {live.fps:.1f} fps, lag {live.lag_ms:.0f} ms, {progress.frames_dropped} dropped, "
        f"{live.reconnects} {'reconnect' if live.reconnects == 1 else 'reconnects'}"
    )


def as_json(progress: Progress) -> dict[str, float | int | None]:
    """Return plain numbers for JSON; for live inputs, ``fps`` and ``lag_ms`` are those of the last second."""
    live = progress.live
    return {
        "seconds": round(progress.seconds, 3),
        "frames": progress.frames,
        "fps": round(live.fps if live else progress.fps, 3),
        "lag_ms": round(live.lag_ms, 1) if live else None,
        "frames_dropped": progress.frames_dropped,
        "reconnects": live.reconnects if live else 0,
        "sigma": None if progress.sigma is None else round(progress.sigma, 3),
        "memory_mb": _memory_mb(),
    }


def _memory_mb() -> float | None:
    """Return the resident memory of this process in MB; None if unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


class _Lines:
    """A file of lines, or standard output. If writing fails, it warns and stops writing, as the video is worth more.

    Raises:
        SinkOpenError: The file cannot be created.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self._path = path
        self._file: Lines | IO[str] | None = sys.stdout if path == "-" else Lines(path, overwrite=overwrite)

    def write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            if isinstance(self._file, Lines):
                self._file.write(line)
            else:
                print(line, file=self._file, flush=True)
        except OSError as ex:
            name = "standard output" if self._path == "-" else self._path
            logger.warning("%s: no more statistics, the video goes on: %s", name, ex.strerror or ex)
            if not isinstance(
                self._file, Lines
            ):  # what waits in its buffer would fail once more at the end of the program
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            self._close()

    def _close(self) -> None:
        if isinstance(self._file, Lines):
            self._file.close()
        self._file = None

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
