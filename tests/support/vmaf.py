"""A stand-in for an ffmpeg with libvmaf: it keeps what it reads, and gives every video the same score."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidnoise.evaluation import ffmpeg

SCORE = 12.5

_PROGRAM = f"""#!/bin/sh
case "$*" in
*-filters*) echo " ... libvmaf           VV->V      VMAF" ;;
*) cat > "{{folder}}/$$.yuv"; echo "[Parsed_libvmaf @ 0x1] [info] VMAF score: {SCORE}" >&2 ;;
esac
"""


def give_vmaf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it in the place of all ffmpegs; returns the folder of the files ``*.yuv`` with what each call has read."""
    program = folder / "ffmpeg"
    program.write_text(_PROGRAM.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def take_vmaf_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no ffmpeg have libvmaf."""
    monkeypatch.setattr("shutil.which", lambda name: "/opt/ffmpeg")
    monkeypatch.setattr(ffmpeg, "_filters", lambda binary: frozenset({"null"}))
    monkeypatch.setattr(ffmpeg, "_packaged", lambda: None)
