"""How the C library hands out memory."""

from __future__ import annotations

import ctypes
import os
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

_KEPT = 1 << 30
"""Bytes that may be free and kept."""

_STEP = 64 << 20
"""Bytes that are asked of the system at once."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next frame, instead of giving it back to the system each time.

    By default glibc maps large blocks anew whenever they are asked for, and the system clears every page of them: a
    tenth to a sixth of a frame's time on a CPU. The peak is the same; only, it is not given back in between. For
    programs whose process is their own; other C libraries are left as they are, and so is whoever has set ``MALLOC_*``
    variables.

    Returns:
        Whether it was done.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, _STEP)
    return all(libc.mallopt(name, value) == 1 for name, value in settings)
