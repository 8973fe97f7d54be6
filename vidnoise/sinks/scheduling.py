"""Undoing real-time scheduling that an encoder sets up for its own threads and its caller.

SVT-AV1 does so where it is allowed to, as root in a container; its threads would then take precedence over all
others on the machine, including those that read a camera or the terminal.
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
def preserve_scheduling() -> Iterator[None]:
    """Restore the scheduling policy of this thread, and apply it to threads started inside the context."""
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
                with contextlib.suppress(OSError):  # the thread has ended
                    os.sched_setscheduler(thread, policy, priority)
