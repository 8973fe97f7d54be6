"""Where things are kept between runs that could be made again: measurements, converted models.

Any trouble with it (no place for it, no rights, a full disk, a file that is cut or is another's) means that nothing is
kept, and never anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import platformdirs

log = logging.getLogger(__name__)

_DIGEST_SIZE = hashlib.sha256().digest_size
"""Each file begins with the checksum of the rest: after a power cut a file may be there, and empty or cut."""


def cache_folder() -> Path | None:
    """``vidnoise`` in the system's place for such things; it need not exist. None where there is no such place."""
    try:
        folder = platformdirs.user_cache_path("vidnoise", appauthor=False)
    except (RuntimeError, OSError, KeyError):
        return None
    # Of a user without a home, "~" stays as it is; it would be a folder of that name, wherever we are.
    return folder if folder.is_absolute() else None


def store(name: str, content: bytes) -> None:
    """Keep ``content`` as the file ``name`` of the cache, whole or not at all."""
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
        log.debug("%s is not kept: %s", path, ex)


def load(name: str) -> bytes | None:
    """Return the contents kept as ``name``, or ``None``."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        kept = (folder / name).read_bytes()
    except (OSError, MemoryError):
        return None
    digest, content = kept[:_DIGEST_SIZE], kept[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None
