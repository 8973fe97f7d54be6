"""``vidnoise compare``: its videos, its contact sheet, its figures, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
import torch

from support.clips import Clip, Recipe, write
from vidnoise.cli import main
from vidnoise.color import to_rgb
from vidnoise.evaluation.metrics import psnr
from vidnoise.reports.contact_sheet import Column, Moment, write_sheet
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]

EXACT = Recipe(".mkv", "ffv1", {}, ticks=tuple(40 * i for i in range(6)), time_base=Fraction(1, 1000), gop=1)


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """Two lossless videos of the same size, and other pictures."""
    first = write(tmp_path / "first.mkv", EXACT).path
    source = open_source(f"lavfi:testsrc2=size=64x48:rate=25:duration=0.24,format={EXACT.pix_fmt}")
    from vidnoise.sinks import open_sink

    sink = open_sink(tmp_path / "second.mkv", codec="ffv1")
    sink.open(source.info)
    for frame in source:
        sink.write(frame)
    sink.close()
    return first, tmp_path / "second.mkv"


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, list[str]]:
    capsys.readouterr()
    code = main(["compare", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def lumas(path: object) -> list[torch.Tensor]:
    return [frame.planes[0].clone() for frame in open_source(str(path))]


def test_side_by_side_video(pair, tmp_path, capsys):
    code, out, err = call(capsys, *pair, "-o", tmp_path / "both.mkv", "--codec", "ffv1")
    assert (code, err) == (0, [])
    assert "6 frames compared" in out
    for both, a, b in zip(lumas(tmp_path / "both.mkv"), lumas(pair[0]), lumas(pair[1]), strict=True):
        assert both.shape == (48, 64 + 2 + 64)
        assert torch.equal(both[:, :64], a)
        assert torch.equal(both[:, 66:], b)


def test_split_video(pair, tmp_path, capsys):
    assert call(capsys, *pair, "-o", tmp_path / "both.mkv", "--codec", "ffv1", "--mode", "split")[0] == 0
    for both, a, b in zip(lumas(tmp_path / "both.mkv"), lumas(pair[0]), lumas(pair[1]), strict=True):
        assert torch.equal(both[:, :30], a[:, :30])
        assert torch.equal(both[:, 34:], b[:, 34:])


def test_the_wipe_moves(pair, tmp_path, capsys):
    assert call(capsys, *pair, "-o", tmp_path / "both.mkv", "--codec", "ffv1", "--mode", "wipe")[0] == 0
    share_of_a = []
    for both, a in zip(lumas(tmp_path / "both.mkv"), lumas(pair[0]), strict=True):
        same = (both == a).all(0)
        share_of_a.append(int((~same).to(torch.int8).argmax()))
    assert share_of_a == sorted(share_of_a)
    assert share_of_a[-1] > share_of_a[0]


def test_figures_against_a_reference(pair, capsys):
    code, out, _ = call(capsys, *pair, "--reference", pair[1], "--json")
    assert code == 0
    found = json.loads(out)
    versions = [torch.cat([to_rgb(f).clamp(0, 1) for f in open_source(str(path))]) for path in pair]
    assert found["frames"] == 6
    assert found["quality"]["a"]["psnr"] == pytest.approx(float(psnr(*versions).mean()), abs=1e-3)
    assert found["quality"]["b"]["ssim"] == pytest.approx(1, abs=1e-5)
    assert found["quality"]["b"]["flicker"] == 0 < found["quality"]["a"]["flicker"]


def test_contact_sheet(pair, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert call(capsys, *pair, "--sheet", sheet, "--reference", pair[1])[0] == 0
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.shape[1] == 3 * (480 + 8)
    assert picture.shape[0] > 3 * 360  # three rows of 360 lines, and their crops
    assert picture.std() > 20


def test_progress_is_told(pair, monkeypatch):
    from vidnoise.reports import comparison

    monkeypatch.setattr(comparison, "PROGRESS_SECONDS", 0)
    told = []
    comparison.compare_files(*map(str, pair), reference=str(pair[0]), progress=told.append)
    assert [p.frames for p in told] == [1, 2, 3, 4, 5, 6]
    assert told[0].total_frames in (None, 6)


def test_another_pixel_format_is_compared_in_that_of_the_first(pair, tmp_path, capsys):
    other = write(tmp_path / "ten.mkv", replace(EXACT, pix_fmt="yuv420p10le")).path
    assert call(capsys, pair[0], other, "-o", tmp_path / "both.mkv", "--codec", "ffv1")[0] == 0
    assert open_source(tmp_path / "both.mkv").info.format.name == "yuv420p"


def test_the_shorter_one_ends_it_and_is_named(pair, tmp_path, capsys):
    short = write(tmp_path / "short.mkv", replace(EXACT, ticks=EXACT.ticks[:2])).path
    code, out, err = call(capsys, pair[0], short, "--sheet", tmp_path / "s.png")
    assert code == 0
    assert "2 frames compared" in out
    assert "short.mkv ended after 2 frames" in err[0]


@pytest.mark.parametrize(
    ("args", "exit_code", "text"),
    [
        ((), 2, "nothing to do"),
        (("--sheet", "sheet.jpg"), 2, "is a .png file"),
        (("--sheet", "no/such/sheet.png"), 4, "there is no directory"),
        (("--reference", "missing.mp4"), 3, "missing.mp4"),
        (("-o", "second.mkv", "-y"), 4, "is the input "),
        (("-o", "second.mkv"), 4, "exists"),
    ],
)
def test_what_is_refused(pair, tmp_path, monkeypatch, capsys, args, exit_code, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *pair, *args)
    assert (code, out, len(err)) == (exit_code, "", 1)
    assert text in err[0]


def test_other_sizes_are_refused(pair, clips: Clips, tmp_path, capsys):
    code, _, err = call(capsys, pair[0], clips("odd_65x49"), "-o", tmp_path / "both.mkv")
    assert code == 5
    assert "only pictures of one size can be compared" in err[0]
    assert not list(tmp_path.glob("both*"))


def test_a_rotated_sheet_is_upright(tmp_path):
    """The top of the stored picture is seen at the left."""
    rgb = torch.zeros(3, 48, 64)
    rgb[:, :24] = 1
    write_sheet(str(tmp_path / "s.png"), [Column(n, "", [Moment(rgb)]) for n in "ab"], rotation=90)
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture is not None
    assert picture[300, 60].min() > 200
    assert picture[300, 420].max() < 50
