"""Time, to the tick: clocks, edit lists, sound and picture of long files, and files made by other programs."""

from __future__ import annotations

import itertools
import logging
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from support.clips import CLIPS, Clip, write
from support.live_peers import need, with_tiny_model
from support.roundtrip import packets, starts, through, times
from vidnoise.cli import main
from vidnoise.sinks import keeps_clock
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]


@pytest.mark.parametrize("begin", [10, 72_000])
@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".ts"])
def test_a_broadcast_clock(clips: Clips, tmp_path: Path, begin: int, extension: str) -> None:
    """20 hours are no start of an .mp4; the lead of the sound over the picture is kept to the tick."""
    need("ffmpeg")
    source = tmp_path / "in.ts"
    make = ["ffmpeg", "-v", "error", "-i", str(clips("gops_ts")), "-c", "copy", "-output_ts_offset", str(begin)]
    subprocess.run([*make, str(source)], check=True)
    before = starts(source)
    target = tmp_path / f"out{extension}"
    options = (*with_tiny_model(tmp_path), "--strength", "0", "--preset", "ultrafast")
    assert main([str(source), "-o", str(target), *options]) == 0
    after = starts(target)
    assert abs((after["audio"] - after["video"]) - (before["audio"] - before["video"])) <= (
        Fraction(1, 1000) if extension == ".mkv" else 0
    )
    if extension == ".ts":
        assert after["video"] >= begin
    else:
        assert 0 <= min(after.values()) < 0.01
    steps = {round(float(b - a), 3) for a, b in itertools.pairwise(times(target))}
    assert steps == {0.04}


def test_a_clock_is_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for begin, level in ((1.4, logging.INFO), (72_000, logging.WARNING)):
        ticks = tuple(round(begin * 90_000) + 3600 * i for i in range(3))
        source = write(tmp_path / "in.ts", replace(CLIPS["late_start_ts"], ticks=ticks)).path
        caplog.clear()
        with caplog.at_level(logging.INFO):
            frames = list(open_source(source, keeps_clock=False))
        (said,) = [r for r in caplog.records if "its clock begins at" in r.getMessage()]
        assert said.levelno == level
        assert frames[0].pts * frames[0].time_base < 1
        assert len(frames) == 3


@pytest.mark.parametrize(
    ("uri", "format", "keeps"),
    [("a.ts", None, True), ("a.mp4", None, False), ("-", "ts", True), ("-", None, False), ("a.mkv", None, False),
     ("a.M2TS", None, True), ("a.x", "mpegts", True)],
)  # fmt: skip
def test_who_keeps_a_clock(uri: str, format: str | None, keeps: bool) -> None:
    assert keeps_clock(uri, format) == keeps


@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_edit_lists(clips: Clips, tmp_path: Path, extension: str) -> None:
    """Cut by ffmpeg without encoding: pictures before the cut are in the file, and not shown."""
    need("ffmpeg")
    source = tmp_path / "cut.mp4"
    make = ["ffmpeg", "-v", "error", "-ss", "0.28", "-i", str(clips("gops")), "-c", "copy", str(source)]
    subprocess.run(make, check=True)
    assert b"elst" in source.read_bytes()
    count = "ffprobe -v error -select_streams v -count_packets -show_entries stream=nb_read_packets -of csv=p=0"
    stored = int(subprocess.run([*count.split(), str(source)], check=True, capture_output=True).stdout)
    shown = times(source)
    assert len(shown) < stored  # or it would test nothing
    target = through(source, tmp_path / f"out{extension}", preset="ultrafast")
    lead = times(target)[0] - shown[0]
    if extension == ".mp4":  # in Matroska, all moves by the sound that is before the cut
        assert lead == 0
    tolerance = Fraction(1, 1000) if extension == ".mkv" else 0
    assert all(abs(b - a - lead) <= tolerance for a, b in zip(shown, times(target), strict=True))
    assert abs((starts(target)["audio"] - starts(target)["video"]) - (starts(source)["audio"] - shown[0])) <= tolerance


