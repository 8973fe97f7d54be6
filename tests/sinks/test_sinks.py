"""Sinks: what they refuse, what they leave behind when things go wrong, and which codec and format they choose."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from support.clips import Clip
from support.sinks import TICK, frame_of, info_of, write_all
from vidnoise.errors import EncodeError, FormatError, SinkOpenError, UsageError, VidnoiseError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, Packet, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.sinks import Sink, open_sink
from vidnoise.sinks.repack import is_lossless, lossless_target, repack
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]


def stored(path: Path) -> tuple[str, str, int]:
    """Codec, pixel format and number of frames of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec_context.codec.canonical_name, stream.pix_fmt, sum(1 for _ in container.decode(video=0))


# --- what is refused ------------------------------------------------------------------------------

BAD_OUTPUTS: dict[str, tuple[str, dict, type[VidnoiseError], str]] = {
    "exists": ("there.mp4", {}, SinkOpenError, "exists already"),
    "directory": (".", {}, SinkOpenError, "is a directory"),
    "no directory": ("none/out.mp4", {}, SinkOpenError, "there is no directory"),
    "no extension": ("out", {}, FormatError, "has no extension"),
    "unknown extension": ("out.xyz", {}, FormatError, r"\.xyz is no known video container; use \.mp4"),
    "sound only": ("out.wav", {}, FormatError, "no container for encoded video"),
    "pictures": ("out.pgm", {}, FormatError, "no container for encoded video"),
    "codec": ("out.mp4", {"codec": "cinepax9"}, UsageError, "unknown codec 'cinepax9'; use h264, hevc"),
    "audio codec": ("out.mp4", {"codec": "aac"}, UsageError, "unknown codec 'aac'"),
    "codec for container": ("out.webm", {"codec": "h264"}, UsageError, "webm cannot hold codec h264"),
    "codec that TS garbles": ("out.ts", {"codec": "ffv1"}, UsageError, "mpegts cannot hold codec ffv1"),
    "crf of a lossless codec": ("out.mkv", {"codec": "ffv1", "crf": 20}, UsageError, "has no crf option"),
    "preset without any": ("out.mkv", {"codec": "ffv1", "preset": "fast"}, UsageError, "has no preset option"),
    "preset": ("out.mkv", {"codec": "vp9", "preset": "hasty"}, UsageError, "unknown preset 'hasty'; use ultrafast"),
    "preset of x264": ("out.mkv", {"codec": "h264", "preset": "hasty"}, UsageError, "unknown preset 'hasty'"),
    "crf": ("out.mkv", {"codec": "h264", "crf": 52}, UsageError, "crf of libx264 must be from 0 to 51, got 52"),
    "pixel format": ("out.mkv", {"pix_fmt": "yuv42"}, UsageError, "unknown pixel format 'yuv42'"),
    "audio": ("out.mkv", {"audio": "loud"}, UsageError, "audio must be copy, none, aac"),
    "threads": ("out.mkv", {"threads": -1}, UsageError, "threads must be 0"),
    "many threads": ("out.mkv", {"threads": 10**12}, UsageError, "threads must be 0"),
    "pipe": ("pipe:999", {}, UsageError, "no open file"),
    "network": ("gopher://host/x", {}, UsageError, "nothing writes to gopher"),
}


@pytest.mark.parametrize("name", BAD_OUTPUTS)
def test_bad_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target, options, error, text = BAD_OUTPUTS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.mp4").write_bytes(b"old")
    with pytest.raises(error, match=text) as caught:
        open_sink(target, **options)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "there.mp4").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["there.mp4"]


def test_the_input_is_never_overwritten(clips: Clips, tmp_path: Path) -> None:
    target = tmp_path / "same.mp4"
    target.write_bytes(clips("cfr").path.read_bytes())
    (tmp_path / "alias.mp4").symlink_to(target)
    source = open_source(target)
    for path in (target, tmp_path / "alias.mp4"):
        sink = open_sink(path, overwrite=True)
        with pytest.raises(SinkOpenError, match="is the input itself"):
            sink.open(source.info)
    source.close()
    assert target.read_bytes() == clips("cfr").path.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling is looked at as Linux has it")
