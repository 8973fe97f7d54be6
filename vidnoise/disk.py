"""How anything gets onto a disk: under a name of its own until it is whole, safe there before it counts, over nothing.

Whatever vidnoise writes goes through here. A :class:`Draft` is a file under construction: it has a name that nobody
else uses, is flushed to the disk when it is whole, and only then takes its final name. :func:`check_free` is the one
rule on what may be written over; ``locking.py`` keeps two runs off one output.
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
_LONGEST_NAME = 255
"""Bytes of a file's name, where the system does not tell."""


class Layer:
    """The calls that change a disk, and nothing more: a test replaces them to see what a power cut would leave."""

    def create(self, path: str, mode: int = 0o666) -> int:
        """A new, empty file, open for reading and writing; never one that is there, never through a link."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | NO_LINK, mode)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Returns when what was written lies on the disk."""
        os.fsync(fd)

    def sync_folder(self, path: str) -> None:
        """The same for the names in a folder."""
        if os.name == "nt":  # where folders cannot be opened
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError as ex:
            if ex.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network disks cannot
                raise
        finally:
            os.close(fd)

    def replace(self, old: str, new: str) -> None:
        os.replace(old, new)

    def link(self, old: str, new: str) -> None:
        """A second name for a file; fails where the name is taken."""
        os.link(old, new)

    def remove(self, path: str) -> None:
        os.remove(path)

    def make_folder(self, path: str) -> None:
        os.mkdir(path)

    def remove_folder(self, path: str) -> None:
        os.rmdir(path)


LAYER = Layer()


def layer() -> Layer:
    """The layer through which all writing goes; tests of power cuts replace it with a recorder."""
    return LAYER


# --- places -----------------------------------------------------------------------------------------------------------


def real_path(path: str) -> str:
    """Where ``path`` leads: a link is written through, not replaced."""
    return os.path.realpath(path)