def long_clip(path: Path, minutes: int) -> Path:
    """Picture and sound of some length, small and quick to write: 5 frames and 8 packets of sound a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=5, time_base=Fraction(1, 90_000), options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sound = container.add_stream("aac", rate=8000, layout="mono")
        picture = av.VideoFrame(16, 16, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        silence = np.zeros((1, 1024), np.float32)
        n_samples = 0
        for i in range(minutes * 60 * 5):
            picture.pts, picture.time_base = i * 18_000 + (i % 3) * 7, Fraction(1, 90_000)  # never quite even
            container.mux(video.encode(picture))
            while n_samples < 1600 * i:
                frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, n_samples
                n_samples += 1024
                container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


@pytest.mark.slow
def test_sound_and_picture_after_twenty_minutes(tmp_path: Path) -> None:
    source = long_clip(tmp_path / "long.mp4", 20)
    target = through(source, tmp_path / "out.mp4", preset="ultrafast")

    def stamps(path: Path) -> dict[str, list[Fraction]]:
        found: dict[str, list[Fraction]] = {"video": [], "audio": []}
        with av.open(str(path)) as container:
            for packet in container.demux():
                if packet.size:
                    found[packet.stream.type].append(packet.pts * Fraction(packet.time_base))
        return {kind: sorted(values) for kind, values in found.items()}

    before, after = stamps(source), stamps(target)
    assert len(before["video"]) == 6000
    assert before["video"][-1] > 1199
    assert before == after


def test_a_file_from_mkvmerge(clips: Clips, tmp_path: Path) -> None:
    """Languages, names, flags, chapters, attachments, delays, aspect ratio as another program writes them."""
    need("mkvmerge")
    source = tmp_path / "in.mkv"
    make = [
        "mkvmerge", "-q", "-o", source, "--title", "Other", "--language", "1:jpn", "--track-name", "1:Ton",
        "--default-track-flag", "1:no", "--forced-display-flag", "3:yes", "--aspect-ratio", "0:16/9", "--sync", "2:120",
        "--hearing-impaired-flag", "2:yes", clips("everything"),
    ]  # fmt: skip
    subprocess.run([str(word) for word in make], check=True)
    target = through(source, tmp_path / "out.mkv", codec="ffv1")
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for a, b in zip(before.streams, after.streams, strict=True):
            assert (a.type, a.disposition) == (b.type, b.disposition)
            assert [a.metadata.get(key) for key in ("language", "title")] == [
                b.metadata.get(key) for key in ("language", "title")
            ]
        assert after.metadata["title"] == "Other"
        assert len(after.chapters()) == 2
        shown = [float(s.sample_aspect_ratio * s.width / s.height) for s in (before.streams[0], after.streams[0])]
        assert shown[0] == shown[1] == pytest.approx(16 / 9, abs=0.02)  # mkvmerge rounds to pixels
    assert packets(source, "audio") == packets(target, "audio")
    assert starts(source) == starts(target)
    assert times(source) == times(target)


def test_a_file_from_ffmpeg(tmp_path: Path) -> None:
    """Two languages, a variable rate, B-frames, a cover picture, a rotation, fragments."""
    need("ffmpeg")
    make = (
        "ffmpeg -v error -f lavfi -i testsrc2=size=64x48:rate=30:duration=0.5 -f lavfi -i sine=duration=0.5 -f lavfi "
        "-i sine=frequency=880:duration=0.5 -map 0 -map 1 -map 2 -vf select='not(eq(mod(n\\,5)\\,3))' -vsync vfr "
        "-c:v libx264 -bf 2 -c:a aac -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng -disposition:a:1 "
        "original -movflags frag_keyframe+empty_moov"
    )
    source = tmp_path / "in.mp4"
    subprocess.run([*make.replace("'", "").split(), str(source)], check=True)
    shown = times(source)
    assert len({b - a for a, b in itertools.pairwise(shown)}) == 2
    target = through(source, tmp_path / "out.mp4", preset="ultrafast")
    assert times(target) == shown
    assert packets(source, "audio") == packets(target, "audio")
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for a, b in zip(before.streams, after.streams, strict=True):
            assert (a.type, a.language, a.disposition) == (b.type, b.language, b.disposition)


@pytest.mark.parametrize(("language", "kept"), [("deu", "ger"), ("fre", "fra"), ("eng", "eng"), ("hrv", None)])
def test_languages_in_quicktime(
    tmp_path: Path, language: str, kept: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "in.mp4", replace(CLIPS["audio"], audio=(("aac", language),), ticks=(0, 3600))).path
    with av.open(str(through(source, tmp_path / "out.mov"))) as container:
        assert container.streams.audio[0].language == kept
    assert ("mov has no code for its language hrv" in caplog.text) == (kept is None)


@pytest.mark.parametrize(("first", "second"), [(".mkv", ".mp4"), (".mp4", ".mkv")])
def test_cover_pictures_between_containers(clips: Clips, tmp_path: Path, first: str, second: str) -> None:
    need("ffmpeg")
    cover = tmp_path / "cover.jpg"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=32x32", "-frames:v", "1", cover], check=True
    )
    source = tmp_path / f"in{first}"
    add = ["-attach", cover, "-metadata:s:t", "mimetype=image/jpeg"]
    if first == ".mp4":
        add = ["-i", cover, "-map", "0", "-map", "1", "-disposition:v:1", "attached_pic"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", clips("cfr"), *add, "-c", "copy", source], check=True)
    target = through(source, tmp_path / f"out{second}", preset="ultrafast")
    with av.open(str(target)) as container:
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        assert len(container.streams.video) == 2
        assert len(covers) == 1
        (packet,) = [p for p in container.demux(covers[0]) if p.size]
        assert bytes(packet) == cover.read_bytes()


def packed_avi(path: Path, n: int = 24) -> Path:
    """As encoders for Windows packed them: each B-frame in the chunk of the frame it needs, and then an empty frame.

    Picture ``i`` is ``10 * i`` bright.
    """
    encoder = cast(av.VideoCodecContext, av.CodecContext.create("mpeg4", "w"))
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.max_b_frames, encoder.gop_size, encoder.bit_rate = 1, 12, 400_000
    encoder.options = {"b_strategy": "0", "sc_threshold": "1000000000"}
    packets: list[bytes] = []
    for i in range(n + 1):
        picture = None
        if i < n:
            picture = av.VideoFrame(96, 64, "yuv420p")
            picture.pts, picture.time_base = i, encoder.time_base
            for plane, value in zip(picture.planes, (10 * i, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
        packets += [bytes(p) for p in encoder.encode(picture)]
    chunks: list[bytes] = []
    for data in packets:
        at = data.index(b"\0\0\1\xb6")
        if data[at + 4] >> 6 == 2:  # a B-frame
            chunks[-1] += data
            chunks.append(b"\0\0\1\xb6\x57\xf8\x7f")
        else:
            chunks.append(data if chunks else data[:at] + b"\0\0\1\xb2DivX503b1393p" + data[at:])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
        for i, data in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            container.mux(packet)
    return path


@pytest.mark.parametrize("threads", [1, 0])
def test_packed_b_frames_come_when_they_are_meant(tmp_path: Path, threads: int) -> None:
    """Without care for them, each comes one picture late, and each second one not in its turn."""
    clip = packed_avi(tmp_path / "in.avi")
    frames = list(open_source(clip, threads=threads))
    assert [f.pts * f.time_base for f in frames if f.pts is not None] == [Fraction(i, 25) for i in range(24)]
    assert [round(float(f.planes[0].float().mean()), -1) for f in frames] == [10 * i for i in range(24)]
    from_there = next(iter(open_source(clip, start=0.4, threads=threads)))
    assert round(float(from_there.planes[0].float().mean()), -1) == 100


def test_control_packed_b_frames_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sources.decoding._DIVX_MARK", re.compile(rb"(?!)"))
    assert [f.pts for f in open_source(packed_avi(tmp_path / "in.avi"))][:5] == [1, 3, 2, 5, 4]


def test_the_aspect_ratio_of_the_container_is_no_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where pictures say another one, as those of DV in .avi: that is what players show, and no news."""
    clip, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        stream.sample_aspect_ratio = Fraction(4, 3)
        for i in range(6):
            picture = av.VideoFrame.from_ndarray(np.full((96, 96), 100, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert {f.sample_aspect_ratio for f in open_source(clip)} == {Fraction(4, 3)}
    with caplog.at_level(logging.WARNING):
        assert main([str(clip), "-o", str(out), *with_tiny_model(tmp_path), "--strength", "0"]) == 0
    assert not caplog.records
    assert open_source(out).info.sample_aspect_ratio == Fraction(4, 3)