def test_encoders_do_not_turn_threads_into_real_time_ones(tmp_path: Path) -> None:
    """SVT-AV1 does, where it runs as root: everything else on the machine then waits for the encoder."""
    sink, before = open_sink(tmp_path / "out.mkv", codec="av1"), os.sched_getscheduler(0)
    sink.open(info_of())
    for i in range(3):
        sink.write(frame_of(info_of(), i))
        assert {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")} == {before}
    sink.close()
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_odd_sizes_where_the_encoder_takes_none(tmp_path: Path, codec: str) -> None:
    sink = open_sink(tmp_path / "out.mkv", codec=codec)
    info = info_of(width=65, height=49)
    if codec == "av1":
        with pytest.raises(FormatError, match=r"takes no 65x49 pictures of format yuv420p; use codec ffv1"):
            sink.open(info)
        assert not list(tmp_path.iterdir())
    else:  # 4:4:4 holds an odd 4:2:0, but its chroma is interpolated: possible, and said aloud
        write_all(sink, info)
        assert stored(tmp_path / "out.mkv") == (codec, "yuv444p", 5)


def test_pix_fmt_that_the_encoder_does_not_take(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mkv", codec="av1", pix_fmt="yuv444p")
    with pytest.raises(UsageError, match=r"libsvtav1 does not take pix_fmt yuv444p; it takes yuv420p"):
        sink.open(info_of())


# --- files under construction ---------------------------------------------------------------------


def test_part_file_until_closed(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    sink = open_sink(target)
    assert isinstance(sink, Sink)
    assert not list(tmp_path.iterdir())
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0))
    (draft,) = tmp_path.glob("*.part")
    assert draft.name.startswith("out.mp4.")
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert stored(target)[2] == 1
    sink.close()
    sink.abort()
    assert target.exists()


@pytest.mark.parametrize("started", [False, True])
def test_abort_leaves_nothing_new_and_keeps_the_old(tmp_path: Path, started: bool) -> None:
    target = tmp_path / "out.mkv"
    target.write_bytes(b"precious")
    sink = open_sink(target, overwrite=True)
    sink.open(info_of())
    if started:
        sink.write(frame_of(info_of(), 0))
    sink.abort()
    sink.abort()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("tee", [False, True])
@pytest.mark.parametrize("closes", [False, True])
def test_with_finishes_a_sink(tmp_path: Path, tee: bool, closes: bool) -> None:
    info = info_of()
    places = [tmp_path / "a.mkv", *([tmp_path / "b.mkv"] if tee else [])]
    with open_sink(places[0], tee=places[1:]) as sink:
        sink.open(info)
        sink.write(frame_of(info, 0))
        if closes:
            sink.close()
    assert sorted(tmp_path.iterdir()) == places
    with pytest.raises(EncodeError, match="not open"):
        sink.write(frame_of(info, 1))


@pytest.mark.parametrize("tee", [False, True])
def test_with_throws_away_what_an_error_ended(tmp_path: Path, tee: bool) -> None:
    info = info_of()
    with (
        pytest.raises(ZeroDivisionError),
        open_sink(tmp_path / "a.mkv", tee=[tmp_path / "b.mkv"] if tee else ()) as sink,
    ):
        sink.open(info)
        sink.write(frame_of(info, 0))
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    with open_sink(tmp_path / "a.mkv"):
        pass  # never opened, nothing left
    assert not list(tmp_path.iterdir())


def test_overwriting(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    target.write_bytes(b"old")
    write_all(open_sink(target, overwrite=True), info_of())
    assert stored(target)[2] == 5


def test_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    sink = open_sink(target)
    target.write_bytes(b"someone else's")
    with pytest.raises(SinkOpenError, match="exists already"):
        sink.open(info_of())
    assert target.read_bytes() == b"someone else's"


def test_finished_work_survives_a_name_that_was_taken(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    sink = open_sink(target)
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0))
    target.write_bytes(b"someone else's")
    with pytest.raises(EncodeError, match=r"complete, but stays as .*out\.mkv\.\w+\.part: a file of that name"):
        sink.close()
    sink.abort()
    assert target.read_bytes() == b"someone else's"
    (draft,) = tmp_path.glob("*.part")
    draft.rename(tmp_path / "rescued.mkv")
    assert stored(tmp_path / "rescued.mkv")[2] == 1


def test_no_frame_no_file(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(info_of())
    with pytest.raises(EncodeError, match="no frame was written"):
        sink.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"width": 66}, {"pix_fmt": "yuv422p"}])
