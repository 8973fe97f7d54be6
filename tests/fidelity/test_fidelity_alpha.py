"""Transparency: passed through untouched where codec and container hold it, else its loss is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from support.clips import Recipe, write
from support.live_peers import with_tiny_model
from support.roundtrip import component_planes, random_frames, through
from vidnoise.cli import main
from vidnoise.frame import StreamInfo
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source


def clip(path: Path, codec: str, pix_fmt: str) -> Path:
    ticks = (0, 40, 80)
    options = {"b": "0", "crf": "4"} if codec == "libvpx-vp9" else {}
    return write(
        path, Recipe(path.suffix, codec, options, pix_fmt, ticks=ticks, time_base=Fraction(1, 1000), gop=1)
    ).path


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mkv", "ffv1", "yuva420p"), ("a.mkv", "ffv1", "yuva444p10le"), ("a.mov", "qtrle", "argb"),
     ("a.mov", "prores_ks", "yuva444p10le"), ("a.webm", "libvpx-vp9", "yuva420p"), ("a.nut", "ffv1", "gbrap10le"),
     ("a.mkv", "libvpx-vp9", "yuva420p")],
)  # fmt: skip
def test_alpha_is_read_and_written(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    source = clip(tmp_path / name, codec, pix_fmt)
    before = list(open_source(source))
    assert "a" in component_planes(before[0])
    target = through(source, tmp_path / f"out{Path(name).suffix}", codec=codec)
    after = list(open_source(target))
    for old, new in zip(before, after, strict=True):
        a, b = (component_planes(f)["a"].astype(int) / (1 << f.format.bit_depth) for f in (old, new))
        assert abs(a - b).mean() < (0.02 if codec == "libvpx-vp9" else 0.001)


def test_a_range_of_transparent_vp9(tmp_path: Path) -> None:
    """Its decoder is not the container's own, so it has to be told of seeking."""
    source = clip(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")
    frames = list(open_source(source, start=0.05))
    assert [f.format.name for f in frames] == ["yuva420p"]
    assert torch.equal(frames[0].planes[3], list(open_source(source))[2].planes[3])


@pytest.mark.parametrize(
    ("extension", "codec"), [(".mp4", "h264"), (".mp4", "hevc"), (".mkv", "hevc"), (".mp4", "vp9"), (".webm", "av1")]
)
def test_what_cannot_hold_it_says_so(
    tmp_path: Path, extension: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = random_frames("yuva420p", 64, 48, 2)
    sink = open_sink(tmp_path / f"out{extension}", codec=codec, preset="ultrafast")
    sink.open(StreamInfo(64, 48, frames[0].format, Fraction(1, 25), Fraction(25)))
    for frame in frames:
        sink.write(frame)
    sink.close()
    assert "which loses transparency" in caplog.text
    assert open_source(tmp_path / f"out{extension}").info.format.name.startswith("yuv420p")


def test_the_mark_of_alpha_does_not_outlive_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")
    target = through(source, tmp_path / "out.mkv", codec="h264")
    assert "which loses transparency" in caplog.text
    assert "alpha_mode" not in open_source(target).info.passthrough.video_metadata


def test_denoising_leaves_it_alone(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", "ffv1", "yuva420p")
    target = tmp_path / "out.mkv"
    assert main([str(source), "-o", str(target), *with_tiny_model(tmp_path)]) == 0
    for old, new in zip(open_source(source), open_source(target), strict=True):
        assert torch.equal(old.planes[3], new.planes[3])
        assert not torch.equal(old.planes[0], new.planes[0])
