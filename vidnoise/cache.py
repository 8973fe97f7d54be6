"""Where things are kept between runs that could be made again: measurements, converted models."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``vidnoise`` in ``$XDG_CACHE_HOME``, or where the system has such things; it need not exist."""
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "vidnoise"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vidnoise" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vidnoise"
    return Path.home() / ".cache" / "vidnoise"


def store(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all. Where that cannot be, nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as ex:
        log.debug("%s is not kept: %s", path, ex)


def load(path: Path) -> bytes | None:
    """A file of the cache, or ``None``."""
    try:
        return path.read_bytes()
    except OSError:
        return None
