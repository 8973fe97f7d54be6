"""Calls of an ``ffmpeg`` program, which runs the filters to compare with and makes the material of ``real``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from vidnoise.errors import UsageError

PATIENCE_SECONDS = (60.0, 60.0)
"""Timeout of a call, and its extension per megapixel: 20 times what the slowest filter takes on one core.
Some filters never terminate on unexpected input."""


@lru_cache(maxsize=4)
def _filters(binary: str) -> frozenset[str]:
    listing = subprocess.run([binary, "-v", "error", "-filters"], capture_output=True, text=True, check=False).stdout
    return frozenset(words[1] for line in listing.splitlines() if len(words := line.split()) > 2)


def _packaged() -> str | None:
    """Return the program that comes with the Python package imageio-ffmpeg, if it is installed."""
    try:
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: it was installed without a program, and finds none
        return None


def binary_with(filter_name: str) -> str:
    """Return the path of an ffmpeg program with a filter: ``ffmpeg`` on PATH, or else that of imageio-ffmpeg.

    Raises:
        UsageError: There is none; the message is a few words.
    """
    on_path = shutil.which("ffmpeg")
    if on_path is not None and filter_name in _filters(on_path):
        return on_path
    packaged = _packaged()
    if packaged is not None and filter_name in _filters(packaged):
        return packaged
    found = on_path or packaged
    if found is None:
        raise UsageError("there is no ffmpeg binary on PATH")
    raise UsageError(f"{found} was built without the filter {filter_name}")


def missing_filter(name: str) -> str | None:
    """Return why a filter cannot be used here, in a few words; None if it can."""
    try:
        binary_with(name)
    except UsageError as ex:
        return str(ex)
    return None


def call(command: Sequence[str], data: bytes, *, what: str, megapixels: float) -> bytes:
    """Run an ffmpeg command line on standard input.

    Args:
        command: The program (:func:`binary_with`) and its arguments.
        data: The standard input.
        what: Purpose of the call, for messages (``"nlmeans"``).
        megapixels: Size of all frames, which determines the timeout.

    Returns:
        The standard output.

    Raises:
        UsageError: It failed, or it timed out.
    """
    patience = PATIENCE_SECONDS[0] + PATIENCE_SECONDS[1] * megapixels
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired as ex:
        raise UsageError(f"ffmpeg's {what} did not end within {patience:.0f} s") from ex
    if done.returncode:
        raise UsageError(f"ffmpeg's {what} failed: {done.stderr.decode(errors='replace').strip()[:200]}")
    return done.stdout
