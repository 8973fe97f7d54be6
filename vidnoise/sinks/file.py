"""Files: written under a temporary name and renamed when complete, or read by others while they grow."""

from __future__ import annotations

import contextlib
import io
import os

from vidnoise.disk import Draft, check_free, layer
from vidnoise.options import SinkOptions
from vidnoise.sinks.destination import Destination, Output


class FileDestination(Destination):
    """A file; with the ``grow`` option, one that can be read while it is written."""

    is_exclusive = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)
        self._overwrite = options.overwrite
        self.is_prompt = options.grow

    def check(self) -> None:
        check_free(self.path, overwrite=self._overwrite)

    def create(self, format_name: str) -> Output:
        return GrowingFile(self.path, overwrite=self._overwrite) if self.is_prompt else Draft(self.path)


class GrowingFile:
    """A file that others read while it is written. It has its final name from the start, and is never removed.

    Args:
        path: Path of the file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OSError: The file cannot be created, or has appeared in the meantime.
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
        """Sync the complete file to the disk and close it.

        Raises:
            OSError: A write failed, now or earlier.
        """
        if self.error is not None:
            raise self.error
        layer().sync(self._file.fileno())
        self._file.close()

    def publish(self, *, overwrite: bool) -> None:
        """Sync the folder: the file has its final name already."""
        layer().sync_folder(os.path.dirname(self.part_path) or ".")

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close. The file stays, as others may be reading it."""
        self.release()
