"""A cache between runs for what can be made again: measurements, converted models.

Any trouble with it (no folder, no permission, a full disk, a truncated or foreign file) only means that nothing is
cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

log = logging.getLogger(__name__)

_DIGEST_SIZE = hashlib.sha256().digest_size
"""Size of the checksum that begins each file, since a power cut may leave a file empty or truncated."""


def cache_folder() -> Path | None:
    """Return vidnoise's folder in the user's cache directory, existing or not; None without such a directory."""
    return user_folder(platformdirs.user_cache_path)


def user_folder(path_of: Callable[..., Path]) -> Path | None:
    """Return a folder of vidnoise below the user's home, by a function of platformdirs; None without a home."""
    try:
        folder = path_of("vidnoise", appauthor=False)
    except (RuntimeError, OSError, KeyError):
        return None
    # Without a home directory, "~" is not expanded, and would be a folder in the working directory.
    return folder if folder.is_absolute() else None


def store(name: str, content: bytes) -> None:
    """Store ``content`` in the cache as ``name``, atomically."""
    folder = cache_folder()
    if folder is None:
        return
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as ex:
        log.debug("%s is not stored: %s", path, ex)


def load(name: str) -> bytes | None:
    """Return the contents stored as ``name``, or None."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        stored = (folder / name).read_bytes()
    except (OSError, MemoryError):
        return None
    digest, content = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None