def test_frame_of_another_kind(tmp_path: Path, change: dict) -> None:
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0))
    with pytest.raises(FormatError, match=r"frame 1 is \d+x48 yuv42.p, but the output was begun with 64x48 yuv420p"):
        sink.write(frame_of(info_of(**change), 1))
    assert not list(tmp_path.iterdir())
    with pytest.raises(EncodeError, match="not open"):
        sink.write(frame_of(info_of(), 2))


def test_interrupted_write_leaves_a_file_that_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(info_of())
    for i in range(3):
        sink.write(frame_of(info_of(), i))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vidnoise.sinks.picture.PictureWriter.picture", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.write(frame_of(info_of(), 3))
    sink.close()
    assert stored(tmp_path / "out.mp4")[2] == 3


def test_unwritable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vidnoise.disk.Layer.create", refuse)
    sink = open_sink(tmp_path / "out.mp4")
    with pytest.raises(SinkOpenError, match="cannot be created: Permission denied"):
        sink.open(info_of())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Writes beyond so many bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("extension", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize("buffer_size", [4096, 1 << 20])
def test_failing_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_size_limit: Callable[[int], None],
    extension: str,
    buffer_size: int,
) -> None:
    """With the small buffer a frame fails, with the large one the end of the file does."""
    monkeypatch.setattr("vidnoise.sinks.container._BUFFER_SIZE", buffer_size)
    sink = open_sink(tmp_path / f"out{extension}", codec="h264", crf=0, preset="ultrafast")
    info = info_of()
    sink.open(info)
    file_size_limit(16384)
    with pytest.raises(EncodeError, match=r"writing failed: File too large"):
        for i in range(200 if buffer_size == 4096 else 40):
            sink.write(frame_of(info, i))
        assert buffer_size > 4096
        sink.close()
    is_at_the_end = buffer_size > 4096 and extension == ".mkv"
    assert len(list(tmp_path.iterdir())) == is_at_the_end, "at the end, work is not thrown away"


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs rights that this machine does not give")
    try:
        sink = open_sink(disk / "out.mkv", codec="h264", crf=0, preset="ultrafast")
        with pytest.raises(EncodeError, match="No space left on device"):
            write_all(sink, info_of(), 200)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- times ----------------------------------------------------------------------------------------


def read_times(path: Path) -> list[Fraction]:
    return [f.pts * f.time_base for f in open_source(path)]


