"""A power cut at every write: what lies on the disk then is no half output, and going on from it loses nothing.

As SQLite tests it: a file layer notes every call that changes the disk, and for each moment between two of them the
disk is rebuilt as a power cut could have left it, by several kinds of disks. The run is then begun again on each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vidnoise
from support.clips import Clip, pictures
from vidnoise import disk
from vidnoise.weights import load_model

Clips = Callable[[str], Clip]

pytestmark = pytest.mark.usefixtures("no_network_for_nothing")


class Recorder(disk.Layer):
    """Does what it is told, and notes it. Paths are noted from ``root`` on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[Any, ...]] = []
        self._files: dict[tuple[int, int], int] = {}

    def _name(self, path: str) -> str:
        return os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))

    def _file(self, fd: int) -> int:
        found = os.fstat(fd)
        return self._files.setdefault((found.st_dev, found.st_ino), len(self._files))

    def create(self, path: str, mode: int = 0o666) -> int:
        fd = super().create(path, mode)
        found = os.fstat(fd)
        self._files.pop((found.st_dev, found.st_ino), None)  # the number of a file that is gone is used again
        self._files[found.st_dev, found.st_ino] = len(self.log) + 1_000
        self.log.append(("create", self._name(path), self._file(fd)))
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        place = os.lseek(fd, 0, os.SEEK_CUR)
        n = super().write(fd, data)
        self.log.append(("write", self._file(fd), place, bytes(data[:n])))
        return n

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.log.append(("sync", self._file(fd)))

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        self.log.append(("sync_folder", self._name(path)))

    def replace(self, old: str, new: str) -> None:
        super().replace(old, new)
        self.log.append(("replace", self._name(old), self._name(new)))

    def link(self, old: str, new: str) -> None:
        super().link(old, new)
        self.log.append(("link", self._name(old), self._name(new)))

    def remove(self, path: str) -> None:
        super().remove(path)
        self.log.append(("remove", self._name(path)))

    def make_folder(self, path: str) -> None:
        super().make_folder(path)
        self.log.append(("make_folder", self._name(path)))

    def remove_folder(self, path: str) -> None:
        super().remove_folder(path)
        self.log.append(("remove", self._name(path)))


FOLDER = -1
DISKS = {
    "all of it": (True, True),
    "names before data": (True, False),
    "data before names": (False, True),
    "what was synced": (False, False),
}
"""What a disk keeps of what was not synced: names, data. A killed program leaves all of it."""


def after_power_cut(log: list[tuple[Any, ...]], *, keeps_names: bool, keeps_data: bool) -> dict[str, bytes | None]:
    """Names on the disk after the calls of ``log``, with their contents; None for folders."""
    names: dict[str, int] = {}
    safe: dict[str, dict[str, int]] = {}
    data: dict[int, bytearray] = {}
    synced: dict[int, bytes] = {}
    for what, *args in log:
        if what == "create":
            names[args[0]] = args[1]
            data[args[1]], synced[args[1]] = bytearray(), b""
        elif what == "write":
            number, place, more = args
            data[number].extend(bytes(max(0, place - len(data[number]))))
            data[number][place : place + len(more)] = more
        elif what == "sync":
            synced[args[0]] = bytes(data[args[0]])
        elif what == "sync_folder":
            inside = {n: number for n, number in names.items() if (os.path.dirname(n) or ".") == args[0]}
            safe[args[0]] = inside
        elif what == "replace":
            names[args[1]] = names.pop(args[0])
        elif what == "link":
            names[args[1]] = names[args[0]]
        elif what == "remove":
            del names[args[0]]
        elif what == "make_folder":
            names[args[0]] = FOLDER
    if not keeps_names:
        names = {}
        for name, number in safe.get(".", {}).items():
            names[name] = number
            if number == FOLDER:
                names.update(safe.get(name, {}))
    contents = data if keeps_data else synced
    return {name: None if number == FOLDER else bytes(contents[number]) for name, number in sorted(names.items())}


def build(folder: Path, state: dict[str, bytes | None]) -> None:
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_power_cut_at_any_write_costs_no_output_and_leaves_no_half_one(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, every: int
) -> None:
    """Of the moments, the default run looks at each sixth, and at all of those at which the output appears."""
    clip = clips("exact_yuv420p")
    model = load_model("fast")
    options: dict[str, Any] = {
        "model": model, "device": "cpu", "threads": 1, "strength": 0, "codec": "ffv1", "backend": "eager",
    }  # fmt: skip
    if resume:
        options |= {"resume": True, "segment_seconds": 0.16}

    def denoise(folder: Path) -> None:
        vidnoise.denoise_file(clip, folder / "out.mkv", **options)

    (first := tmp_path / "first").mkdir()
    recorder = Recorder(first)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "LAYER", recorder)
        denoise(first)
    log = recorder.log
    whole = pictures(clip.path)
    assert sum(row[0] == "write" for row in log) > (10 if resume else 1)
    seen: set[str] = set()
    for end in sorted({*range(0, len(log) + 1, every), *range(len(log) - 12, len(log) + 1)} & {*range(len(log) + 1)}):
        for kind, (keeps_names, keeps_data) in DISKS.items():
            state = after_power_cut(log[:end], keeps_names=keeps_names, keeps_data=keeps_data)
            key = hashlib.sha256(repr(state).encode()).hexdigest()
            assert end < len(log) or "out.mkv" in state, f"{kind}: lost after the run said that it was done"
            if key in seen:
                continue
            seen.add(key)
            folder = tmp_path / f"{len(seen)}"
            folder.mkdir()
            build(folder, state)
            out = folder / "out.mkv"
            if out.exists():
                assert same(pictures(out), whole), f"{kind}, call {end}: a half output under the final name"
                continue
            denoise(folder)
            assert same(pictures(out), whole), f"{kind}, call {end}"
            assert not (folder / "out.mkv.parts").exists()


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        a[0] * 1.0 == b[0] * 1.0 and all((p == q).all() for p, q in zip(a[1], b[1], strict=True))
        for a, b in zip(first, second, strict=True)
    )


def test_control_without_syncing_outputs_are_lost(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder sees it where nothing is synced."""

    class Careless(Recorder):
        def sync(self, fd: int) -> None:
            pass

        def sync_folder(self, path: str) -> None:
            pass

    recorder = Careless(tmp_path)
    monkeypatch.setattr(disk, "LAYER", recorder)
    vidnoise.denoise_file(
        clips("exact_yuv420p"), tmp_path / "out.mkv", model="fast", device="cpu", threads=1, strength=0
    )
    names, nothing = (after_power_cut(recorder.log, keeps_names=n, keeps_data=False) for n in (True, False))
    assert names == {"out.mkv": b""}
    assert nothing == {}
