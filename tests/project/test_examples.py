"""Each program of `examples/` runs, as a user would start it, on a clip of a few frames."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import vidnoise
from support.paths import ROOT
from vidnoise.cli import main

EXAMPLES = ROOT / "examples"
LONGEST = 60
"""Lines of an example."""

Example = Callable[..., str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: str) -> Example:
    """``example("images", ...)`` runs that program with a network that is fast; what it prints."""

    def run(name: str, *args: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args), "--model", tiny_model])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def frames_of(path: Path) -> list[vidnoise.Frame]:
    return list(vidnoise.open_source(path))


def is_denoised(noisy: Any, clean: Path) -> None:
    before, after = frames_of(noisy.path), frames_of(clean)
    assert len(after) == len(before)
    assert after[0].planes[0].shape == before[0].planes[0].shape
    difference = (after[-1].planes[0].float() - before[-1].planes[0].float()).abs().mean()
    assert 0 < difference < 0.15 * 2 ** before[0].format.bit_depth  # another picture, but of the same scene


def test_denoise_file(example: Example, clips: Any, tmp_path: Path) -> None:
    clip, clean = clips("vfr"), tmp_path / "clean.mp4"
    assert "10 frames in" in example("denoise_file", clip, clean)
    is_denoised(clip, clean)


def test_denoise_file_says_what_is_wrong_in_one_line(example: Example, clips: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none\.mp4") as caught:
        example("denoise_file", tmp_path / "none.mp4", tmp_path / "clean.mp4")
    assert "\n" not in str(caught.value)


def test_opencv_frames(example: Example, clips: Any, tmp_path: Path) -> None:
    clip, clean = clips("cfr"), tmp_path / "clean.mp4"
    example("opencv_frames", clip, clean)
    is_denoised(clip, clean)


@pytest.mark.parametrize("name", ["vfr", "ten_bit"])
def test_pyav_frames(example: Example, clips: Any, tmp_path: Path, name: str) -> None:
    clip, clean = clips(name), tmp_path / "clean.mp4"
    example("pyav_frames", clip, clean)
    is_denoised(clip, clean)
    before, after = frames_of(clip.path), frames_of(clean)
    assert [f.pts * f.time_base for f in after] == [f.pts * f.time_base for f in before]
    assert after[0].format == before[0].format
    assert after[0].color == before[0].color


def test_webcam(example: Example, clips: Any, tmp_path: Path) -> None:
    clip, clean = clips("cfr"), tmp_path / "clean.mp4"
    said = example("webcam", clip, "-o", clean)
    assert "10 frames, latency" in said
    assert "at the longest" in said
    is_denoised(clip, clean)


def test_asyncio_frames(example: Example, clips: Any) -> None:
    said = example("asyncio_frames", clips("cfr"))
    found = re.search(r"\n10 frames; the loop turned (\d+) times meanwhile\n", said)
    assert found is not None, said
    assert int(found[1]) > 10  # it would not turn once a frame if a step held it up


def test_cameras(example: Example, clips: Any, tmp_path: Path) -> None:
    pair = [clips("cfr"), clips("gops")]  # which end at different times
    example("cameras", *pair, "-o", tmp_path / "out")
    for number, clip in enumerate(pair, 1):
        is_denoised(clip, tmp_path / "out" / f"camera-{number}.mkv")


@pytest.mark.parametrize(("shape", "dtype"), [((48, 64, 3), np.uint8), ((49, 65), np.uint16)])
def test_images(example: Example, tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), (rng.normal(0.5, 0.1, shape).clip(0, 1) * top).astype(dtype))
    said = example("images", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "clean")
    assert len(said.splitlines()) == 2
    for name in ("a.png", "b.png"):
        noisy, clean = (cv2.imread(str(p / name), cv2.IMREAD_UNCHANGED) for p in (tmp_path, tmp_path / "clean"))
        assert (clean.shape, clean.dtype) == (noisy.shape, noisy.dtype)
        assert 0 < np.abs(clean.astype(float) - noisy).mean() < 0.2 * top


def test_photos(example: Example, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), rng.normal(128, 20, (40, 56, 3)).clip(0, 255).astype(np.uint8))
    said = example("photos", tmp_path, "-o", tmp_path / "clean", "--format", "tif")
    assert said.count("/255 removed in") == 2
    assert cv2.imread(str(tmp_path / "clean" / "b.tif")).shape == (40, 56, 3)
    (tmp_path / "c.png").write_bytes(b"hello")
    with pytest.raises(SystemExit, match="1 of 3 failed"):
        example("photos", tmp_path, "-o", tmp_path / "again")


FIRST_MINUTES = EXAMPLES / "first-minutes"


def command_lines(script: str, **variables: str) -> list[list[str]]:
    """Return the commands of a script that call vidnoise."""
    text = string.Template(script.replace("\\\n", "")).safe_substitute(variables)
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("vidnoise ")]
    return [line[1 : next((i for i, word in enumerate(line) if word.startswith(">")), None)] for line in lines]


@pytest.mark.parametrize("name", ["footage", "camera", "photos", "packager", "vision"])
def test_first_minutes(name: str, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the script, in this process; files that it writes for itself are written by a shell."""
    script = (FIRST_MINUTES / f"{name}.sh").read_text(encoding="utf-8")
    video = "lavfi:testsrc2=size=64x48:rate=10:duration=0.5" if name == "camera" else str(clips("cfr"))
    written = "".join(re.findall(r"^cat >.*?^END\n", script, re.MULTILINE | re.DOTALL))
    subprocess.run(["sh", "-euc", written], env={"CAMERA": video, "OUT": str(tmp_path)}, check=True)
    commands = command_lines(script, VIDEO=video, CAMERA=video, OUT=str(tmp_path))
    assert len(commands) >= 2
    for command in commands:
        assert main(command) == 0, command
    assert len(list(tmp_path.iterdir())) >= 2


@pytest.mark.slow
def test_first_minutes_in_a_shell(clips: Any, tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    for script in sorted(FIRST_MINUTES.glob("*.sh")):
        arguments = [str(clips("cfr"))] if "VIDEO=" in script.read_text(encoding="utf-8") else []
        arguments += (
            [] if "CAMERA=" not in script.read_text(encoding="utf-8") else ["lavfi:testsrc2=size=64x48:duration=0.5"]
        )
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [str(script), *arguments, str(tmp_path / script.stem)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script.name}: {done.stderr}"


def test_every_example_is_short_listed_and_run_here() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) >= 6
    for script in FIRST_MINUTES.glob("*.sh"):
        assert f"(first-minutes/{script.name})" in listed
    for program in programs:
        assert len(program.read_text(encoding="utf-8").splitlines()) < LONGEST, program.name
        assert f"({program.name})" in listed
        assert f"test_{program.stem}" in globals(), f"{program.name} is not run"
