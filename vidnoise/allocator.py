"""How the C library hands out memory, and what is said when there is none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

from vidnoise.errors import DeviceError

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

_KEPT = 1 << 30
"""Bytes that may be free and kept."""

_STEP = 64 << 20
"""Bytes that are asked of the system at once."""


@contextlib.contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Within the block, what the CPU's memory does not allow is an error that says which option helps.

    Raises:
        DeviceError: There was not enough memory. (That of a GPU has an error of its own.)
    """
    try:
        yield
    except (MemoryError, RuntimeError) as ex:
        # torch has no class for it on CPUs.
        if not isinstance(ex, MemoryError) and "can't allocate memory" not in str(ex):
            raise
        raise DeviceError(
            'not enough memory for pictures of this size; try max_memory=MB (denoises in tiles), model="fast", '
            "or fewer threads"
        ) from ex


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
