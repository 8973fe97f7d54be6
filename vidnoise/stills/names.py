"""Names of picture files: suffixes, and sequences by number (``frame%04d.png``) or by glob (``shots/*.png``)."""

from __future__ import annotations

import glob
import os
import re

from vidnoise.errors import SourceOpenError

KINDS = {
    ".bmp": "bmp", ".exr": "exr", ".jpe": "jpeg", ".jpeg": "jpeg", ".jpg": "jpeg", ".png": "png", ".tif": "tiff",
    ".tiff": "tiff", ".webp": "webp",
}  # fmt: skip
"""Kinds of picture files by suffix."""

_NUMBER = re.compile(r"%(0?)(\d*)d")

_NAMED = 3
"""Maximum number of missing pictures that a message lists."""


def kind_of(path: str) -> str | None:
    """Return the kind of picture file that ``path`` names; None for any other file."""
    return KINDS.get(os.path.splitext(path)[1].lower())


def is_numbered(path: str) -> bool:
    """Whether ``path`` is a numbered pattern; an existing file of exactly this name is not."""
    return bool(kind_of(path) and _NUMBER.search(os.path.basename(path))) and not os.path.exists(path)


def is_glob(path: str) -> bool:
    """Whether ``path`` is a glob of picture files."""
    return kind_of(path) is not None and glob.has_magic(path) and not os.path.exists(path)


def is_sequence(path: str) -> bool:
    """Whether ``path`` names a sequence of picture files rather than one."""
    return is_numbered(path) or is_glob(path)


def is_still(path: str) -> bool:
    """Whether ``path`` names a single picture file."""
    return kind_of(path) is not None and not is_sequence(path)


class Numbered:
    """The file names that match a pattern such as ``frame%04d.png``.

    >>> Numbered("frame%04d.png").name(7)
    'frame0007.png'
    """

    def __init__(self, pattern: str) -> None:
        folder, name = os.path.split(pattern)
        found = _NUMBER.search(name)
        assert found is not None
        self._folder, self._before, self._after = folder, name[: found.start()], name[found.end() :]
        self._width = int(found[2] or 1) if found[1] else 1

    def name(self, number: int) -> str:
        """Return the path of picture ``number``."""
        return os.path.join(self._folder, f"{self._before}{number:0{self._width}}{self._after}")

    def files(self) -> list[tuple[int, str]]:
        """Return the numbers and paths of the existing files, in order."""
        form = re.compile(rf"{re.escape(self._before)}(\d+){re.escape(self._after)}")
        try:
            names = os.listdir(self._folder or ".")
        except OSError:
            return []
        numbers = sorted(int(match[1]) for match in map(form.fullmatch, names) if match)
        present = set(names)
        return [(n, path) for n in numbers if os.path.basename(path := self.name(n)) in present]


def sequence_files(path: str) -> list[tuple[int, str]]:
    """Return the numbers and paths of the pictures of a sequence, in order; a glob is in natural order (2 before 10).

    Raises:
        SourceOpenError: There are no such files, or a number is missing between two others.
    """
    if not is_numbered(path):
        found = sorted((name for name in glob.glob(path) if os.path.isfile(name)), key=_as_counted)
        if not found:
            raise SourceOpenError(f"{path}: no such files", path)
        return list(enumerate(found, 1))
    files = Numbered(path).files()
    if not files:
        raise SourceOpenError(f"{path}: no such files; the first would be {Numbered(path).name(1)}", path)
    first, last = files[0][0], files[-1][0]
    there = {number for number, _ in files}
    missing = last - first + 1 - len(there)
    if missing:
        gaps = _first_gaps(first, there)
        named = ", ".join(map(str, gaps)) + (", ..." if missing > len(gaps) else "")
        what = f"number {named} is" if missing == 1 else f"numbers {named} are"
        raise SourceOpenError(
            f"{path}: {what} missing (there are {first} to {last}); a glob in quotes reads what is there", path
        )
    return files


def _first_gaps(first: int, there: set[int]) -> list[int]:
    gaps: list[int] = []
    number = first
    while len(gaps) < min(_NAMED, max(there) - first + 1 - len(there)):
        if number not in there:
            gaps.append(number)
        number += 1
    return gaps


def _as_counted(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``img2`` before ``img10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
