"""What a file keeps on its way through source and sink when nothing is done to the pictures."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import av.stream
import numpy as np
import pytest

from support.clips import CLIPS, EXACT_FORMATS, Clip, pictures, write
from support.roundtrip import component_planes, packets, random_frames, through, times
from vidnoise.errors import SinkOpenError
from vidnoise.frame import StreamInfo
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]


_EXACT_TIMES = [name for name, recipe in CLIPS.items() if recipe.extension in (".mp4", ".mov", ".mkv")]


@pytest.mark.parametrize("name", _EXACT_TIMES)
@pytest.mark.parametrize("extension", [".mp4", ".mov"])
def test_times_are_exact_in_mp4_and_mov(clips: Clips, tmp_path: Path, name: str, extension: str) -> None:
    clip = clips(name)
    if name == "odd_65x49" and extension == ".mov":
        pytest.skip("QuickTime holds no codec that takes odd sizes without loss")
    audio = "aac" if name == "everything" else "copy"
    target = through(clip, tmp_path / f"out{extension}", preset="ultrafast", audio=audio)
    assert times(target) == clip.seconds


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "ffv1", "mjpeg"])
def test_times_are_exact_whatever_the_codec(clips: Clips, tmp_path: Path, codec: str) -> None:
    clip = clips("vfr")
    assert times(through(clip, tmp_path / "out.mp4", codec=codec)) == clip.seconds


@pytest.mark.parametrize("name", ["vfr", "vfr_mkv", "ntsc", "late_start", "gops", "everything", "audio"])
def test_times_in_matroska_are_right_to_its_millisecond(clips: Clips, tmp_path: Path, name: str) -> None:
    clip = clips(name)
    found = times(through(clip, tmp_path / "out.mkv", preset="ultrafast"))
    # An audio track that begins before zero (codec delay) moves all tracks of a Matroska file together.
    with av.open(str(clip)) as container:
        starts = [p.pts * Fraction(p.time_base) for p in container.demux() if p.size]
    shift = max(Fraction(0), -min(starts)) if clip.path.suffix == ".mp4" else 0
    assert len(found) == len(clip.seconds)
    assert all(abs(a - b - shift) <= Fraction(1, 1000) for a, b in zip(found, clip.seconds, strict=True))


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv"])
def test_last_frame_keeps_its_duration(clips: Clips, tmp_path: Path, extension: str) -> None:
    # Without B-frames: mp4 has durations of decoding times only.
    target = through(clips("long_last_frame"), tmp_path / f"out{extension}", preset="ultrafast")
    *_, last = open_source(target)
    assert (last.pts + last.duration) * last.time_base == Fraction(76, 100)


@pytest.mark.parametrize("name", ["full_range", "bt601", "bt709", "bt2020", "cfr"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1", "vp9"])
def test_color_tags(clips: Clips, tmp_path: Path, name: str, codec: str) -> None:
    if codec == "vp9" and name == "bt2020":
        pytest.skip("this libvpx has 8 bits only")
    target = through(clips(name), tmp_path / "out.mkv", codec=codec)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    want = CLIPS[name].color
    got = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    if want[1] == 0:  # an untagged range may come back as the limited one that it means
        got = (got[0], 0 if got[1] in (0, 1) else got[1], *got[2:])
    assert got == want


@pytest.mark.parametrize(("name", "extension"), [("sar_4_3", ".mp4"), ("sar_4_3", ".mkv"), ("everything", ".mov")])
def test_sample_aspect_ratio(clips: Clips, tmp_path: Path, name: str, extension: str) -> None:
    audio = "aac" if extension == ".mov" else "copy"
    target = through(clips(name), tmp_path / f"out{extension}", audio=audio)
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == CLIPS[name].sample_aspect_ratio


@pytest.mark.parametrize("name", ["rotated", "rotated_mkv"])
@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_rotation(clips: Clips, tmp_path: Path, name: str, extension: str) -> None:
    target = through(clips(name), tmp_path / f"out{extension}")
    assert open_source(target).info.rotation == CLIPS[name].rotation
    with av.open(str(clips(name))) as before, av.open(str(target)) as after:
        assert next(after.decode(video=0)).rotation == next(before.decode(video=0)).rotation


@pytest.mark.parametrize(
    ("name", "extension"),
    [("audio", ".mp4"), ("audio", ".mkv"), ("two_languages", ".mp4"), ("two_languages", ".mkv"), ("pcm_audio", ".mov"),
     ("everything", ".mkv"), ("gops", ".mp4"), ("late_start", ".mkv"), ("gops_ts", ".ts")],
)  # fmt: skip
def test_audio_is_copied_byte_for_byte(clips: Clips, tmp_path: Path, name: str, extension: str) -> None:
    clip = clips(name)
    target = through(clip, tmp_path / f"out{extension}")
    before, after = packets(clip, "audio"), packets(target, "audio")
    assert [len(t) for t in before] == [len(t) for t in after]
    assert before == after
    with av.open(str(target)) as container:
        assert [s.language for s in container.streams.audio] == [language for _, language in CLIPS[name].audio]


@pytest.mark.parametrize("name", ["audio", "late_start", "gops"])
@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_audio_stays_in_step(clips: Clips, tmp_path: Path, name: str, extension: str) -> None:
    def lead(path: object) -> Fraction:
        with av.open(str(path)) as container:
            first: dict[str, Fraction] = {}
            for packet in container.demux():
                if packet.size:
                    time = packet.pts * Fraction(packet.time_base)
                    first[packet.stream.type] = min(time, first.get(packet.stream.type, time))
            return first["audio"] - first["video"]

    clip = clips(name)
    assert abs(lead(through(clip, tmp_path / f"out{extension}")) - lead(clip)) <= Fraction(1, 1000)


def test_everything_travels(clips: Clips, tmp_path: Path) -> None:
    clip = clips("everything")
    target = through(clip, tmp_path / "out.mkv")
    with av.open(str(clip)) as before, av.open(str(target)) as after:
        assert [s.type for s in after.streams] == [s.type for s in before.streams]
        assert [c["metadata"] for c in after.chapters()] == [c["metadata"] for c in before.chapters()]
        assert [(c["start"], c["end"]) for c in after.chapters()] == [(c["start"], c["end"]) for c in before.chapters()]
        assert (after.metadata["title"], after.metadata["DIRECTOR"]) == ("All", "Somebody")
        assert after.streams.subtitles[0].language == "fra"
        assert [s.data for s in after.streams if s.type == "attachment"] == [b"attached bytes"]
        assert [int(s.disposition) for s in after.streams] == [int(s.disposition) for s in before.streams]
    assert packets(clip, "subtitle") == packets(target, "subtitle") == [[b"Hello", b"there"]]


def test_chapters_and_title_in_mp4(clips: Clips, tmp_path: Path) -> None:
    target = through(clips("two_languages"), tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One", "Two"]
        assert (container.metadata["title"], container.metadata["artist"]) == ("Two", "Some")
        assert sum(s.type == "data" for s in container.streams) == 1  # the track of chapter titles, once


def test_cover_picture_and_second_video_are_copied(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "cover.mp4"
    with av.open(str(clips("audio"))) as reader, av.open(str(source), "w") as writer:
        outputs = {s.index: writer.add_stream_from_template(s, opaque=True) for s in reader.streams}
        second = writer.add_stream("libx264", rate=25, time_base=Fraction(1, 25))
        second.codec_context.width, second.codec_context.height = 32, 32
        cover = writer.add_stream("mjpeg", rate=25, time_base=Fraction(1, 25), options={"strict": "unofficial"})
        cover.codec_context.width, cover.codec_context.height = 32, 32
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame(32, 32, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([77]) * plane.buffer_size)
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        for stream in (cover, second):
            writer.mux(stream.encode(picture))
            writer.mux(stream.encode(None))
        for packet in reader.demux():
            if packet.size:
                packet.stream = outputs[packet.stream_index]
                writer.mux(packet)
    with caplog.at_level(logging.WARNING):
        target = through(source, tmp_path / "out.mp4")
    assert "is copied as it is, not denoised" in caplog.text
    with av.open(str(target)) as container:
        kinds = [(s.type, bool(s.disposition & av.stream.Disposition.attached_pic)) for s in container.streams]
        assert kinds == [("video", False), ("audio", False), ("video", False), ("video", True)]
        assert container.streams[0].width == 64
    before, after = packets(source, "video"), packets(target, "video")
    assert after[1:] == before[1:]


def test_what_does_not_fit_is_left_out_aloud(clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        target = through(clips("everything"), tmp_path / "out.mp4")
    assert "attachment stream #4 (note.txt) is left out" in caplog.text
    assert "mp4 has no place for the tags DIRECTOR" in caplog.text
    assert len(packets(target, "audio")) == 2


def test_audio_that_does_not_fit_is_an_error(clips: Clips, tmp_path: Path) -> None:
    with pytest.raises(SinkOpenError, match=r"webm cannot hold audio stream #1 \(aac, deu\).*audio opus.*audio none"):
        through(clips("audio"), tmp_path / "out.webm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("extension", "audio", "codec"), [(".webm", "opus", "opus"), (".mov", "aac", "aac")])
def test_audio_is_reencoded_on_request(clips: Clips, tmp_path: Path, extension: str, audio: str, codec: str) -> None:
    clip = clips("pcm_audio")
    target = through(clip, tmp_path / f"out{extension}", audio=audio)
    with av.open(str(target)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.codec.canonical_name == codec
        assert stream.language == "eng"
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)]).astype(np.float64)
    assert sound.size == pytest.approx(0.4 * 48000, abs=2500)
    spectrum = np.abs(np.fft.rfft(sound[2000:14000] * np.hanning(12000)))
    assert np.argmax(spectrum) * 48000 / 12000 == pytest.approx(330, abs=6)


def test_audio_none(clips: Clips, tmp_path: Path) -> None:
    assert packets(through(clips("audio"), tmp_path / "out.mp4", audio="none"), "audio") == []


@pytest.mark.parametrize("pix_fmt", EXACT_FORMATS)
def test_ffv1_gives_identical_samples(clips: Clips, tmp_path: Path, pix_fmt: str) -> None:
    clip = clips(f"exact_{pix_fmt}")
    target = through(clip, tmp_path / "out.mkv", codec="ffv1")
    before, after = pictures(clip.path), pictures(target)
    assert len(before) == len(after) == 10
    for (_, old), (_, new) in zip(before, after, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))


_OTHER_LAYOUTS = (
    "nv12", "nv21", "nv16", "nv24", "p010le", "p210le", "rgb24", "bgr24", "rgba", "abgr", "0rgb", "rgb0", "gbrp",
    "gbrap", "rgb48le", "bgr48le", "yuvj420p", "yuv444p12le", "gray12le", "yuva444p10le",
)  # fmt: skip


@pytest.mark.parametrize("pix_fmt", _OTHER_LAYOUTS)
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_ffv1_keeps_every_sample_of_layouts_that_it_does_not_have(
    tmp_path: Path, pix_fmt: str, size: tuple[int, int]
) -> None:
    width, height = size
    frames = random_frames(pix_fmt, width, height, 3)
    sink = open_sink(tmp_path / "out.mkv", codec="ffv1")
    sink.open(StreamInfo(width, height, frames[0].format, Fraction(1, 25), Fraction(25)))
    for frame in frames:
        sink.write(frame)
    sink.close()
    for old, new in zip(frames, open_source(tmp_path / "out.mkv"), strict=True):
        assert (new.height, new.width) == (height, width)
        samples = component_planes(new)
        for name, plane in component_planes(old).items():
            assert np.array_equal(plane, samples[name]), name


@pytest.mark.parametrize("extension", [".mkv", ".mp4"])
def test_hdr10_metadata_travels(tmp_path: Path, extension: str) -> None:
    light = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = f"log-level=none:hdr10=1:repeat-headers=1:master-display={light}:max-cll=1000,400"
    recipe = replace(
        CLIPS["bt2020"], codec="libx265", options={"preset": "ultrafast", "x265-params": params}, ticks=(0, 40, 80)
    )
    clip = write(tmp_path / "hdr.mkv", recipe)
    before = open_source(clip).info.passthrough.hdr
    assert before["content_light"] == (1000, 400)
    assert before["mastering_display"][-1] == 1000
    for codec in ("hevc", "h264", "av1"):
        target = through(clip, tmp_path / f"{codec}{extension}", codec=codec, preset="ultrafast")
        after = open_source(target).info.passthrough.hdr
        assert after["content_light"] == (1000, 400), codec
        display = zip(after["mastering_display"], before["mastering_display"], strict=True)
        # AV1 stores the greatest luminance in 1/256 cd/m², the least in 1/16384.
        assert all(float(a) == pytest.approx(float(b), abs=1e-4) for a, b in display), codec


@pytest.mark.parametrize(
    ("extension", "codec"), [(".avi", "mpeg4"), (".avi", None), (".ts", None), (".mpg", "mpeg2video"), (".nut", None)]
)
def test_other_containers(clips: Clips, tmp_path: Path, extension: str, codec: str | None) -> None:
    target = through(clips("cfr"), tmp_path / f"out{extension}", codec=codec)
    found = times(target)
    steps = {b - a for a, b in itertools.pairwise(found)}
    assert len(found) == 10
    assert steps == {Fraction(1, 25)}


def test_trimmed_range(clips: Clips, tmp_path: Path) -> None:
    clip = clips("gops")
    target = through(clip, tmp_path / "out.mp4", read={"start": 0.3, "duration": 0.5})
    with av.open(str(target)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.frames == 13  # 0.32 s ... 0.80 s
        assert video.start_time == 0
        assert 0 <= audio.start_time * audio.time_base < 0.03
        assert float(audio.duration * audio.time_base) == pytest.approx(0.5, abs=0.03)
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One", "Two"]
    old, new = pictures(clip.path), pictures(target)
    # Lossy, but the right pictures: frame 8 of the input is nearest to frame 0 of the output.
    errors = [np.abs(planes[0].astype(int) - new[0][1][0].astype(int)).mean() for _, planes in old]
    assert int(np.argmin(errors)) == 8


def test_source_may_be_closed_before_its_packets_are_written(clips: Clips, tmp_path: Path) -> None:
    clip = clips("audio")
    source = open_source(clip)
    frames = list(source)  # exhausted: the input's container is closed
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(source.info)
    for frame in frames:
        sink.write(frame)
    sink.close(source.trailing_packets)
    assert packets(tmp_path / "out.mp4", "audio") == packets(clip, "audio")
