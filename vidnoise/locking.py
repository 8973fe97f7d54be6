"""Locks on outputs: a second run on the same output is refused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from typing import Protocol

from vidnoise.disk import NO_LINK, real_path
from vidnoise.errors import SinkOpenError

logger = logging.getLogger(__name__)


class _Locking(Protocol):
    def __call__(self, fd: int) -> None: ...


def _locking() -> _Locking:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        return lambda fd: msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    return lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """A lock on an output: a small file next to it, which may remain after a crash without harm.

    Args:
        path: The output.

    Raises:
        SinkOpenError: Another run holds the lock.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        folder, name = os.path.split(real_path(path))
        token = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        self._path = os.path.join(folder, f".vidnoise-{token}.lock")
        lock = _locking()
        while self._fd < 0:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
            except OSError as ex:
                logger.debug("%s: goes without a lock: %s", path, ex)
                return
            try:
                lock(fd)
                # The previous holder may have removed the file after we opened it.
                if os.path.samestat(os.fstat(fd), os.lstat(self._path)):
                    self._fd = fd
            except FileNotFoundError:
                pass
            except OSError as ex:
                if ex.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    raise SinkOpenError(f"{path}: another run of vidnoise is writing it", path) from ex
                logger.debug("%s: goes without a lock: %s", path, ex)
                return
            finally:
                if self._fd != fd:
                    os.close(fd)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.remove(self._path)
            os.close(fd)
