"""Handling of Ctrl-C, SIGTERM and SIGHUP: the first finishes the file, the second stops at once, the third kills."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that end a run; SIGHUP is sent when the terminal is closed."""


def _is_ignored(number: int) -> bool:
    """Whether the signal was already ignored when the program started, as by nohup."""
    return number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) is signal.SIG_IGN


@contextlib.contextmanager
def stop_on_signal(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Handle signals inside the context; yields a function that returns whether to stop.

    Args:
        on_first: Called at the first signal, to inform the user.
    """
    stopping = False
    n_signals = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping, n_signals
        n_signals += 1
        if n_signals > 2:  # a thread is stuck, for example in a write that nobody reads
            os._exit(128 + number)
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread can handle signals; in others, it is up to the caller
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS if not _is_ignored(number)}
    try:
        yield lambda: stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
