"""What is easily lost without a word: chroma location, captions, telemetry, palettes, uneven times, rates."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from support.clips import CLIPS, Clip, Recipe, pictures, remux, write
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame, StreamInfo
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source
from vidnoise.sources.description import side_data

Clips = Callable[[str], Clip]


def copy(source: Path | str, target: Path, **options: Any) -> Path:
    """What a run with strength 0 does."""
    reader = open_source(str(source))
    sink = open_sink(target, overwrite=True, threads=1, **options)
    sink.open(reader.info)
    for frame in reader:
        sink.write(frame)
    sink.close(reader.trailing_packets)
    return target


def seconds(path: Path) -> list[Fraction]:
    return [(f.pts or 0) * f.time_base for f in open_source(str(path))]


# --- chroma location --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("location", "number"), [("left", 1), ("center", 2), ("topleft", 3)])
@pytest.mark.parametrize(("extension", "codec"), [(".mp4", "h264"), (".mkv", "ffv1"), (".y4m", None)])
def test_chroma_location_is_kept(
    tmp_path: Path, location: str, number: int, extension: str, codec: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(".mkv", "ffv1", {"chroma_sample_location": location}, time_base=Fraction(1, 25), ticks=(0, 1))
    clip = write(tmp_path / "in.mkv", recipe)
    assert open_source(str(clip)).info.color.chroma_location == number
    out = open_source(str(copy(str(clip), tmp_path / f"out{extension}", codec=codec)))
    assert out.info.color.chroma_location == number
    assert [f.color.chroma_location for f in out] == [number, number]
    assert "chroma location" not in caplog.text


def test_chroma_location_of_y4m(tmp_path: Path) -> None:
    for tag, number in (("420mpeg2", 1), ("420jpeg", 2), ("420paldv", 3)):
        head = f"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C{tag}\nFRAME\n".encode()
        (tmp_path / "in.y4m").write_bytes(head + bytes(384))
        assert open_source(str(tmp_path / "in.y4m")).info.color.chroma_location == number
        assert copy(tmp_path / "in.y4m", tmp_path / "out.y4m").read_bytes().startswith(head[: head.index(b"\n")])


def test_a_chroma_location_that_is_lost_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe(".mkv", "ffv1", {"chroma_sample_location": "topleft"}, time_base=Fraction(1, 25), ticks=(0, 1))
    copy(str(write(tmp_path / "in.mkv", recipe)), tmp_path / "out.avi", codec="ffv1")
    assert "has no place for the chroma location (topleft)" in caplog.text


# --- captions ---------------------------------------------------------------------------------------------------------


def with_captions(source: Path, target: Path, first: int) -> Path:
    """H.264 with captions (SEI of A/53) from packet ``first`` on."""
    pairs = b"".join(b"\xfc" + bytes([0x54, 0x65 + i]) for i in range(2))
    payload = b"\xb5\x00\x31GA94\x03" + bytes([0x40 | 2]) + b"\xff" + pairs + b"\xff"
    unit = b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
    return remux(source, target, lambda n, data: struct.pack(">I", len(unit)) + unit + data if n >= first else data)


def captions(path: Path) -> list[bool]:
    with av.open(str(path)) as container:
        return [any(i.type.name == "A53_CC" for i in side_data(f)) for f in container.decode(video=0)]


@pytest.mark.parametrize("first", [0, 4])
def test_captions_are_carried_where_the_encoder_can(
    clips: Clips, tmp_path: Path, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that begin later than the first picture, too; and the samples are not the captions' picture's."""
    source = with_captions(clips("cfr").path, tmp_path / "in.mp4", first)
    assert captions(source) == [n >= first for n in range(10)]
    reader, sink = open_source(str(source)), open_sink(tmp_path / "out.mkv", codec="h264", crf=0)
    sink.open(reader.info)
    for frame in reader:
        sink.write(replace(frame, planes=tuple(255 - plane for plane in frame.planes)))
    sink.close()
    assert captions(tmp_path / "out.mkv") == [n >= first for n in range(10)]
    assert "captions" not in caplog.text
    for (_, before), (_, after) in zip(pictures(source), pictures(tmp_path / "out.mkv"), strict=True):
        assert all(np.array_equal(255 - a, b) for a, b in zip(before, after, strict=True))


