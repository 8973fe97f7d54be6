"""Tuning of the C library's memory allocator, and errors about missing memory."""

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
"""Maximum number of freed bytes to keep."""

_STEP = 64 << 20
"""Number of bytes to request from the system at once."""


@contextlib.contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Translate failed allocations of main memory inside the context into an error that names helpful options.

    Raises:
        DeviceError: There was not enough main memory. (GPU memory has an error of its own.)
    """
    try:
        yield
    except (MemoryError, RuntimeError) as ex:
        # On CPUs, torch raises a plain RuntimeError.
        if not isinstance(ex, MemoryError) and "can't allocate memory" not in str(ex):
            raise
        raise DeviceError(
            'not enough memory for pictures of this size; try max_memory=MB (denoises in tiles), model="fast", '
            "or fewer threads"
        ) from ex


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for the next frame, instead of returning it to the system each time.

    By default, glibc maps large blocks anew for each allocation, and the system clears all their pages, which takes a
    tenth to a fifth of a frame's time on a CPU. Peak memory is the same, but it is not returned in between. The command
    does this; programs that own their process may call it once, before the first frame. Other C libraries are left
    alone, and so are processes with ``MALLOC_*`` variables.

    Returns:
        Whether the settings were applied.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, _STEP)
    return all(libc.mallopt(name, value) == 1 for name, value in settings)