def test_missing_times_are_filled_in(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4")
    info = info_of()
    sink.open(info)
    for i in range(4):
        sink.write(replace(frame_of(info, i), pts=None, duration=None if i % 2 else 1))
    sink.close()
    assert read_times(tmp_path / "out.mp4") == [Fraction(i, 25) for i in range(4)]


def test_times_that_do_not_go_up_are_mended_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = open_sink(tmp_path / "out.mp4", preset="ultrafast")
    info = replace(info_of(), time_base=Fraction(1, 1000))
    sink.open(info)
    for i, pts in enumerate((0, 40, 40, 30, 160)):
        sink.write(frame_of(info, i, pts=pts, duration=40, time_base=Fraction(1, 1000)))
    sink.close()
    assert read_times(tmp_path / "out.mp4") == [Fraction(t, 1000) for t in (0, 40, 41, 42, 160)]
    assert "2 time stamps did not go up" in caplog.text


def test_frames_with_a_clock_of_their_own(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4", preset="ultrafast")
    info = replace(info_of(), time_base=Fraction(1, 90000))
    sink.open(info)
    for i in range(3):
        sink.write(frame_of(info, i))  # in 1/25 s
    sink.close()
    assert read_times(tmp_path / "out.mp4") == [Fraction(i, 25) for i in range(3)]


def test_unknown_rate(tmp_path: Path) -> None:
    info = replace(info_of(), rate=None, time_base=Fraction(1, 90000))
    sink = open_sink(tmp_path / "out.mkv")
    write_all(sink, info)
    assert read_times(tmp_path / "out.mkv") == [Fraction(i, 25) for i in range(5)]


def test_backward_times_of_copied_packets_are_mended(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(clips("audio"))
    frames = list(source)
    packets = [p for f in frames for p in f.packets] + list(source.trailing_packets)
    packets[5].data.pts = packets[5].data.dts = packets[2].data.dts
    packets[7].data.dts = None
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(source.info)
    for frame in frames:
        sink.write(replace(frame, packets=()))
    sink.close(packets)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for p in container.demux(audio=0) if p.size) == len(packets)
    assert "1 time stamps of copied packets ran backwards" in caplog.text


def test_packets_of_unknown_streams_are_ignored(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0, packets=(Packet(7, None),)))
    sink.close((Packet(8, None),))
    assert stored(tmp_path / "out.mp4")[2] == 1


# --- codecs and formats ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "input_codec", "pix_fmt", "want"),
    [
        (".mkv", "h264", "yuv420p", ("h264", "yuv420p")),
        (".mp4", "hevc", "yuv420p10le", ("hevc", "yuv420p10le")),
        (".mkv", "av1", "yuv420p", ("av1", "yuv420p")),
        (".mkv", "vp8", "yuv420p", ("vp9", "yuv420p")),
        (".mkv", "ffv1", "yuv422p", ("ffv1", "yuv422p")),
        (".mov", "prores", "yuv422p10le", ("prores", "yuv422p10le")),
        (".mp4", "mjpeg", "yuvj422p", ("h264", "yuvj422p")),
        (".mp4", None, "nv12", ("h264", "nv12")),
        (".webm", "h264", "yuv420p", ("vp9", "yuv420p")),
        (".webm", "vp9", "yuv420p10le", ("av1", "yuv420p10le")),  # this libvpx has 8 bits only
        (".mp4", "h264", "yuv420p12le", ("hevc", "yuv420p12le")),
        (".mkv", "h264", "yuv444p14le", ("ffv1", "yuv444p14le")),
        (".mkv", "h264", "rgb24", ("h264", "gbrp")),
        (".mkv", "png", "rgb48le", ("ffv1", "gbrp16le")),
        (".mkv", "hevc", "gray10le", ("hevc", "gray10le")),
        (".mkv", "vp9", "yuva420p", ("vp9", "yuv420p")),  # alpha is stored beside; the native decoder drops it
        (".mp4", "gif", "bgra", ("h264", "yuv420p")),  # few players show RGB
        (".mov", "prores", "yuva444p10le", ("prores", "yuva444p12le")),  # the decoder gives 12 bits
        (".avi", "mpeg4", "yuv420p", ("h264", "yuv420p")),
        (".mp4", "dvvideo", "yuv411p", ("h264", "yuv422p")),  # MP4 could hold FFV1, but nothing plays that
        (".mp4", "ffv1", "yuv420p", ("ffv1", "yuv420p")),
        (".mkv", "dvvideo", "yuv411p", ("ffv1", "yuv411p")),
        (".ogg", "h264", "yuv420p", ("vp8", "yuv420p")),
        (".ogv", "vp9", "yuv420p", ("vp8", "yuv420p")),
    ],
)
def test_default_codec_and_format(
    tmp_path: Path, extension: str, input_codec: str | None, pix_fmt: str, want: tuple[str, str]
) -> None:
    info = info_of(pix_fmt, codec=input_codec, color=ColorInfo(range=2 if "j" in pix_fmt else 0))
    write_all(open_sink(tmp_path / f"out{extension}", preset=None), info)
    codec, stored_format, count = stored(tmp_path / f"out{extension}")
    if want[1] == "nv12":
        assert stored_format in ("nv12", "yuv420p")  # the decoder's choice; the bits are the same
        want = (want[0], stored_format)
    assert (codec, stored_format, count) == (*want, 5)


def test_no_format_changes_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cases = [
        ("yuv420p12le", "h264", "WARNING", "yuv420p12le; converting to yuv420p10le, which loses bit depth"),
        ("yuv444p", "av1", "WARNING", "yuv444p; converting to yuv420p, which loses chroma resolution"),
        ("yuva420p", "h264", "WARNING", "yuva420p; converting to yuv420p, which loses transparency"),
        ("nv24", "h264", "INFO", "nv24 is stored as yuv444p"),
        ("p010le", "hevc", "INFO", "p010le is stored as yuv420p10le"),
        ("rgb24", "ffv1", "INFO", "rgb24 is stored as bgr0"),
        ("gray", "av1", "INFO", "gray is stored as yuv420p"),
    ]
    for number, (pix_fmt, codec, level, text) in enumerate(cases):
        caplog.clear()
        write_all(open_sink(tmp_path / f"{number}.mkv", codec=codec), info_of(pix_fmt))
        assert [r.levelname for r in caplog.records if text in r.getMessage()] == [level], pix_fmt
    caplog.clear()
    write_all(open_sink(tmp_path / "same.mkv", codec="h264"), info_of("yuv422p"))
    assert [record.getMessage() for record in caplog.records if ": encoder libx264" not in record.getMessage()] == []