def test_each_of_two_outputs_has_the_captions_and_its_own_pictures(clips: Clips, tmp_path: Path) -> None:
    """Both are encoded at once, each on its thread, from one picture of the decoder's."""
    source = with_captions(clips("cfr").path, tmp_path / "in.mp4", 0)
    outputs = [tmp_path / "a.mkv", tmp_path / "b.mkv"]
    reader, sink = open_source(str(source)), open_sink(outputs[0], tee=[outputs[1]])
    sink.open(reader.info)
    for frame in reader:
        sink.write(replace(frame, planes=tuple(255 - plane for plane in frame.planes)))
    sink.close()
    for output in outputs:
        assert captions(output) == [True] * 10
        for (_, before), (_, after) in zip(pictures(source), pictures(output), strict=True):
            errors = [np.abs(255.0 - a - b).mean() for a, b in zip(before, after, strict=True)]
            assert max(errors) < 5


def test_captions_that_are_lost_are_said(clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = with_captions(clips("cfr").path, tmp_path / "in.mp4", 4)
    copy(source, tmp_path / "out.mkv", codec="ffv1")
    assert caplog.text.count("the closed captions inside the pictures are not carried over (frame 4)") == 1


# --- other tracks -----------------------------------------------------------------------------------------------------


def test_telemetry_beside_chapters_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height = 64, 48
        data = container.add_mux_stream("bin_data")
        data.time_base = Fraction(1, 1000)
        times = {"start": 0, "end": 200, "time_base": Fraction(1, 1000)}
        container.set_chapters([{"id": 1, **times, "metadata": {"title": "One"}}])  # type: ignore[list-item]
        for i in range(5):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
            packet = av.Packet(b"telemetry %d" % i)
            packet.stream, packet.time_base, packet.pts, packet.dts, packet.duration = (
                data,
                data.time_base,
                40 * i,
                40 * i,
                40,
            )
            container.mux(packet)
        container.mux(video.encode(None))

    def found(path: Path) -> tuple[list[bytes], int]:
        with av.open(str(path)) as container:
            packets = [bytes(p) for s in container.streams if s.type == "data" for p in container.demux(s) if p.size]
            return [p for p in packets if b"telemetry" in p], len(container.chapters())

    assert found(source) == ([b"telemetry %d" % i for i in range(5)], 1)
    assert found(copy(source, tmp_path / "out.mp4")) == found(source)


def test_sound_that_cannot_be_decoded_names_a_way_that_works(clips: Clips, tmp_path: Path) -> None:
    recipe = Recipe(".mov", audio=(("aac", "eng"), ("pcm_s16le", "eng")))
    data = write(tmp_path / "two.mov", recipe).path.read_bytes()
    (tmp_path / "in.mov").write_bytes(data.replace(b"sowt", b"apac"))  # as iPhones write spatial sound
    for name, audio in (("a.mov", "copy"), ("a.mkv", "copy"), ("a.mov", "aac")):
        with pytest.raises(SinkOpenError, match=r'tracks="-a:1"') as caught:
            copy(tmp_path / "in.mov", tmp_path / name, audio=audio)
        assert "write an .mkv" not in str(caught.value)
    reader = open_source(str(tmp_path / "in.mov"), tracks="-a:1")
    sink = open_sink(tmp_path / "b.mov")
    sink.open(reader.info)
    for frame in reader:
        sink.write(frame)
    sink.close(reader.trailing_packets)


# --- palettes and RGB -------------------------------------------------------------------------------------------------


def test_gif_to_gif_keeps_colours_and_transparency(tmp_path: Path) -> None:
    info = StreamInfo(32, 24, PIXEL_FORMATS["rgba"], Fraction(1, 25), Fraction(25))
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (100, 4), generator=generator, dtype=torch.uint8)
    colours[:, 3] = 255
    colours[0] = 0
    frames = [colours[torch.randint(0, 100, (24, 32), generator=generator)] for _ in range(3)]
    sink = open_sink(tmp_path / "in.gif")
    sink.open(info)
    for i, plane in enumerate(frames):
        sink.write(Frame((plane,), info.format, pts=4 * i, time_base=Fraction(1, 100), index=i))
    sink.close()

    def shown(path: Path) -> list[np.ndarray]:
        with av.open(str(path)) as container:
            return [f.to_ndarray(format="rgba") for f in container.decode(video=0)]

    first = shown(tmp_path / "in.gif")
    assert np.array_equal(first[0][..., 3], frames[0].numpy()[..., 3])
    opaque = first[0][..., 3] == 255
    apart = first[0][opaque].astype(int) - frames[0].numpy()[opaque]
    assert np.abs(apart).max() <= 3  # FFmpeg averages colours in another space, and rounds
    again = shown(copy(tmp_path / "in.gif", tmp_path / "out.gif"))
    assert len(again) == len(first) == 3
    assert all(np.array_equal(a, b) for a, b in zip(again, first, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.mp4", {}, "yuv420p"), ("a.mov", {"codec": "hevc"}, "yuv420p"), ("a.mkv", {}, "gbrp"),
        ("a.mp4", {"pix_fmt": "yuv444p"}, "yuv444p"), ("a.mp4", {"pix_fmt": "rgb24"}, "gbrp"),
    ],
)  # fmt: skip
def test_rgb_becomes_what_players_show(
    tmp_path: Path, name: str, options: dict[str, str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = open_source("lavfi:testsrc2=size=64x48:rate=25:duration=0.1,format=rgb24")
    sink = open_sink(tmp_path / name, **options)
    sink.open(reader.info)
    for frame in reader:
        sink.write(frame)
    sink.close()
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].format.name == expected
    assert ("most players show nothing else" in caplog.text) == (expected == "yuv420p")


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".m4v", ".3gp", ".f4v", ".ismv", ".mp4"])
def test_uneven_times_are_kept(clips: Clips, tmp_path: Path, extension: str) -> None:
    found = seconds(copy(clips("vfr").path, tmp_path / f"out{extension}", codec="h264"))
    apart = [abs(a - b) for a, b in zip(found, clips("vfr").seconds, strict=True)]
    assert max(apart) <= (Fraction(1, 10**7) if extension == ".ismv" else 0)  # whose ticks are those


