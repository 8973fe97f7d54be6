"""Interlaced video: found, denoised field by field, marked in the output; what has no marks is pointed at."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.codeccontext import VideoCodecContext

from support.interlaced import HEIGHT, WIDTH, bar, stored_order, woven, write_interlaced
from support.live_peers import need, with_tiny_model
from support.roundtrip import through
from support.sources import check_contract
from vidnoise.cli import main
from vidnoise.errors import UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.reports.inspection import inspect_video
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser, fields, weave
from vidnoise.sinks.interlacing import FieldMarker
from vidnoise.sources import open_source
from vidnoise.sources.interlacing import is_combed


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.ts", "mpeg2video"), ("a.mkv", "ffv1"), ("a.mov", "prores_ks"), ("a.nut", "ffv1"),
     ("a.y4m", "rawvideo")],
)  # fmt: skip
def test_order_is_found_and_kept(tmp_path: Path, order: str, name: str, codec: str) -> None:
    source = write_interlaced(tmp_path / name, order, codec)
    assert open_source(source).info.field_order == order
    assert all(frame.interlaced for frame in check_contract(open_source(source)))
    target = through(source, tmp_path / f"out{Path(name).suffix}")
    assert stored_order(target) == order


@pytest.mark.skipif(
    not hasattr(VideoCodecContext, "field_order"), reason="PyAV 17 does not have the container's word on fields"
)
@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv"])
def test_a_codec_without_fields_is_said_to_have_none(
    tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_interlaced(tmp_path / "in.mkv", "bff")
    target = through(source, tmp_path / f"out{extension}", codec="hevc")
    assert "libx265 has no interlaced coding" in caplog.text
    assert stored_order(target) == "bff"  # the container's word
    with av.open(str(target)) as container:
        assert not next(container.decode(video=0)).interlaced_frame


def test_chroma_lines_of_different_fields_are_not_mixed(tmp_path: Path) -> None:
    """Forced to 4:2:0, each field's chroma is averaged by itself."""
    format = PIXEL_FORMATS["yuv444p"]
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"field_order": "tt"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, format.name
        picture = av.VideoFrame(WIDTH, HEIGHT, format.name)
        for plane in picture.planes:
            rows = np.where(np.arange(HEIGHT)[:, None] % 2, 60, 180) * np.ones((1, plane.line_size))
            plane.update(rows.astype(np.uint8).tobytes())
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(FieldMarker("tff", WIDTH, HEIGHT, format.name).mark(picture)))
        container.mux(stream.encode(None))
    (frame,) = open_source(through(source, tmp_path / "out.mkv", codec="ffv1", pix_fmt="yuv420p"))
    chroma = frame.planes[1].int()
    assert (chroma[0::2] - 180).abs().max() <= 1
    assert (chroma[1::2] - 60).abs().max() <= 1


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "nv12", "rgb24", "gray"])
@pytest.mark.parametrize("height", [48, 50, 49, 6])
def test_fields_go_back_to_their_places(pix_fmt: str, height: int) -> None:
    format = PIXEL_FORMATS[pix_fmt]
    generator = torch.Generator().manual_seed(1)
    planes = tuple(
        torch.randint(0, 1 << format.bit_depth, format.plane_shape(i, height, 32), generator=generator).to(
            torch.uint8 if format.bit_depth == 8 else torch.uint16
        )
        for i in range(len(format.layout))
    )
    frame = Frame(planes, format, interlaced=True)
    top, bottom = fields(frame)
    for field in (top, bottom):
        shapes = [tuple(plane.shape) for plane in field.planes]
        assert shapes == [format.plane_shape(i, -(-height // 2), 32) for i in range(len(planes))]
    assert all(torch.equal(a, b) for a, b in zip(weave(frame, top, bottom).planes, planes, strict=True))


def test_by_field_is_better_than_whole(tmp_path: Path) -> None:
    """A moving bar under noise: denoised as one picture its comb is smeared."""
    source = write_interlaced(tmp_path / "in.mkv", noise=20)
    by_field = Denoiser("fast", sigma=20, device="cpu", precision="fp32")
    session = FieldDenoiser(by_field, lambda network: Denoiser(network, sigma=20, device="cpu", precision="fp32"))
    whole = Denoiser(by_field.network, sigma=20, device="cpu", precision="fp32")

    def error(frames: list[Frame]) -> float:
        differences = [f.planes[0].numpy().astype(float) - woven(i, "tff") for i, f in enumerate(frames)]
        return float(np.mean([np.square(d).mean() for d in differences[2:]]))

    def pushed(frames: list[Frame], denoiser: Denoiser | FieldDenoiser) -> list[Frame]:
        return [clean for frame in frames for clean in denoiser.push(frame)]

    frames = list(open_source(source))
    assert error(pushed(frames, session)) < 0.8 * error(pushed(frames, whole)) < 0.8 * error(frames)


def test_strength_zero_changes_nothing(tmp_path: Path) -> None:
    source = write_interlaced(tmp_path / "in.mkv", noise=20, count=3)
    options = (*with_tiny_model(tmp_path), "--strength", "0", "--codec", "ffv1")
    assert main([str(source), "-o", str(tmp_path / "out.mkv"), *options]) == 0
    for old, new in zip(open_source(source), open_source(tmp_path / "out.mkv"), strict=True):
        assert new.interlaced
        assert all(torch.equal(a, b) for a, b in zip(old.planes, new.planes, strict=True))


def test_unmarked_combs_are_pointed_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_interlaced(tmp_path / "in.mkv", is_marked=False, noise=8)
    assert not any(frame.interlaced for frame in open_source(source))
    assert caplog.text.count("looks interlaced, but is not marked so") == 1
    caplog.clear()
    told = open_source(source, interlaced="bff")
    assert told.info.field_order == "bff"
    assert all(frame.interlaced for frame in told)
    assert not list(map(str, caplog.records))
    assert stored_order(through(source, tmp_path / "out.mkv", read={"interlaced": "bff"})) == "bff"


def test_progressive_by_order_of_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(write_interlaced(tmp_path / "in.mkv"), interlaced="no")
    assert source.info.field_order is None
    assert not any(frame.interlaced for frame in source)
    assert "marked as interlaced (tff); taken as progressive, as asked" in caplog.text


@pytest.mark.parametrize("noise", [0, 10, 40])
def test_combs_are_told_from_noise(noise: float) -> None:
    def luma_only(samples: np.ndarray) -> Frame:
        return Frame((torch.from_numpy(samples),), PIXEL_FORMATS["gray"])

    assert not is_combed(luma_only(bar(0.1, HEIGHT, noise)))
    rng = np.random.default_rng(1)
    assert not is_combed(luma_only(rng.normal(128, 40, (288, 352)).clip(0, 255).astype(np.uint8)))
    if noise < 40:
        assert is_combed(luma_only(woven(2, "tff", noise)))


def test_a_stream_that_turns_interlaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """H.264 marks each picture: joined recordings may change."""
    need("ffmpeg")
    parts = []
    for number, flags in enumerate(("", "+ildct+ilme")):
        part = tmp_path / f"{number}.ts"
        source = write_interlaced(tmp_path / f"{number}.mkv", is_marked=bool(flags))
        more = ["-flags", flags, "-x264-params", "tff=1"] if flags else []
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            source,
            "-c:v",
            "libx264",
            *more,
            "-output_ts_offset",
            str(number),
            part,
        ]
        subprocess.run([str(c) for c in command], check=True)
        parts.append(part.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    marks = [frame.interlaced for frame in open_source(tmp_path / "joined.ts", threads=1)]
    assert marks == [False] * 8 + [True] * 8
    assert caplog.text.count("is interlaced from frame 8 on") == 1


def test_info_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_interlaced(tmp_path / "in.mkv", "bff", count=3)
    assert main(["info", str(source), "--no-noise"]) == 0
    said = capsys.readouterr().out
    assert "interlaced (bff)" in said
    assert "field by field" in said
    assert inspect_video(source, model=with_tiny_model(tmp_path)[1]).noise is not None


def test_a_mask_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_interlaced(tmp_path / "in.mkv", count=2)
    options = (*with_tiny_model(tmp_path), "--mask", str(source))
    assert main([str(source), "-o", str(tmp_path / "out.mkv"), *options]) == 2
    assert "a mask has no place" in capsys.readouterr().err


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="interlaced must be auto, tff, bff or no, got 'maybe'"):
        open_source(write_interlaced(tmp_path / "in.mkv", count=1), interlaced="maybe")


def test_marks_that_ffmpeg_reads(tmp_path: Path) -> None:
    """Another program's word, frame by frame; and its files are read."""
    need("ffmpeg")
    source = tmp_path / "in.mp4"
    make = "ffmpeg -v error -f lavfi -i testsrc2=size=64x48:rate=50:duration=0.2 -vf interlace=scan=bff -c:v libx264"
    subprocess.run([*make.split(), "-flags", "+ildct+ilme", "-x264-params", "bff=1", str(source)], check=True)
    assert open_source(source).info.field_order == "bff"
    target = through(source, tmp_path / "out.mp4")
    ask = "ffprobe -v error -show_entries frame=interlaced_frame,top_field_first -of csv=p=0"
    said = subprocess.run([*ask.split(), str(target)], check=True, capture_output=True, text=True).stdout.split()
    assert {line.rstrip(",").removesuffix("side_data").rstrip(",") for line in said} == {"1,0"}
