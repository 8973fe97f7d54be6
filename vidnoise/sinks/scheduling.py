"""Encoders that make real-time threads of themselves, and of the thread that opens them, are made ordinary again.

SVT-AV1 does so where it may, as root in a container: its threads and ours would then come before everything else on the
machine, the reading of a camera and the terminal included.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_TASKS = "/proc/self/task"


def _threads() -> set[int]:
    with contextlib.suppress(OSError):
        return set(map(int, os.listdir(_TASKS)))
    return set()


@contextlib.contextmanager
def scheduling_kept() -> Iterator[None]:
    """Inside, an encoder is opened; afterwards this thread, and those that began, are scheduled as this one was."""
    if sys.platform != "linux":
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    before = _threads()
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for thread in (0, *_threads() - before):
                with contextlib.suppress(OSError):  # it has ended
                    os.sched_setscheduler(thread, policy, priority)