def is_node(path: str) -> bool:
    """Whether ``path`` is a device, a FIFO or a socket, which is written to as it is and keeps its name."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _keeps_nothing(path: str) -> bool:
    """Whether nothing can be lost by writing to a node: all but disks."""
    return is_node(path) and not stat.S_ISBLK(os.stat(path).st_mode)


def same_place(first: str, second: str) -> bool:
    """Whether two paths are one file, that is there or not; devices, FIFOs and the like may be shared."""
    with contextlib.suppress(OSError, ValueError):
        if is_node(first):
            return False
        if os.path.exists(first) and os.path.exists(second):
            return os.path.samefile(first, second)
    return real_path(first) == real_path(second)


def check_apart(reads: Iterable[str], writes: Iterable[str]) -> None:
    """The other rule: nothing is written over what the run reads, or writes elsewhere.

    Args:
        reads, writes: Paths of files; those that are not there count by their names.

    Raises:
        SinkOpenError: Two of ``writes`` are one file, or one of them is read; or the name of one cannot be.
    """
    writes = list(writes)
    for path in writes:
        if "\0" in path:
            raise SinkOpenError(f"{path}: no name of a file holds a zero", path)
    taken = {_identity(path): (path, "the input") for path in reads if os.path.exists(path)}
    for path in writes:
        if is_node(path):
            continue  # which may be shared
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
    """The rule for everything that is written: only with leave over what is there.

    Raises:
        SinkOpenError: ``path`` is there (a dangling link counts) and ``overwrite`` is not set; it is a directory, or
            lies in none.
    """
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise SinkOpenError(f"{path}: is a directory", path)
    if not os.path.isdir(folder):
        raise SinkOpenError(f"{path}: there is no directory {folder}", path)
    if os.path.lexists(path) and not overwrite and not _keeps_nothing(path):
        raise SinkOpenError(f"{path}: exists already; use overwrite=True or choose another name", path)


def fitting(folder: str, name: str, suffix: str) -> str:
    """``name + suffix``, with ``name`` cut where a file of ``folder`` must not be called so long."""
    try:
        longest = os.pathconf(folder or ".", "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        longest = _LONGEST_NAME
    room = longest - len(os.fsencode(suffix))
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name + suffix
    return encoded[:room].decode(errors="ignore") + suffix


# --- files ------------------------------------------------------------------------------------------------------------


def part_name(path: str) -> str:
    """A name beside ``path`` that nobody else uses."""
    folder, name = os.path.split(path)
    return os.path.join(folder, fitting(folder, name, f".{secrets.token_hex(3)}.part"))


class Draft:
    """A file under construction, that libav and others write into. Not thread-safe.

    It lies beside its place under a name of its own, and gets its final name when it is whole. The first error while
    writing is remembered: libav's own files forget those of the trailer and of closing, so that a full disk would leave
    a broken file that looks finished.

    Args:
        path: The final name. Through a link, what the link leads to; an old file's mode and owner are kept.

    Raises:
        OSError: The file cannot be created.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.error: OSError | None = None
        self._place = real_path(path)
        self._folder = os.path.dirname(self._place) or "."
        old = None
        with contextlib.suppress(OSError):
            old = os.stat(self._place)
        mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777
        while True:
            part = part_name(self._place)
            with contextlib.suppress(FileExistsError):
                self._fd = LAYER.create(part, mode)
                break
        self.part_path = part
        """Where it lies until it is published, for messages."""
        found = os.fstat(self._fd)
        self._identity = (found.st_dev, found.st_ino)
        if old is not None and hasattr(os, "fchown"):
            with contextlib.suppress(OSError):  # not ours to give away
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
        """All is written: put it safely on the disk and close it.

        Raises:
            OSError: A write failed, now or before.
        """
        if self.error is not None:
            raise self.error
        LAYER.sync(self._fd)
        self.let_go()

    def publish(self, *, overwrite: bool) -> None:
        """Give the sealed file its final name, for good.

        Raises:
            OSError: It cannot be renamed, or something else has taken the name meanwhile; the draft stays.
        """
        if not self._is_ours(self.part_path):
            raise FileNotFoundError(errno.ENOENT, "its temporary file was taken away or replaced")
        if is_node(self._place):
            raise FileExistsError(errno.EEXIST, "a device or pipe of that name has appeared meanwhile")
        if overwrite:
            LAYER.replace(self.part_path, self._place)
        else:
            self._publish_new()
        if not self._is_ours(self._place):
            raise FileNotFoundError(errno.ENOENT, "another program has taken its place meanwhile")
        LAYER.sync_folder(self._folder)

    def _publish_new(self) -> None:
        try:
            LAYER.link(self.part_path, self._place)  # which, unlike renaming, fails where something is there
        except OSError as ex:
            if os.path.lexists(self._place):
                raise FileExistsError(errno.EEXIST, "a file of that name has appeared meanwhile") from ex
            LAYER.replace(self.part_path, self._place)  # a disk that knows no second names
        else:
            LAYER.remove(self.part_path)

    def _is_ours(self, path: str) -> bool:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def let_go(self) -> None:
        """Close; the draft stays under its own name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def discard(self) -> None:
        """Close and remove. May be called at any time, also twice."""
        self.let_go()
        if self._is_ours(self.part_path):
            with contextlib.suppress(OSError):
                LAYER.remove(self.part_path)


def write_whole(path: str, data: bytes, *, overwrite: bool) -> None:
    """Write a file that nobody sees before it is whole; a device or FIFO is written to as it is.

    Raises:
        SinkOpenError: It is there and ``overwrite`` is not set, or it cannot be written.
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
    """A text file that is written line by line, and read by others meanwhile.

    Raises:
        SinkOpenError: It is there and ``overwrite`` is not set, or it cannot be created.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        check_free(path, overwrite=overwrite)
        try:
            is_new = not os.path.lexists(path)
            self._file = open(path, "xb" if is_new else "wb", buffering=0)  # noqa: SIM115 (lives as long as this object)
        except OSError as ex:
            raise SinkOpenError(f"{path}: cannot be written: {ex.strerror or ex}", path) from ex

    def write(self, line: str) -> None:
        """Add a line.

        Raises:
            OSError: It cannot be written.
        """
        self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def is_unfinished(output: str) -> bool:
    """Whether ``output`` is an empty file: no video, but the name that a power cut may leave of one."""
    return os.path.isfile(output) and os.path.getsize(output) == 0
