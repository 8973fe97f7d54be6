"""The contract of sources, for every source and every clip; damaged, odd and missing inputs."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import threading
import wave
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from support.clips import CLIPS, EXACT_FORMATS, Clip, Recipe, damage, join_ts, pictures, remux, truncate, write
from support.sources import check_contract
from vidnoise.errors import DecodeError, FormatError, SourceError, SourceOpenError, UsageError, VidnoiseError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.sources import Source, open_source
from vidnoise.sources.picture import _REPACKED, plane_views, target_format

Clips = Callable[[str], Clip]

ALL_CLIPS = [*CLIPS, *(f"exact_{f}" for f in EXACT_FORMATS)]


@pytest.mark.parametrize("name", ALL_CLIPS)
def test_contract(clips: Clips, name: str) -> None:
    clip = clips(name)
    source = open_source(clip)
    frames = check_contract(source)
    reference = pictures(clip.path)
    assert source.n_corrupt == 0
    assert [f.pts for f in frames] == [pts for pts, _ in reference]
    assert [f.index for f in frames] == list(range(len(frames)))
    for frame, (_, planes) in zip(frames, reference, strict=True):
        for plane, want in zip(frame.planes, planes, strict=True):
            assert plane.contiguous().view(torch.uint8).numpy().tobytes() == want.tobytes()
    if name not in ("b_frames_avi", "gops_ts"):  # AVI's and TS's muxers move the times themselves
        assert [f.pts * f.time_base for f in frames] == clip.seconds


@pytest.mark.parametrize("options", [{}, {"live": True}])
def test_with_closes_a_source(clips: Clips, options: dict[str, bool]) -> None:
    with open_source(clips("cfr"), **options) as source:
        assert next(iter(source)).index == 0
    with open_source(clips("cfr"), **options) as source:
        pass
    with pytest.raises(SourceError, match="the source is closed; open it again"):
        next(iter(source))


def test_lavfi_source() -> None:
    frames = check_contract(open_source("lavfi:testsrc2=size=66x50:rate=30:duration=0.2"))
    assert [f.pts * f.time_base for f in frames] == [Fraction(i, 30) for i in range(6)]


@pytest.mark.parametrize("name", ["cfr", "ntsc", "everything", "bt2020", "full_range", "rotated", "sar_4_3"])
def test_info(clips: Clips, name: str) -> None:
    recipe = clips(name).recipe
    info = open_source(clips(name)).info
    assert (info.width, info.height, info.rate) == (recipe.width, recipe.height, recipe.rate)
    assert info.time_base == recipe.time_base
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (recipe.color[0], *recipe.color[2:])
    if recipe.color[1]:
        assert info.color.range == recipe.color[1]
    assert info.rotation == recipe.rotation
    assert info.sample_aspect_ratio == recipe.sample_aspect_ratio or not recipe.sample_aspect_ratio
    assert info.codec == "h264"
    assert info.bit_rate > 0
    assert not info.is_live
    # The header of a Matroska file gives the end of its longest stream.
    assert info.duration_seconds == pytest.approx(10 / float(recipe.rate), abs=0.05)
    if recipe.extension != ".mkv":
        assert info.n_frames == 10


@pytest.mark.parametrize("name", ["cfr", "odd_65x49", "even_66x50"])
def test_planes_are_views_and_outlive_the_source(clips: Clips, name: str) -> None:
    source = open_source(clips(name))
    frames = list(source)
    before = [[p.clone() for p in f.planes] for f in frames]
    assert any(not p.is_contiguous() for f in frames for p in f.planes)  # FFmpeg pads its rows: nothing was copied
    del source
    gc.collect()
    list(open_source(clips(name)))
    for frame, copy in zip(frames, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(frame.planes, copy, strict=True))


def test_planes_of_bottom_up_pictures() -> None:
    class Plane(np.ndarray):
        line_size = -4

    class Picture:
        height, width = 2, 3
        # av hands out the memory from its lowest address: the last row first.
        planes = (np.array([9, 8, 7, 0, 1, 2, 3, 0], np.uint8).view(Plane),)

    (view,) = plane_views(Picture(), PIXEL_FORMATS["gray"])
    assert view.tolist() == [[1, 2, 3], [9, 8, 7]]


_SMALL_RGB = {name for name in _REPACKED if name.endswith(("444le", "555le", "565le"))}


@pytest.mark.parametrize("pix_fmt", sorted(_SMALL_RGB))
def test_small_rgb_is_widened_reversibly(pix_fmt: str) -> None:
    bits = sum(c.bits for c in av.VideoFormat(pix_fmt).components)
    picture = av.VideoFrame(256, 256, pix_fmt)
    picture.planes[0].update(np.arange(1 << 16, dtype="<u2").tobytes())
    target = target_format(pix_fmt)
    (plane,) = plane_views(picture.reformat(format=target.name), target)
    assert len(plane.reshape(-1, 3).unique(dim=0)) == 1 << bits


_BIG_ENDIAN = {"yuv420p10be", "gray16be", "rgb48be", "yuv444p16be"}


@pytest.mark.parametrize("pix_fmt", sorted((_REPACKED.keys() | _BIG_ENDIAN) - _SMALL_RGB))
def test_repacked_formats_are_lossless(pix_fmt: str) -> None:
    """There and back through swscale gives the same bytes, so nothing was lost on the way in."""
    target = target_format(pix_fmt)
    assert target is not None
    rng = np.random.default_rng(5)
    picture = av.VideoFrame(64, 48, "rgb24")
    picture.planes[0].update(rng.integers(0, 256, (48, picture.planes[0].line_size), dtype=np.uint8).tobytes())
    picture.color_range = 2 if target.family == "rgb" else 1
    try:
        odd = picture.reformat(format=pix_fmt)
        first = odd.reformat(format=target.name)
        again = first.reformat(format=pix_fmt).reformat(format=target.name)
    except (ValueError, av.error.FFmpegError):
        pytest.skip("this libswscale does not write the format, so there is nothing to compare")
    for a, b in zip(plane_views(first, target), plane_views(again, target), strict=True):
        assert torch.equal(a, b)


def test_repacking_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write(tmp_path / "a.nut", Recipe(".nut", "rawvideo", {}, pix_fmt="yuyv422", ticks=(0, 1, 2),
                                            time_base=Fraction(1, 25)))  # fmt: skip
    with caplog.at_level(logging.INFO):
        frames = check_contract(open_source(clip))
    assert frames[0].format.name == "yuv422p"
    assert caplog.text.count("yuyv422 is processed as yuv422p") == 1
    packed = np.frombuffer(pictures(clip.path)[0][1][0].tobytes(), np.uint8).reshape(48, -1)
    assert np.array_equal(frames[0].planes[0].numpy(), packed[:, 0::2][:, :64])


def test_format_without_lossless_way_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(".nut", "rawvideo", {}, pix_fmt="xyz12le", ticks=(0, 1), time_base=Fraction(1, 25))
    clip = write(tmp_path / "a.nut", recipe)
    with pytest.raises(FormatError, match=r"pixel format xyz12le cannot be processed without loss"):
        open_source(clip)


# --- trimming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gops", "gops_ts"])
@pytest.mark.parametrize("start", [0, 0.04, 0.3, 0.41, 0.8, 1.16])
def test_start_is_exact(clips: Clips, name: str, start: float) -> None:
    whole = list(open_source(clips(name)))
    trimmed = check_contract(open_source(clips(name), start=start))
    origin = whole[0].pts
    # Times of both containers count from their beginning, which sound may begin too.
    with av.open(str(clips(name))) as container:
        origin = Fraction(container.start_time, av.time_base) / whole[0].time_base
    wanted = [f for f in whole if f.pts - origin >= start / whole[0].time_base - Fraction(1, 2)]
    assert len(trimmed) == len(wanted)
    assert [f.pts for f in trimmed] == [f.pts - wanted[0].pts for f in wanted]
    assert trimmed[0].discontinuity == (start > 0)
    assert all(torch.equal(a.planes[0], b.planes[0]) for a, b in zip(trimmed, wanted, strict=True))


def test_duration_cuts_sound_alike(clips: Clips) -> None:
    source = open_source(clips("gops"), start=0.2, duration=0.4)
    frames = list(source)
    packets = [p.data for f in frames for p in f.packets] + [p.data for p in source.trailing_packets]
    assert len(frames) == 10
    assert source.info.duration_seconds == pytest.approx(0.4)
    times = [p.pts * Fraction(p.time_base) for p in packets]
    assert times == sorted(times)
    assert 0 <= times[0] < Fraction(22, 1000)
    assert Fraction(37, 100) < times[-1] < Fraction(4, 10)


def test_start_behind_the_end(clips: Clips) -> None:
    with pytest.raises(UsageError, match="start 100 s is behind the end"):
        open_source(clips("cfr"), start=100)


@pytest.mark.parametrize(
    ("option", "value"),
    [("start", -1), ("duration", 0), ("start", float("nan")), ("start", 1e30), ("threads", -2), ("threads", 10**12)],
)
def test_senseless_options(clips: Clips, option: str, value: float) -> None:
    with pytest.raises(UsageError, match=option):
        open_source(clips("cfr"), **{option: value})


def test_start_on_an_input_that_cannot_seek(clips: Clips) -> None:
    reading, writing = os.pipe()
    data = clips("gops_ts").path.read_bytes()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        trimmed = list(open_source(f"pipe:{reading}", start=0.41))
    finally:
        os.close(reading)
        feeder.join()
    assert len(trimmed) == len(list(open_source(clips("gops_ts"), start=0.41)))


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_damaged_packets_are_counted_and_times_stay_right(clips: Clips, tmp_path: Path, threads: int) -> None:
    broken = damage(clips("even_66x50").path, tmp_path / "broken.mkv", [4])  # FFV1 checks its slices: no doubt
    source = open_source(broken, threads=threads)
    frames = check_contract(source)
    assert source.n_corrupt == 1
    assert {f.pts for f in frames} >= {0, 40, 80, 120, 200, 240, 280, 320, 360}
    assert all(f.pts % 40 == 0 for f in frames)
    assert frames[-1].index == 9


def test_damage_in_h264(clips: Clips, tmp_path: Path) -> None:
    broken = damage(clips("gops").path, tmp_path / "broken.mp4", [7, 8])
    source = open_source(broken, threads=1)
    frames = list(source)
    times = [f.pts for f in frames]
    assert 1 <= source.n_corrupt <= 4
    assert 27 <= len(frames) <= 30
    assert set(times) <= set(clips("gops").recipe.ticks)
    assert times == sorted(times)


def test_damage_is_reported(clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = damage(clips("even_66x50").path, tmp_path / "broken.mkv", [4, 5])
    with caplog.at_level(logging.WARNING):
        list(open_source(broken))
    assert "2 damaged packets" in caplog.text


def test_rubbish_without_end_is_given_up(tmp_path: Path) -> None:
    recipe = replace(CLIPS["cfr"], width=16, height=16, ticks=tuple(range(0, 3600 * 400, 3600)))
    clip = write(tmp_path / "long.mp4", recipe)
    broken = remux(clip.path, tmp_path / "broken.mp4", lambda n, data: data if n < 3 else b"\x00" * len(data))
    source = open_source(broken)
    with pytest.raises(DecodeError, match=r"gave up after 301 damaged packets in a row"):
        list(source)


def test_nothing_decodable(clips: Clips, tmp_path: Path) -> None:
    broken = remux(clips("even_66x50").path, tmp_path / "broken.mkv", lambda n, data: b"\x00" * len(data))
    with pytest.raises(DecodeError, match="not one picture could be decoded"):
        open_source(broken)


@pytest.mark.parametrize(("name", "share"), [("gops_ts", 0.6), ("everything", 0.7), ("even_66x50", 0.6)])
def test_truncated_file_is_read_as_far_as_it_goes(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, share: float
) -> None:
    whole = len(CLIPS[name].ticks)
    cut = truncate(clips(name).path, tmp_path / f"cut{CLIPS[name].extension}", share)
    with caplog.at_level(logging.WARNING):
        source = open_source(cut)
        frames = list(source)
    assert whole // 4 < len(frames) < whole
    if name != "gops_ts":  # a transport stream has no header that would give a length
        assert source.ended_early_seconds > 0.1 or source.n_corrupt
        assert "cut off" in caplog.text or "damaged" in caplog.text


def test_whole_files_are_not_called_cut_off(clips: Clips, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for name in CLIPS:
            source = open_source(clips(name))
            list(source)
            assert source.ended_early_seconds == 0, name
    assert not caplog.records


def test_matroska_tells_the_end_and_not_the_length(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(25):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts = 125 + i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    source = open_source(path)
    assert source.info.duration_seconds == pytest.approx(1)
    list(source)
    assert source.ended_early_seconds == 0


def test_size_change_is_refused_by_name(clips: Clips, tmp_path: Path) -> None:
    first = write(tmp_path / "1.ts", Recipe(".ts", ticks=tuple(90000 + 3600 * i for i in range(6))))
    second = write(
        tmp_path / "2.ts", Recipe(".ts", width=96, height=64, ticks=tuple(90000 + 3600 * i for i in range(6, 12)))
    )
    source = open_source(join_ts([first.path, second.path], tmp_path / "joined.ts"))
    frames = []
    with pytest.raises(FormatError, match=r"frame 6 \(at 0\.240 s\) changes from 64x48 yuv420p to 96x64 yuv420p"):
        frames.extend(source)
    assert len(frames) == 6
    assert len(list(open_source(tmp_path / "joined.ts", duration=0.24))) == 6
    rest = list(open_source(tmp_path / "joined.ts", start=0.24))
    assert [(f.width, f.height) for f in rest] == [(96, 64)] * 6


def test_size_change_with_a_clock_of_its_own_is_not_told_by_time(tmp_path: Path) -> None:
    parts = [Recipe(".ts"), Recipe(".ts", width=96, height=64)]
    paths = [write(tmp_path / f"{i}.ts", part).path for i, part in enumerate(parts)]
    with pytest.raises(FormatError, match=r"to 96x64 yuv420p; .* the clock begins anew there"):
        list(open_source(join_ts(paths, tmp_path / "joined.ts")))


@pytest.mark.parametrize("second_start", [90000, 90000 * 500])
def test_clock_that_jumps_runs_on(tmp_path: Path, caplog: pytest.LogCaptureFixture, second_start: int) -> None:
    parts = []
    for number, start in enumerate((90000 * 3, second_start)):
        recipe = replace(CLIPS["gops_ts"], ticks=tuple(start + 3600 * i for i in range(30)), audio=())
        parts.append(write(tmp_path / f"{number}.ts", recipe).path)
    source = open_source(join_ts(parts, tmp_path / "joined.ts"), threads=1)
    frames = list(source)
    steps = [float((b.pts - a.pts) * b.time_base) for a, b in itertools.pairwise(frames)]
    assert len(frames) == 60
    # The joint may be off by what the encoder's reordering delays the first decoding time.
    assert [f.index for f in frames if f.discontinuity] == [30]
    assert steps[:29] + steps[30:] == pytest.approx([0.04] * 58)
    assert 0 < steps[29] <= 0.2
    assert caplog.text.count("the clock jumps") == 1


def test_sound_stays_in_step_over_a_clock_jump(tmp_path: Path) -> None:
    recipe = replace(CLIPS["gops_ts"], ticks=tuple(3600 * i for i in range(75)))
    part = write(tmp_path / "part.ts", recipe).path
    joined = join_ts([part, part], tmp_path / "joined.ts")

    def sound_times(path: Path) -> tuple[list[Frame], list[Fraction]]:
        source = open_source(path)
        frames = list(source)
        packets = [p for f in frames for p in f.packets] + list(source.trailing_packets)
        return frames, [p.data.pts * Fraction(p.data.time_base) for p in packets]

    frames, times = sound_times(joined)
    one_frames, one_times = sound_times(part)
    assert len(frames) == 150
    second = [f.pts * f.time_base for f in frames[75:]]
    # Sound and picture of the second part moved by the same amount.
    shift = second[0] - one_frames[0].pts * one_frames[0].time_base
    assert shift > 2
    moved = times[-len(one_times) + 10 :]
    assert moved == pytest.approx([t + shift for t in one_times[10:]], abs=1e-4)
    assert all(a < b for a, b in itertools.pairwise(times))


# --- what is no video -----------------------------------------------------------------------------


def _audio_only(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


BAD_INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "none.mp4", "no such file"),
    "directory": (lambda d: d, "is a directory"),
    "empty": (lambda d: _made(d / "empty.mp4", lambda p: p.write_bytes(b"")), "is an empty file"),
    "text": (lambda d: _made(d / "a.mp4", lambda p: p.write_text("no video at all\n" * 99)), "not a video, or damaged"),
    "random": (
        lambda d: _made(d / "a.mkv", lambda p: p.write_bytes(np.random.default_rng(1).bytes(9999))),
        "not a video, or damaged|cannot be opened",
    ),
    "audio only": (lambda d: _made(d / "a.wav", _audio_only), "holds no video stream"),
    "no moov": (
        lambda d: truncate(write(d / "whole.mp4", CLIPS["cfr"]).path, d / "cut.mp4", 0.6),
        "unfinished recording",
    ),
}


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    make(path)
    return path


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input(tmp_path: Path, name: str) -> None:
    make, text = BAD_INPUTS[name]
    path = make(tmp_path)
    with pytest.raises(SourceOpenError, match=text) as caught:
        open_source(path)
    assert isinstance(caught.value, (VidnoiseError, OSError))
    assert caught.value.uri == str(path)
    assert "\n" not in str(caught.value)


def test_unreadable_url() -> None:
    with pytest.raises(SourceOpenError, match=r"tcp://127\.0\.0\.1:9"):
        open_source("tcp://127.0.0.1:9", connect_timeout=2)


def test_file_name_that_looks_like_a_protocol(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a:b.mp4").write_bytes(clips("cfr").path.read_bytes())
    (tmp_path / "100%.mp4").write_bytes(clips("cfr").path.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("a:b.mp4"))) == 10
    assert len(list(open_source("100%.mp4"))) == 10


def test_numbered_pictures(tmp_path: Path) -> None:
    for i in range(3):
        picture = av.VideoFrame(64, 48, "rgb24")
        picture.planes[0].update(bytes([i * 40]) * picture.planes[0].buffer_size)
        picture.save(str(tmp_path / f"p{i:03d}.png"))
    frames = check_contract(open_source(tmp_path / "p%03d.png"))
    assert [int(f.planes[0][0, 0, 0]) for f in frames] == [0, 40, 80]


# --- life cycle -----------------------------------------------------------------------------------


def test_closing_early_is_clean(clips: Clips) -> None:
    source = open_source(clips("gops"))
    frames = iter(source)
    next(frames)
    frames.close()
    assert list(frames) == []
    other = open_source(clips("gops"))
    generator = iter(other)
    next(generator)
    other.close()
    assert list(generator) == []


def test_close_from_another_thread_while_reading(clips: Clips) -> None:
    for _ in range(5):
        source = open_source(clips("gops"))
        seen = threading.Event()

        def read(source: Source = source, seen: threading.Event = seen) -> None:
            for _ in source:
                seen.set()

        reader = threading.Thread(target=read)
        reader.start()
        seen.wait(5)
        source.close()
        reader.join(5)
        assert not reader.is_alive()


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    recipe = replace(CLIPS["cfr"], ticks=tuple(3600 * i for i in range(120)))
    alive = 0
    most = 0

    class Counted:
        def __init__(self, frame: Frame) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            self.frame = frame

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    for frame in open_source(write(tmp_path / "long.mp4", recipe)):
        Counted(frame)
    assert most == 1
    assert alive == 0


def test_rate_of_a_tape(tmp_path: Path) -> None:
    """FFmpeg's DV demuxer gives each frame one tick of 1/60000 s, which is 60000 frames/s on average."""
    path = tmp_path / "tape.dv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("dvvideo", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 720, 480, "yuv411p"
        for i in range(3):
            picture = av.VideoFrame(720, 480, "yuv411p")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert open_source(path).info.rate == Fraction(30000, 1001)


def test_tags_that_are_no_utf8_open_everywhere(tmp_path: Path) -> None:
    """Versions of PyAV differ in what they make of such bytes."""
    path = tmp_path / "in.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.metadata["title"] = "ABCDE"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.count(b"ABCDE") == 1
    path.write_bytes(data.replace(b"ABCDE", b"A\xe9\xffDE"))
    with open_source(path) as source:
        assert source.info.passthrough.metadata["title"] == "A\ufffd\ufffdDE"
        assert len(list(source)) == 1
