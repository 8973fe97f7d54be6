"""Calls of the ``ffmpeg`` program, which runs the filters to compare with and makes the material of ``real``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from vidnoise.errors import UsageError

PATIENCE_SECONDS = (60.0, 60.0)
"""Timeout of a call, and its extension per megapixel: 20 times what the slowest filter takes on one core.
Some filters never terminate on unexpected input."""

NO_BINARY = "there is no ffmpeg binary on PATH"


@lru_cache(maxsize=1)
def _filters(binary: str) -> frozenset[str]:
    listing = subprocess.run([binary, "-v", "error", "-filters"], capture_output=True, text=True, check=False).stdout
    return frozenset(words[1] for line in listing.splitlines() if len(words := line.split()) > 2)


def missing_filter(name: str) -> str | None:
    """Return why a filter cannot be used here, in a few words; None if it can."""
    binary = shutil.which("ffmpeg")
    if binary is None:
        return NO_BINARY
    return None if name in _filters(binary) else f"{binary} was built without the filter {name}"


def call(command: Sequence[str], data: bytes, *, what: str, megapixels: float) -> bytes:
    """Run an ffmpeg command line on standard input.

    Args:
        command: The program and its arguments.
        data: The standard input.
        what: Purpose of the call, for messages (``"nlmeans"``).
        megapixels: Size of all frames, which determines the timeout.

    Returns:
        The standard output.

    Raises:
        UsageError: There is no such program, it failed, or it timed out.
    """
    patience = PATIENCE_SECONDS[0] + PATIENCE_SECONDS[1] * megapixels
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=patience)
    except FileNotFoundError as ex:
        raise UsageError(f"{what}: {NO_BINARY}") from ex
    except subprocess.TimeoutExpired as ex:
        raise UsageError(f"ffmpeg's {what} did not end within {patience:.0f} s") from ex
    if done.returncode:
        raise UsageError(f"ffmpeg's {what} failed: {done.stderr.decode(errors='replace').strip()[:200]}")
    return done.stdout
