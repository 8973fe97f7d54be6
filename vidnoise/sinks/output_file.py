"""What libav writes into: a draft that is renamed when whole (:class:`vidnoise.disk.Draft`), or a growing file."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Protocol

from vidnoise.disk import layer


class Output(Protocol):
    """What libav writes into: has ``write``, and ``read``, ``seek`` and ``tell`` where one can go back."""

    error: OSError | None
    """The first that happened while writing."""
    part_path: str
    """Where it lies until it is published, for messages."""

    def write(self, data: bytes) -> int: ...

    def seal(self) -> None:
        """All is written; raises OSError where it is not."""
        ...

    def publish(self, *, overwrite: bool) -> None:
        """Make the sealed output visible."""
        ...

    def let_go(self) -> None:
        """Close, and leave what was written where it is."""
        ...

    def discard(self) -> None:
        """Throw away what can be. May be called at any time, also twice."""
        ...


class GrowingFile:
    """A file that others read while it is written: it has its own name from the start, and stays whatever happens.

    Args:
        path: Its name.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        OSError: It cannot be created, or has appeared meanwhile.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self.part_path = path
        self.error: OSError | None = None
        self._file = open(path, "w+b" if overwrite else "x+b", buffering=0)  # noqa: SIM115 (lives as long as this object)

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as ex:
            self.error = self.error or ex
            raise
        return len(data)

    def read(self, n: int = -1) -> bytes:
        return self._file.read(n) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seal(self) -> None:
        """Close the file, which is complete.

        Raises:
            OSError: A write failed, now or before.
        """
        if self.error is not None:
            raise self.error
        layer().sync(self._file.fileno())
        self._file.close()

    def publish(self, *, overwrite: bool) -> None:
        """It is there already."""
        layer().sync_folder(os.path.dirname(self.part_path) or ".")

    def let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close; what was written may be read already."""
        self.let_go()
