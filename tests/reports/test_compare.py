"""``vidnoise compare``: its videos, its contact sheet, its figures, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
import torch

from support.clips import Clip, Recipe, write
from support.vmaf import SCORE, give_vmaf, take_vmaf_away
from vidnoise.cli import main
from vidnoise.color import to_rgb
from vidnoise.evaluation.ffmpeg import binary_with
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.vmaf import missing, read_score
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


def test_vmaf_is_measured_where_it_can_be(pair, tmp_path, monkeypatch, capsys):
    read = give_vmaf(tmp_path, monkeypatch)
    code, out, _ = call(capsys, *pair, "--reference", pair[1])
    assert code == 0
    assert out.count(f"VMAF {SCORE:.2f}") == 2
    assert {f.stat().st_size for f in read.glob("*.yuv")} == {6 * 2 * 64 * 48 * 3}  # frames, pictures, 1.5 samples of 2
    found = json.loads(call(capsys, *pair, "--reference", pair[1], "--json")[1])
    assert [found["quality"][name]["vmaf"] for name in "ab"] == [SCORE, SCORE]
    assert found["vmaf_missing"] is None
    code, out, _ = call(capsys, *pair, "--reference", pair[1], "--no-vmaf")
    assert (code, "VMAF" in out) == (0, False)
    assert len(list(read.glob("*.yuv"))) == 4


def test_without_vmaf_it_is_said(pair, tmp_path, monkeypatch, capsys):
    take_vmaf_away(monkeypatch)
    code, out, err = call(capsys, *pair, "--reference", pair[1])
    assert (code, err) == (0, [])
    assert "VMAF is not measured: /opt/ffmpeg was built without the filter libvmaf" in out.splitlines()[-1]
    found = json.loads(call(capsys, *pair, "--reference", pair[1], "--json")[1])
    assert found["quality"]["a"]["vmaf"] is None
    assert found["vmaf_missing"].startswith("/opt/ffmpeg was built without")
    code, out, err = call(capsys, *pair, "--reference", pair[1], "--vmaf", "-o", tmp_path / "both.mkv")
    assert (code, out, len(err)) == (2, "", 1)
    assert "pip install 'vidnoise[vmaf]'" in err[0]
    assert not list(tmp_path.glob("both*"))


@pytest.mark.skipif(missing() is not None, reason=f"VMAF: {missing()}")
def test_vmaf_is_that_of_ffmpeg(pair, tmp_path, capsys):
    program, blurred = binary_with("libvmaf"), tmp_path / "blurred.mkv"
    subprocess.run([program, "-v", "error", "-i", pair[1], "-vf", "gblur=0.6", "-c:v", "ffv1", blurred], check=True)
    found = json.loads(call(capsys, pair[1], blurred, "--reference", pair[1], "--json")[1])
    command = [program, "-v", "level+info", "-i", blurred, "-i", pair[1], "-lavfi", "libvmaf", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found["quality"]["b"]["vmaf"] == pytest.approx(read_score(done.stderr, 0), abs=0.01)
    assert found["quality"]["b"]["vmaf"] < found["quality"]["a"]["vmaf"] - 1


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
        (("--sheet", "sheet.png", "--vmaf"), 2, "VMAF is measured against a reference"),
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