def test_a_gif_is_not_made_gray(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = info_of("bgra", codec="gif")
    sink = open_sink(tmp_path / "out.gif")
    sink.open(info)
    red = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).expand(48, 64, 4)
    sink.write(replace(frame_of(info, 0), planes=(red,)))
    sink.close()
    assert "converting to pal8, which loses all but 256 colours of a picture" in caplog.text
    with av.open(str(tmp_path / "out.gif")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.mean((0, 1)).tolist() == pytest.approx([255, 0, 0], abs=8)


def test_options_that_the_usual_codec_lacks_choose_another_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_all(open_sink(tmp_path / "out.mkv", crf=30), info_of(codec="ffv1"))
    assert stored(tmp_path / "out.mkv")[0] == "h264"
    assert "encoding as h264 instead of ffv1: codec ffv1 is lossless and has no crf option" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 55}, "crf of libx264 must be from 0 to 51, got 55"),
        ({"preset": "warp"}, "unknown preset 'warp'"),
        ({"pix_fmt": "rgb24"}, "libx264 does not take pix_fmt rgb24"),
    ],
)
def test_a_bad_value_for_the_usual_codec_is_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_sink(tmp_path / "out.mp4", **options).open(info_of(codec="h264"))
    assert not list(tmp_path.iterdir())


def test_a_format_that_other_codecs_do_not_take(tmp_path: Path) -> None:
    write_all(open_sink(tmp_path / "out.mp4", pix_fmt="nv16"), info_of("yuv422p", codec="h264"))
    assert stored(tmp_path / "out.mp4")[:2] == ("h264", "yuv422p")


def test_lossless_h264_of_rgb(tmp_path: Path) -> None:
    info = info_of("rgb24")
    write_all(open_sink(tmp_path / "out.mkv", codec="h264", crf=0), info)
    for i, frame in enumerate(open_source(tmp_path / "out.mkv")):
        (want,) = frame_of(info, i).planes
        assert frame.format.name == "gbrp"
        assert torch.equal(torch.stack([frame.planes[2], frame.planes[0], frame.planes[1]], -1), want)


@pytest.mark.parametrize(("width", "height", "matrix"), [(64, 48, 6), (1280, 720, 1)])
def test_rgb_to_yuv_uses_the_matrix_that_it_names(tmp_path: Path, width: int, height: int, matrix: int) -> None:
    info = info_of("rgb24", width, height)
    plane = torch.zeros(height, width, 3, dtype=torch.uint8)
    plane[..., 0], plane[..., 1], plane[..., 2] = 200, 60, 30
    sink = open_sink(tmp_path / "out.mov", codec="prores")
    sink.open(info)
    sink.write(Frame((plane,), info.format, pts=0, duration=1, time_base=TICK))
    sink.close()
    (frame,) = open_source(tmp_path / "out.mov")
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    luma = kr * 200 + (1 - kr - kb) * 60 + kb * 30
    want = [
        64 + 876 * luma / 255,
        512 + 896 * (30 - luma) / 255 / (2 * (1 - kb)),
        512 + 896 * (200 - luma) / 255 / (2 * (1 - kr)),
    ]
    assert frame.color.matrix == matrix
    depth = frame.format.bit_depth  # the decoder of ProRes 4444 gives 12 bits
    assert [float(p.to(torch.float32).mean()) / (1 << (depth - 10)) for p in frame.planes] == pytest.approx(want, abs=4)


@pytest.mark.parametrize("matrix", [1, 6])
def test_yuv_to_rgb_uses_the_matrix_of_the_source(tmp_path: Path, matrix: int) -> None:
    info = info_of("yuv444p", color=ColorInfo(matrix=matrix, range=1, primaries=1, transfer=1))
    planes = tuple(torch.full((48, 64), v, dtype=torch.uint8) for v in (120, 90, 200))
    sink = open_sink(tmp_path / "out.mkv", codec="ffv1", pix_fmt="bgr0")
    sink.open(info)
    sink.write(Frame(planes, info.format, info.color, pts=0, duration=1, time_base=TICK))
    sink.close()
    (frame,) = open_source(tmp_path / "out.mkv")
    want = {1: (250, 90, 40), 6: (235, 76, 44)}[matrix]
    bgr0 = frame.planes[0].to(torch.float32).mean((0, 1))
    assert bgr0[[2, 1, 0]].tolist() == pytest.approx(want, abs=2)


