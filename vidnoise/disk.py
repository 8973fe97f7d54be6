"""Writing files safely: under a temporary name until complete, synced before it counts, never overwriting unless asked.

Everything that vidnoise writes goes through this module. A :class:`Draft` is a file under construction: it has a unique
name, is synced to the disk when complete, and only then gets its final name. :func:`check_free` is the only rule on
overwriting; ``locking.py`` keeps two runs off one output.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterable

from vidnoise.errors import SinkOpenError

_BINARY = getattr(os, "O_BINARY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_MAX_NAME_BYTES = 255
"""Maximum length of a file name in bytes, if the system does not specify one."""


class Layer:
    """The system calls that change a disk; tests replace them to see what a power cut would leave."""

    def create(self, path: str, mode: int = 0o666) -> int:
        """Create an empty file, open for reading and writing; fails if it exists, and does not follow links."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | NO_LINK, mode)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Block until everything written is on the disk."""
        os.fsync(fd)

    def sync_folder(self, path: str) -> None:
        """Block until the names in a folder are on the disk."""
        if os.name == "nt":  # folders cannot be opened there
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError as ex:
            if ex.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # not supported by some network disks
                raise
        finally:
            os.close(fd)

    def replace(self, old: str, new: str) -> None:
        os.replace(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name; fails if the name is taken."""
        os.link(old, new)

    def remove(self, path: str) -> None:
        os.remove(path)

    def make_folder(self, path: str) -> None:
        os.mkdir(path)

    def remove_folder(self, path: str) -> None:
        os.rmdir(path)


LAYER = Layer()


def layer() -> Layer:
    """Return the layer that all writing goes through; tests of power cuts replace it with a recorder."""
    return LAYER


# --- places -----------------------------------------------------------------------------------------------------------


def real_path(path: str) -> str:
    """Resolve ``path``: links are written through, not replaced."""
    return os.path.realpath(path)


def is_node(path: str) -> bool:
    """Whether ``path`` is a device, a FIFO or a socket, which is written to in place."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _keeps_nothing(path: str) -> bool:
    """Whether writing to a node overwrites nothing, as for all nodes except block devices."""
    return is_node(path) and not stat.S_ISBLK(os.stat(path).st_mode)


def is_same_file(first: str, second: str) -> bool:
    """Whether two paths are the same file, existing or not; devices, FIFOs and the like never count as the same."""
    with contextlib.suppress(OSError, ValueError):
        if is_node(first):
            return False
        if os.path.exists(first) and os.path.exists(second):
            return os.path.samefile(first, second)
    return real_path(first) == real_path(second)


def check_distinct(reads: Iterable[str], writes: Iterable[str]) -> None:
    """Check that a run overwrites none of the files that it reads or writes.

    Args:
        reads, writes: Paths of files; files that do not exist are compared by name.

    Raises:
        SinkOpenError: Two of ``writes`` are the same file, one of them is read, or a name is invalid.
    """
    writes = list(writes)
    for path in writes:
        if "\0" in path:
            raise SinkOpenError(f"{path}: no name of a file holds a zero", path)
    taken = {_identity(path): (path, "the input") for path in reads if os.path.exists(path)}
    for path in writes:
        if is_node(path):
            continue  # nodes may be shared
        other, what = taken.setdefault(_identity(path), (path, ""))
        if what:
            raise SinkOpenError(f"{path}: is {what} {other} itself; choose another name", path)
        taken[_identity(path)] = (path, "the output")


def _identity(path: str) -> object:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return real_path(path)
    return found.st_dev, found.st_ino


def check_free(path: str, *, overwrite: bool) -> None:
    """Check that a file may be written: existing ones only with permission.

    Raises:
        SinkOpenError: ``path`` exists (a dangling link counts) and ``overwrite`` is not set, it is a directory, or its
            directory does not exist.
    """
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise SinkOpenError(f"{path}: is a directory", path)
    if not os.path.isdir(folder):
        raise SinkOpenError(f"{path}: there is no directory {folder}", path)
    if os.path.lexists(path) and not overwrite and not _keeps_nothing(path):
        raise SinkOpenError(f"{path}: exists already; use overwrite=True or choose another name", path)


def truncated_name(folder: str, name: str, suffix: str) -> str:
    """Return ``name + suffix``, with ``name`` truncated to the maximum length of file names in ``folder``."""
    try:
        longest = os.pathconf(folder or ".", "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        longest = _MAX_NAME_BYTES
    room = longest - len(os.fsencode(suffix))
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name + suffix
    return encoded[:room].decode(errors="ignore") + suffix


# --- files ------------------------------------------------------------------------------------------------------------


def part_name(path: str) -> str:
    """Return a unique temporary name next to ``path``."""
    folder, name = os.path.split(path)
    return os.path.join(folder, truncated_name(folder, name, f".{secrets.token_hex(3)}.part"))


class Draft:
    """A file under construction, for libav and others to write into. Not thread-safe.

    It has a unique name next to its destination, and gets its final name when complete. The first error while writing
    is remembered: libav ignores errors while writing the trailer and closing, so a full disk would leave a broken file
    that looks complete.

    Args:
        path: The final name. Links are followed; the mode and owner of an existing file are kept.

    Raises:
        OSError: The file cannot be created.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.error: OSError | None = None
        self._target = real_path(path)
        self._folder = os.path.dirname(self._target) or "."
        old = None
        with contextlib.suppress(OSError):
            old = os.stat(self._target)
        mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777
        while True:
            part = part_name(self._target)
            with contextlib.suppress(FileExistsError):
                self._fd = LAYER.create(part, mode)
                break
        self.part_path = part
        """Temporary path, for messages."""
        found = os.fstat(self._fd)
        self._identity = (found.st_dev, found.st_ino)
        if old is not None and hasattr(os, "fchown"):
            with contextlib.suppress(OSError):  # not permitted
                os.fchown(self._fd, old.st_uid, old.st_gid)
            with contextlib.suppress(OSError):
                os.fchmod(self._fd, stat.S_IMODE(old.st_mode))

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[LAYER.write(self._fd, view) :]
        except OSError as ex:
            self.error = self.error or ex
            raise
        return len(data)

    def read(self, n: int = -1) -> bytes:
        return os.read(self._fd, n if n >= 0 else os.fstat(self._fd).st_size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._fd, 0, io.SEEK_CUR)

    def seal(self) -> None:
        """Sync the complete file to the disk and close it.

        Raises:
            OSError: A write failed, now or earlier.
        """
        if self.error is not None:
            raise self.error
        LAYER.sync(self._fd)
        self.release()

    def publish(self, *, overwrite: bool) -> None:
        """Give the sealed file its final name, and sync the folder.

        Raises:
            OSError: It cannot be renamed, or the name was taken in the meantime; the draft stays.
        """
        if not self._is_ours(self.part_path):
            raise FileNotFoundError(errno.ENOENT, "its temporary file was taken away or replaced")
        if is_node(self._target):
            raise FileExistsError(errno.EEXIST, "a device or pipe of that name has appeared meanwhile")
        if overwrite:
            LAYER.replace(self.part_path, self._target)
        else:
            self._publish_new()
        if not self._is_ours(self._target):
            raise FileNotFoundError(errno.ENOENT, "another program has taken its place meanwhile")
        LAYER.sync_folder(self._folder)

    def _publish_new(self) -> None:
        try:
            LAYER.link(self.part_path, self._target)  # unlike renaming, fails if the name is taken
        except OSError as ex:
            if os.path.lexists(self._target):
                raise FileExistsError(errno.EEXIST, "a file of that name has appeared meanwhile") from ex
            LAYER.replace(self.part_path, self._target)  # the file system does not support hard links
        else:
            LAYER.remove(self.part_path)

    def _is_ours(self, path: str) -> bool:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def release(self) -> None:
        """Close the file; the draft stays under its temporary name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def discard(self) -> None:
        """Close and remove the draft. Idempotent; may be called at any time."""
        self.release()
        if self._is_ours(self.part_path):
            with contextlib.suppress(OSError):
                LAYER.remove(self.part_path)


def write_whole(path: str, data: bytes, *, overwrite: bool) -> None:
    """Write a file atomically; devices and FIFOs are written to in place.

    Raises:
        SinkOpenError: The file exists and ``overwrite`` is not set, or it cannot be written.
    """
    check_free(path, overwrite=overwrite)
    try:
        if is_node(path):
            with open(path, "wb", buffering=0) as node:
                node.write(data)
            return
        draft = Draft(path)
        try:
            draft.write(data)
            draft.seal()
            draft.publish(overwrite=overwrite)
        except BaseException:
            draft.discard()
            raise
    except OSError as ex:
        raise SinkOpenError(f"{path}: cannot be written: {ex.strerror or ex}", path) from ex


class Lines:
    """A text file that is written line by line and can be read meanwhile.

    Raises:
        SinkOpenError: The file exists and ``overwrite`` is not set, or it cannot be created.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        check_free(path, overwrite=overwrite)
        try:
            is_new = not os.path.lexists(path)
            self._file = open(path, "xb" if is_new else "wb", buffering=0)  # noqa: SIM115 (lives as long as this object)
        except OSError as ex:
            raise SinkOpenError(f"{path}: cannot be written: {ex.strerror or ex}", path) from ex

    def write(self, line: str) -> None:
        """Append a line.

        Raises:
            OSError: The line cannot be written.
        """
        self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def is_unfinished(output: str) -> bool:
    """Whether ``output`` is an empty file, which is not a video, but may be left by a power cut."""
    return os.path.isfile(output) and os.path.getsize(output) == 0
