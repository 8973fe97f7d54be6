"""Sequences of picture files, in and out; animations."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import vidnoise
from vidnoise.cli import main
from vidnoise.errors import SinkOpenError, SizeChangeError, SourceOpenError, UsageError
from vidnoise.sources import open_source
from vidnoise.stills.loops import loop_options, read_plays
from vidnoise.stills.names import Numbered, is_glob, is_numbered, kind_of, sequence_files

Run = Callable[..., tuple[int, list[str]]]


def noisy(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A still scene under noise of its own."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    scene = 90 + 60 * np.sin(columns / 9) * np.cos(rows / 7)
    noise = np.random.default_rng(number).normal(0, 12, (*size, 3))
    return (scene[..., None] + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures from number 8 on, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots").mkdir()
    for number in range(8, 14):
        cv2.imwrite(f"shots/f{number:04d}.png", noisy(number))
    return tmp_path


# --- names ------------------------------------------------------------------------------------------------------------


def test_names(tmp_path: Path) -> None:
    assert (kind_of("a.JPG"), kind_of("a.mp4"), kind_of("a")) == ("jpeg", None, None)
    assert Numbered("d/f%04d.png").name(7) == "d/f0007.png"
    assert Numbered("f%d.png").name(12) == "f12.png"
    assert is_numbered("f%03d.png")
    assert not is_numbered("f%s.png")
    assert not is_numbered("%d/f.png")
    assert is_glob("shots/*.png")
    assert not is_glob("shots/*.mp4")
    real = tmp_path / "100%d[1].png"
    real.touch()
    assert not is_numbered(str(real))  # a file that is called so
    assert not is_glob(str(real))


def test_only_names_of_the_pattern_count(tmp_path: Path) -> None:
    for name in ("f1.png", "f002.png", "f3.png", "f010.png", "f2.jpg", "fx.png"):
        (tmp_path / name).touch()
    assert [n for n, _ in Numbered(str(tmp_path / "f%d.png")).files()] == [1, 3]
    assert [n for n, _ in Numbered(str(tmp_path / "f%03d.png")).files()] == [2, 10]


def test_globs_are_sorted_as_people_count(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", "img1.png"):
        (tmp_path / name).touch()
    found = sequence_files(str(tmp_path / "img*.png"))
    assert [(n, Path(path).name) for n, path in found] == [(1, "img1.png"), (2, "img2.png"), (3, "img10.png")]


# --- in ---------------------------------------------------------------------------------------------------------------


def test_a_sequence_is_a_video(shots: Path) -> None:
    source = open_source("shots/f%04d.png", rate="30000/1001")
    info = source.info
    assert (info.n_frames, info.rate, info.is_still) == (6, Fraction(30000, 1001), False)
    frames = list(source)
    assert [frame.pts for frame in frames] == list(range(6))
    assert {frame.time_base for frame in frames} == {Fraction(1001, 30000)}
    assert [frame.side_data.number for frame in frames] == list(range(8, 14))
    assert np.array_equal(frames[2].planes[0].numpy()[..., ::-1], noisy(10))
    assert len(list(open_source("shots/*.png"))) == 6


def test_start_and_duration(shots: Path) -> None:
    frames = list(open_source("shots/f%04d.png", rate="10", start=0.2, duration=0.3))
    assert [frame.side_data.number for frame in frames] == [10, 11, 12]
    with pytest.raises(UsageError, match="behind the end"):
        open_source("shots/f%04d.png", start=9)


def test_gaps_are_named(shots: Path) -> None:
    Path("shots/f0010.png").unlink()
    with pytest.raises(SourceOpenError, match=r"number 10 is missing \(there are 8 to 13\)"):
        open_source("shots/f%04d.png")
    Path("shots/f0012.png").unlink()
    with pytest.raises(SourceOpenError, match="numbers 10, 12 are missing"):
        open_source("shots/f%04d.png")
    with pytest.raises(SourceOpenError, match=r"no such files; the first would be shots/g1\.png"):
        open_source("shots/g%d.png")
    with pytest.raises(SourceOpenError, match="no such files"):
        open_source("shots/g*.png")


def test_changes_of_size_and_format_are_refused(shots: Path) -> None:
    cv2.imwrite("shots/f0010.png", noisy(10, (50, 64)))
    with pytest.raises(SizeChangeError, match=r"f0010.png: is 64x50, but the sequence began with 64x48"):
        list(open_source("shots/f%04d.png"))
    cv2.imwrite("shots/f0010.png", noisy(10)[..., 0])
    with pytest.raises(SizeChangeError, match=r"f0010.png: holds gray, but the sequence began with rgb24"):
        list(open_source("shots/f%04d.png"))
    Path("shots/f0010.png").write_bytes(b"hello")
    with pytest.raises(SourceOpenError, match=r"f0010\.png: is no picture"):
        list(open_source("shots/f%04d.png"))


# --- out --------------------------------------------------------------------------------------------------------------


def test_numbers_stay_those_of_the_input(run: Run, shots: Path) -> None:
    assert run("shots/f%04d.png", "-o", "c%03d.png")[0] == 0
    assert sorted(p.name for p in shots.glob("c*.png")) == [f"c{n:03d}.png" for n in range(8, 14)]
    assert all(np.array_equal(cv2.imread(f"c{n:03d}.png"), noisy(n)) for n in range(8, 14))
    code, said = run("shots/f%04d.png", "-o", "c%03d.png")
    assert (code, "exists already" in said[-1]) == (4, True)
    assert run("shots/f%04d.png", "-o", "c%03d.png", "-y")[0] == 0


def test_a_sequence_has_a_memory_and_separate_pictures_have_none(shots: Path) -> None:
    vidnoise.denoise_file("shots/f%04d.png", "s%04d.png", model="fast")
    vidnoise.denoise_file("shots/f0013.png", "alone.png", model="fast")
    scene = np.mean([noisy(n).astype(float) for n in range(8, 14)], 0)
    together, alone = (cv2.imread(name).astype(float) for name in ("s0013.png", "alone.png"))
    assert ((together - scene) ** 2).mean() < ((alone - scene) ** 2).mean()


def test_a_video_into_pictures_and_back(run: Run, clips: Any, tmp_path: Path) -> None:
    clip = clips("cfr")
    assert run(clip.path, "-o", tmp_path / "v%02d.png")[0] == 0
    n = len(clip.seconds)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"v{i:02d}.png" for i in range(1, n + 1)]
    assert run(tmp_path / "v*.png", "-o", tmp_path / "back.mkv", "--rate", "24", "--codec", "ffv1")[0] == 0
    back = open_source(tmp_path / "back.mkv")
    assert (back.info.rate, len(list(back))) == (24, n)


def test_sound_is_not_dropped_in_silence(run: Run, clips: Any, tmp_path: Path) -> None:
    _, said = run(clips("everything").path, "-o", tmp_path / "v%02d.png")
    assert any("pictures have no place for: audio stream" in line for line in said)


def test_no_picture_of_the_input_is_replaced(run: Run, shots: Path) -> None:
    code, said = run("shots/f%04d.png", "-o", "shots/f%04d.png", "-y")
    assert (code, "would replace the input" in said[-1]) == (4, True)
    code, said = run("shots/*.png", "-o", "shots/f%04d.png", "-y")
    assert code == 4
    assert np.array_equal(cv2.imread("shots/f0008.png"), noisy(8))


def test_outputs_that_cannot_be(run: Run, shots: Path) -> None:
    code, said = run("shots/f%04d.png", "-o", "one.png")
    assert code == 2
    assert "holds one picture, and the input has more; put a number into the name, as in one-%04d.png" in said[-1]
    code, said = run("shots", "-o", "c%04d.png")
    assert code == 2
    assert "a folder are separate pictures" in said[-1]
    code, said = run("shots/f0008.png", "shots/f0009.png", "-o", "c.mp4")
    assert code == 2
    assert "in quotes: 'shots/*.png'" in said[-1]
    code, said = run("shots/f%04d.png", "-o", "c.mp4", "--resume")
    assert (code, "only a file can be resumed" in said[-1]) == (2, True)
    with pytest.raises(SinkOpenError, match="no directory"):
        vidnoise.open_sink("nowhere/c%04d.png")


def test_the_help_tells_separate_pictures_from_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "each is denoised by itself" in text
    assert "is one sequence" in text


# --- animations -------------------------------------------------------------------------------------------------------


def animation(path: Path, **more: Any) -> Path:
    image = pytest.importorskip("PIL.Image")
    first, *others = [image.fromarray(noisy(n)) for n in range(3)]
    first.save(path, save_all=True, append_images=others, duration=[100, 250, 400], **more)
    return path


@pytest.mark.parametrize(
    ("source", "target"), [("a.gif", "b.gif"), ("a.png", "b.gif"), ("a.gif", "b.apng"), ("a.png", "b.png")]
)
def test_animations_keep_times_and_plays(run: Run, tmp_path: Path, source: str, target: str) -> None:
    image = pytest.importorskip("PIL.Image")
    path = animation(tmp_path / source, loop=4)
    assert run(path, "-o", tmp_path / target)[0] == 0
    clean = image.open(tmp_path / target)
    assert clean.n_frames == 3
    assert read_plays(str(tmp_path / target)) == read_plays(str(path))
    durations = []
    for i in range(3):
        clean.seek(i)
        clean.load()
        durations.append(clean.info["duration"])
    assert durations[:2] == [100, 250]
    if target == "b.gif":
        assert durations[2] == 400


def test_how_often_animations_are_played(tmp_path: Path) -> None:
    assert read_plays(str(animation(tmp_path / "for_ever.gif", loop=0))) == 0
    assert read_plays(str(animation(tmp_path / "once.gif"))) == 1
    assert read_plays(str(animation(tmp_path / "for_ever.png", loop=0))) == 0
    cv2.imwrite(str(tmp_path / "still.png"), noisy(0))
    assert read_plays(str(tmp_path / "still.png")) is None
    assert loop_options("gif", 1) == {"loop": "-1"}
    assert loop_options("gif", 5) == {"loop": "4"}
    assert loop_options("apng", 0) == {"plays": "0"}
    assert loop_options("matroska", 0) == loop_options("gif", None) == {}


def test_a_video_becomes_an_animated_webp_and_a_picture_a_still(run: Run, clips: Any, tmp_path: Path) -> None:
    assert run(clips("cfr").path, "-o", tmp_path / "moving.webp")[0] == 0
    assert b"ANIM" in (tmp_path / "moving.webp").read_bytes()[:64]
    cv2.imwrite(str(tmp_path / "in.png"), noisy(0))
    assert run(tmp_path / "in.png", "-o", tmp_path / "still.webp")[0] == 0
    assert b"ANIM" not in (tmp_path / "still.webp").read_bytes()