@pytest.mark.parametrize(
    ("codec", "preset"),
    [("h264", "veryfast"), ("hevc", "ultrafast"), ("av1", "veryfast"), ("av1", "12"), ("vp9", "fast"),
     ("mpeg4", None), ("mjpeg", None)],
)  # fmt: skip
def test_presets_and_quality(tmp_path: Path, codec: str, preset: str | None) -> None:
    info = info_of()
    write_all(open_sink(tmp_path / "out.mkv", codec=codec, preset=preset, threads=1), info)
    frames = list(open_source(tmp_path / "out.mkv"))
    error = np.mean([(f.planes[0].float() - frame_of(info, f.index).planes[0].float()).abs().mean() for f in frames])
    assert len(frames) == 5
    assert error < 6.5  # the noise itself deviates by 6.4; garbage by far more


def test_crf_changes_the_size(tmp_path: Path) -> None:
    sizes = []
    for crf in (10, 40):
        write_all(open_sink(tmp_path / f"{crf}.mp4", codec="h264", crf=crf), info_of(), 10)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 3 * sizes[1]


@pytest.mark.parametrize(("extension", "is_said"), [(".mpg", True), (".vob", True), (".avi", False), (".mkv", False)])
def test_frames_left_out_are_named_where_the_container_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, is_said: bool
) -> None:
    """An .avi has empty chunks for them."""
    info = replace(info_of(), time_base=Fraction(1, 25), rate=Fraction(25))
    sink = open_sink(tmp_path / f"out{extension}")
    sink.open(info)
    for i, pts in enumerate((0, 1, 3, 4, 5, 8)):
        sink.write(frame_of(info, i, pts=pts, time_base=info.time_base))
    sink.close()
    assert ("frames were moved by up to 0.080 s" in caplog.text) == is_said


@pytest.mark.parametrize("extension", [".avi", ".mkv"])
def test_a_variable_rate_on_a_constant_grid_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str
) -> None:
    info = replace(info_of(), time_base=Fraction(1, 1000), rate=Fraction(5))
    sink = open_sink(tmp_path / f"out{extension}", codec="ffv1")
    sink.open(info)
    for i, pts in enumerate((0, 100, 500, 800)):
        sink.write(frame_of(info, i, pts=pts, time_base=info.time_base))
    sink.close()
    assert ("frames were moved by up to 0.100 s" in caplog.text) == (extension == ".avi")


@pytest.mark.parametrize(
    ("name", "codec", "lost"),
    [
        ("out.avi", "h264", "has no place for the rotation by 90 degrees; an"),
        ("out.ts", "h264", "has no place for the rotation by 90 degrees; an"),
        ("out.avi", "ffv1", "has no place for the rotation by 90 degrees and the sample aspect ratio 4/3"),
        ("out.webm", "vp9", "has no place for the sample aspect ratio 4/3"),
        ("out.mkv", "ffv1", "has no place for the sample aspect ratio 4/3"),
        ("out.mkv", "mjpeg", ""),
        ("out.mkv", "h264", ""),
        ("out.mp4", "vp9", ""),
    ],
)
def test_a_shape_that_gets_lost_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, lost: str
) -> None:
    info = info_of(rotation=90, sample_aspect_ratio=Fraction(4, 3))
    write_all(open_sink(tmp_path / name, codec=codec), info)
    assert lost in caplog.text
    assert bool(lost) == bool(caplog.text)
    found = open_source(tmp_path / name).info
    assert (found.rotation == 90) == ("rotation" not in lost)
    assert (found.sample_aspect_ratio == Fraction(4, 3)) == ("aspect" not in lost)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(16, 11), Fraction(64, 45), Fraction(8, 9)])
@pytest.mark.parametrize(("name", "codec"), [("out.mkv", "ffv1"), ("out.webm", "vp9"), ("out.mkv", "av1")])
def test_aspect_ratio_in_matroska_whatever_the_codec(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, aspect: Fraction
) -> None:
    info = info_of(sample_aspect_ratio=aspect, color=ColorInfo(1, 1, 1, 1))
    write_all(open_sink(tmp_path / name, codec=codec), info)
    assert not caplog.text
    found = open_source(tmp_path / name).info
    assert found.rotation == 0
    if name.endswith(".webm"):  # to the pixel
        assert float(found.sample_aspect_ratio) == pytest.approx(float(aspect), abs=0.51 / info.width)
    else:
        assert found.sample_aspect_ratio == aspect
    if shutil.which("mkvmerge"):  # another reader, which complains of damage
        said = subprocess.run(["mkvmerge", "-J", str(tmp_path / name)], capture_output=True, text=True, check=True)
        assert json.loads(said.stdout)["warnings"] == []


