"""A file under construction: written as ``<name>.part``, renamed when whole; remembers the first write error."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from typing import Protocol


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

    def discard(self) -> None:
        """Throw away what can be. May be called at any time, also twice."""
        ...


class PartFile:
    """The object that libav writes into.

    libav's own file output forgets errors that happen while the trailer is written or the file is
    closed, so a full disk would leave a broken file that looks finished.
    """

    suffix = ".part"
    """What the name has more until the file is published."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.part_path = path + self.suffix
        self.error: OSError | None = None
        self._file = open(self.part_path, "w+b", buffering=0)  # noqa: SIM115 (lives as long as this object)

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
        self._file.close()

    def publish(self, *, overwrite: bool) -> None:
        """Give the sealed file its final name.

        Raises:
            OSError: It cannot be renamed, or something else has taken the name meanwhile; the part file stays.
        """
        if not overwrite and os.path.exists(self.path):
            raise FileExistsError(errno.EEXIST, "a file of that name has appeared meanwhile")
        os.replace(self.part_path, self.path)

    def discard(self) -> None:
        """Close and remove."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.remove(self.part_path)


class GrowingFile(PartFile):
    """A file that others read while it is written: it has its own name from the start, and stays whatever happens."""

    suffix = ""

    def publish(self, *, overwrite: bool) -> None:
        """Nothing to do: it is there."""

    def discard(self) -> None:
        """Close; what was written may be read already."""
        with contextlib.suppress(OSError):
            self._file.close()
