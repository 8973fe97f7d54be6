"""Output of a running command on standard error: messages and a progress bar."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console

from vidnoise.cli.options import spelled
from vidnoise.text import safe

if TYPE_CHECKING:
    from vidnoise.pipeline.stats import Progress

_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


def can_plot(console: Console) -> bool:
    """Return whether plots can be drawn; if not, say so. To be called before work that takes long."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as ex:
        console.print(f"no plot: matplotlib is not usable ({ex}): pip install 'vidnoise[train]'", soft_wrap=True)
        return False
    return True


class Messages:
    """Standard error that ignores failing writes, so that the work continues if it is closed or full."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class _ConsoleHandler(logging.Handler):
    """Prints log records as single lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        kind = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = f"vidnoise: {kind}{safe(spelled(record.getMessage()))}"
        if record.exc_info:
            lines = logging.Formatter().formatException(record.exc_info).split("\n")
            text += "".join(f"\n{safe(line)}" for line in lines)
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def console_for_messages(verbosity: int) -> Iterator[Console]:
    """Create a console on standard error that shows vidnoise's log records inside the context.

    Args:
        verbosity: -1 for errors only, 0 for warnings, 1 for choices and their reasons, 2 for tracebacks.
    """
    console = Console(file=cast("IO[str]", Messages()), highlight=False)
    logger = logging.getLogger("vidnoise")
    handler, level, propagate = _ConsoleHandler(console), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[max(-1, min(verbosity, 2))])
    logger.propagate = False
    try:
        yield console
    except Exception:
        logger.debug("where the error below comes from:", exc_info=True)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def progress_bar(console: Console, name: str) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar with frames, speed, time left and the measured noise inside the context."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}  {task.fields[left]}  {task.fields[noise]}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(safe(name), total=None, speed="", left="", noise="")

        def show(progress: Progress) -> None:
            eta = progress.eta_seconds
            bar.update(
                task,
                completed=progress.frames,
                total=max(progress.total_frames, progress.frames) if progress.total_frames else None,
                speed=f"{progress.fps:.1f} fps",
                left=live_state(progress) or ("" if eta is None else f"ETA {clock(eta)}"),
                noise="" if progress.sigma is None else f"noise {progress.sigma:.1f}",
            )

        yield show


def live_state(progress: Progress) -> str:
    """Describe the delay and losses of a live run in a few words."""
    if progress.live is None:
        return ""
    lost = f", {progress.frames_dropped} dropped" if progress.frames_dropped else ""
    return f"lag {progress.live.lag_ms:.0f} ms{lost}"


def clock(seconds: float) -> str:
    """Format a duration as ``m:ss``, or ``h:mm:ss`` from an hour up."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