@pytest.mark.parametrize("extension", [".mpg", ".avi"])
def test_times_that_are_put_on_a_grid_are_said(
    clips: Clips, tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy(clips("vfr").path, tmp_path / f"out{extension}")
    assert "knows a constant frame rate only; frames were moved by up to" in caplog.text
    caplog.clear()
    copy(clips("cfr").path, tmp_path / f"even{extension}")
    assert "frames were moved" not in caplog.text


@pytest.mark.parametrize(("codec", "extension"), [("libx264", ".h264"), ("libx265", ".hevc")])
def test_bare_streams_have_the_rate_that_they_tell(tmp_path: Path, codec: str, extension: str) -> None:
    options = {"preset": "ultrafast", **({"x265-params": "log-level=none"} if codec == "libx265" else {})}
    recipe = Recipe(extension, codec, options, rate=Fraction(30), time_base=Fraction(1, 30), ticks=tuple(range(6)))
    source = open_source(str(write(tmp_path / f"in{extension}", recipe)))
    assert source.info.rate == 30
    assert [(f.pts or 0) * f.time_base for f in source] == [Fraction(i, 30) for i in range(6)]


@pytest.mark.parametrize("extension", [".avi", ".mpg", ".ts", ".m2ts"])
def test_a_very_late_start_is_no_hours_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str
) -> None:
    """The clock of transport streams begins anew after 26 hours, which would be another time without a word."""
    recipe = replace(CLIPS["cfr_mkv"], ticks=tuple(100_000_000 + 40 * i for i in range(10)))
    clip = write(tmp_path / "in.mkv", recipe)
    out = copy(str(clip), tmp_path / f"out{extension}")
    assert out.stat().st_size < 100_000
    assert [t - seconds(out)[0] for t in seconds(out)] == [Fraction(i, 25) for i in range(10)]
    assert seconds(out)[0] < 1
    assert "the output begins at 0" in caplog.text


@pytest.mark.parametrize("extension", [".mkv", ".nut", ".mp4", ".flv"])
def test_a_very_late_start_stays_where_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str) -> None:
    recipe = replace(CLIPS["cfr_mkv"], ticks=tuple(100_000_000 + 40 * i for i in range(10)))
    out = copy(str(write(tmp_path / "in.mkv", recipe)), tmp_path / f"out{extension}")
    assert seconds(out) == [Fraction(i, 25) + 100_000 for i in range(10)]
    assert not caplog.records, "neither moved nor cut off"


# --- the index of .mp4 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "is_first"),
    [
        ("a.mp4", {}, True), ("a.m4v", {}, True), ("a.mov", {}, False), ("a.mov", {"faststart": True}, True),
        ("a.mp4", {"faststart": False}, False), ("with space, a:b.mp4", {}, True),
    ],
)  # fmt: skip
def test_the_index_comes_first(
    clips: Clips, tmp_path: Path, name: str, options: dict[str, bool], is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy(clips("audio").path, Path(name), **options)
    data = Path(name).read_bytes()
    assert (data.index(b"moov") < data.index(b"mdat")) == is_first
    assert len(seconds(Path(name))) == 10
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_an_index_can_come_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="index"):
        open_sink(tmp_path / "a.mkv", faststart=True)