def test_rotation_without_a_container_behind_it(tmp_path: Path) -> None:
    write_all(open_sink(tmp_path / "out.mp4"), replace(info_of(), rotation=90))
    assert open_source(tmp_path / "out.mp4").info.rotation == 90


@pytest.mark.parametrize(
    ("extension", "tags", "warns"),
    [
        (".mp4", {"title": "T", "keywords": "k", "location": "+10.0000+020.0000/"}, False),
        (".mp4", {"title": "T", "com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": "X"}, False),
        (".mov", {"title": "T", "director": "D", "show": "S"}, False),
        (".mkv", {"title": "T", "DIRECTOR": "D"}, False),
        (".mp4", {"title": "T", "director": "D"}, True),
    ],
)
def test_tags_are_kept_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, tags: dict[str, str], warns: bool
) -> None:
    write_all(
        open_sink(tmp_path / f"out{extension}"), replace(info_of(codec="h264"), passthrough=Passthrough(metadata=tags))
    )
    with av.open(str(tmp_path / f"out{extension}")) as container:
        lost = {k for k, v in tags.items() if container.metadata.get(k) != v}
    assert lost == ({"director"} if warns else set())
    assert ("has no place for the tags director" in caplog.text) == warns


def test_stale_tags_are_not_copied(tmp_path: Path) -> None:
    copies = Passthrough(
        metadata={"title": "T", "major_brand": "isom", "encoder": "Old", "software": "Lavf59.27.100"},
        video_metadata={"language": "eng", "DURATION": "9", "BPS-eng": "1", "encoder": "Old"},
    )
    write_all(open_sink(tmp_path / "out.mkv"), replace(info_of(), passthrough=copies))
    with av.open(str(tmp_path / "out.mkv")) as container:
        tags = {k.lower(): v for k, v in {**container.metadata, **container.streams.video[0].metadata}.items()}
    assert (tags["title"], tags["language"]) == ("T", "eng")
    assert not {"major_brand", "bps-eng", "software"} & tags.keys()
    assert "Old" not in tags.values()


# --- repacking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "names", "want"),
    [
        ("nv12", ["yuv444p", "yuv420p"], "yuv420p"),
        ("nv12", ["yuv420p", "nv12"], "nv12"),
        ("p010le", ["yuv420p", "yuv420p10le"], "yuv420p10le"),
        ("rgb24", ["gbrap", "gbrp", "yuv444p"], "gbrp"),
        ("rgba", ["gbrp", "rgb24"], None),
        ("gray", ["yuv444p", "yuv420p"], "yuv420p"),
        ("yuvj420p", ["yuvj420p", "yuv420p"], "yuv420p"),
        ("yuv420p10le", ["yuv420p", "yuv420p12le"], None),
        ("yuv422p", ["yuv420p", "yuv444p"], None),
    ],
)
def test_lossless_target(source: str, names: list[str], want: str | None) -> None:
    target = lossless_target(PIXEL_FORMATS[source], names)
    assert (target.name if target else None) == want


def test_repack_there_and_back_for_all_pairs() -> None:
    checked = 0
    for source in PIXEL_FORMATS.values():
        if source.is_float:
            continue
        planes = frame_of(StreamInfo(7, 5, source, TICK), 1, level=0.3).planes
        for target in PIXEL_FORMATS.values():
            if target.is_float or not is_lossless(source, target):
                continue
            moved = repack(planes, source, target)
            assert [tuple(p.shape) for p in moved] == [target.plane_shape(i, 5, 7) for i in range(len(target.layout))]
            if not is_lossless(target, source):
                continue
            back = repack(moved, target, source)
            for names, old, new in zip(source.layout, planes, back, strict=True):
                keep = [i for i, name in enumerate(names) if name != "x"]
                # PyTorch 2.6 has no indexing of uint16.
                assert np.array_equal(*(p.numpy() if p.ndim == 2 else p.numpy()[..., keep] for p in (old, new)))
            checked += 1
    assert checked > 200
