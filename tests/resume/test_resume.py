"""Going on after an interruption: nothing is lost, nothing comes twice, and one cannot see where it was."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import vidnoise
from support.clips import Clip, Recipe, pictures, write
from vidnoise.errors import EncodeError, SinkOpenError, SourceError, UsageError
from vidnoise.resume.segments import EncodedPacket, Parts
from vidnoise.resume.source import WARM_UP_FRAMES

Clips = Callable[[str], Clip]
QUICK: dict[str, Any] = {"model": "fast", "device": "cpu", "threads": 1}

pytestmark = pytest.mark.usefixtures("no_network_for_nothing")
STILL: dict[str, Any] = {**QUICK, "strength": 0}


def contents(path: Path) -> tuple[Any, ...]:
    """All that a container holds, but for the bits of the video: those depend on where segments begin."""
    with av.open(str(path)) as container:
        found: dict[int, list[Any]] = {}
        for packet in container.demux():
            if packet.size:
                # MP4 has no durations, only steps in decoding order.
                row = (packet.pts,) if packet.stream.type == "video" else (packet.pts, packet.duration, bytes(packet))
                found.setdefault(packet.stream.index, []).append(row)
        video = container.streams.video[0]
        tags = (
            video.codec_context.name,
            video.codec_context.pix_fmt,
            video.time_base,
            video.average_rate,
            video.duration,
        )
        for rows in found.values():
            rows.sort(key=lambda row: row[0])
        kinds = [(stream.type, dict(stream.metadata)) for stream in container.streams]
        return found, kinds, tags, container.chapters(), dict(container.metadata)


def decoding_times(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [p.dts for p in container.demux(video=0) if p.size and p.dts is not None]


def stop_after(n: int) -> Callable[[], bool]:
    asked = iter(range(10**6))
    return lambda: next(asked) >= n


def in_two(source: object, out: Path, *, after: int, segment_seconds: float = 0.16, **options: Any) -> int:
    """Run with an interruption; returns the number of frames that the second run found finished."""
    first = vidnoise.denoise_file(
        str(source), out, resume=True, segment_seconds=segment_seconds, should_stop=stop_after(after), **options
    )
    assert (first.interrupted, first.is_whole) == (True, False)
    assert not out.exists()
    second = vidnoise.denoise_file(str(source), out, resume=True, segment_seconds=segment_seconds, **options)
    assert second.is_whole
    assert second.frames_kept > 0
    assert not Path(f"{out}.parts").exists()
    return second.frames_kept


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["everything", "gops", "gops_ts", "vfr", "b_frames_avi"])
def test_resumed_is_as_uninterrupted(clips: Clips, tmp_path, name):
    clip = clips(name)
    plain, whole, two = (tmp_path / f"{n}{clip.path.suffix}" for n in ("plain", "whole", "two"))
    vidnoise.denoise_file(clip, plain, **STILL)
    stats = vidnoise.denoise_file(clip, whole, resume=True, segment_seconds=0.16, **STILL)
    assert stats.frames_out == len(clip.recipe.ticks)
    in_two(clip, two, after=6, **STILL)
    assert contents(whole) == contents(plain)
    assert contents(two) == contents(plain)
    for path in (whole, two):
        times = decoding_times(path)
        assert times == sorted(set(times))


def test_what_an_output_loses_is_said_once(clips: Clips, tmp_path, caplog):
    """It is opened for trial, encodes in segments, and is opened again to join them."""
    caplog.set_level(logging.INFO, "vidnoise.sinks")
    options = {**STILL, "pix_fmt": "gray"}
    vidnoise.denoise_file(clips("everything"), tmp_path / "out.mp4", resume=True, segment_seconds=0.16, **options)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("vidnoise.sinks")]
    assert any("converting to gray" in message for message in said)
    assert any("becomes mov_text" in message for message in said)
    assert len(said) == len(set(said))
    assert logging.getLogger("vidnoise.sinks").level == logging.INFO


@pytest.mark.parametrize("part", [{"start": 0.4}, {"start": 0.2, "duration": 0.64}, {"duration": 0.8}])
def test_a_part_of_a_video(clips: Clips, tmp_path, part):
    plain, two = tmp_path / "plain.mkv", tmp_path / "two.mkv"
    vidnoise.denoise_file(clips("gops"), plain, **STILL, **part)
    in_two(clips("gops"), two, after=6, **STILL, **part)
    assert contents(two) == contents(plain)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Clip:
    """Lossless, 4.8 s, with key frames to seek to, and longer than a warm-up."""
    recipe = Recipe(
        ".mkv",
        "ffv1",
        {},
        time_base=Fraction(1, 1000),
        ticks=tuple(40 * i for i in range(120)),
        gop=5,
        audio=(("flac", "eng"),),
    )
    return write(tmp_path_factory.mktemp("long") / "long.mkv", dataclasses.replace(recipe, width=32, height=32))


@pytest.mark.parametrize("part", [{}, {"start": 0.4, "duration": 4.2}])
@pytest.mark.parametrize("seeks", [True, False])
def test_frames_are_the_same_bit_for_bit_where_the_source_is_sought(long_clip, tmp_path, monkeypatch, seeks, part):
    """Strength 0 and a lossless codec: each frame must be the source's own, none lost, none twice."""
    import vidnoise.resume.source as resume

    monkeypatch.setattr(resume, "WARM_UP_FRAMES", 8)
    if not seeks:
        monkeypatch.setattr(resume.RestOfSource, "_seeks_accurately", lambda *_: False)
    opened = []
    make_source = resume.make_source
    monkeypatch.setattr(resume, "make_source", lambda uri, o, **k: opened.append(o.start) or make_source(uri, o, **k))
    plain, two = tmp_path / "plain.mkv", tmp_path / "two.mkv"
    vidnoise.denoise_file(long_clip, plain, **STILL, **part)
    kept = in_two(long_clip, two, after=90, segment_seconds=1, **STILL, **part)
    assert any((start or 0) > 1 for start in opened) == seeks
    assert kept > 80
    assert contents(two) == contents(plain)
    for (pts, a), (other_pts, b) in zip(pictures(plain), pictures(two), strict=True):
        assert pts == other_pts
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.slow
def test_one_cannot_see_the_seam(tmp_path):
    """A still picture under noise, where the network remembers longest; the first frame of a run is dBs worse."""
    n, size = WARM_UP_FRAMES + 6, 96  # smaller ones have no room for the search for motion
    ramp = np.linspace(60, 180, size)[None, :] * np.ones((size, 1))
    clean = np.dstack([ramp, ramp.T, ramp]).astype(np.uint8)
    rng = np.random.default_rng(3)
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "bgr0"
        for _ in range(n):
            noisy = np.clip(clean + rng.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    whole, two = tmp_path / "whole.mkv", tmp_path / "two.mkv"
    vidnoise.denoise_file(source, whole, **QUICK)
    kept = in_two(source, two, after=n - 2, segment_seconds=60, **QUICK)
    quality = {}
    for path in (whole, two):
        with av.open(str(path)) as container:
            quality[path] = [psnr(f.to_ndarray(format="rgb24"), clean) for f in container.decode(video=0)]
    assert len(quality[two]) == n
    gain = quality[whole][kept] - quality[whole][0]
    assert gain > 1
    for a, b in zip(quality[whole][kept:], quality[two][kept:], strict=True):
        assert abs(a - b) < 0.1 * gain


def test_zones_count_from_the_beginning_of_the_video(clips: Clips, tmp_path):
    """Not from the seam."""
    clip, plain, two = clips("exact_yuv420p"), tmp_path / "plain.mkv", tmp_path / "two.mkv"
    options = {**QUICK, "zones": "0-0.28:0,0.28-:1", "codec": "ffv1"}
    vidnoise.denoise_file(clip, plain, **options)
    in_two(clip, two, after=4, **options)
    for (_, source), (_, a), (_, b) in zip(pictures(clip.path), pictures(plain), pictures(two), strict=True):
        is_untouched = [np.array_equal(s, x) for s, x in zip(source, a, strict=True)]
        assert is_untouched == [np.array_equal(s, x) for s, x in zip(source, b, strict=True)]


def test_sound_can_be_encoded_anew(clips: Clips, tmp_path):
    plain, two = tmp_path / "plain.mp4", tmp_path / "two.mp4"
    vidnoise.denoise_file(clips("pcm_audio"), plain, audio="aac", **STILL)
    in_two(clips("pcm_audio"), two, after=6, audio="aac", **STILL)
    assert contents(two) == contents(plain)


# --- crashes ----------------------------------------------------------------------------------------------------------


def denoise_in_segments(source: Path, out: Path, model: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    vidnoise.denoise_file(
        source, out, resume=True, segment_seconds=0.12, codec="ffv1", strength=0, model=model, device="cpu", threads=1
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_kill_9_at_random_moments(clips: Clips, tmp_path: Path, tiny_model: str, rounds: int) -> None:
    """After each kill there is no half output, the run goes on from what is there, and ends bit-exact."""
    clip, random = clips("exact_yuv420p"), np.random.default_rng(17)
    whole = pictures(clip.path)
    out = tmp_path / "out.mkv"
    # Copies of a process that has imported everything, and done nothing: much sooner at it than new ones.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vidnoise.api", "vidnoise.weights", "vidnoise.session.denoiser", "av"])

    def begun() -> BaseProcess:
        process = context.Process(target=denoise_in_segments, args=(Path(clip), out, tiny_model))
        process.start()
        return process

    longest = 0.0
    for _ in range(2):  # the first one waits for the imports
        begin, process = time.monotonic(), begun()
        process.join()
        assert process.exitcode == 0
        longest = time.monotonic() - begin
        out.unlink()
    killed = code = 0
    while killed < rounds or code:  # until one has ended by itself: a killed one may leave parts it was removing
        if out.exists():
            assert_same(pictures(out), whole)
            out.unlink()
            shutil.rmtree(tmp_path / "out.mkv.parts", ignore_errors=True)  # killed while it removed them
        process = begun()
        if killed < rounds:
            time.sleep(random.uniform(0, longest))
            process.kill()
        process.join()
        code = process.exitcode
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
    assert_same(pictures(out), whole)
    assert [p.name for p in tmp_path.iterdir() if p.suffix not in (".part", ".lock")] == ["out.mkv"]


def assert_same(found: list[Any], wanted: list[Any]) -> None:
    assert [f[0] for f in found] == [w[0] for w in wanted]
    for (_, a), (_, b) in zip(found, wanted, strict=True):
        assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_what_a_crash_left_unfinished_is_done_again(clips: Clips, tmp_path):
    plain, out = tmp_path / "plain.mkv", tmp_path / "out.mkv"
    vidnoise.denoise_file(clips("gops"), plain, **STILL)
    stats = vidnoise.denoise_file(
        clips("gops"), out, resume=True, segment_seconds=0.16, should_stop=stop_after(14), **STILL
    )
    parts = Path(f"{out}.parts")
    (parts / "00002.packets").write_bytes(b"half")  # segment 3 follows on it, so it does not count either
    stats = vidnoise.denoise_file(clips("gops"), out, resume=True, segment_seconds=0.4, **STILL)
    assert stats.frames_kept == 8
    assert contents(out) == contents(plain)


def test_damage_is_found_and_keeps_the_rest(clips: Clips, tmp_path):
    out = tmp_path / "out.mkv"
    vidnoise.denoise_file(clips("cfr"), out, resume=True, segment_seconds=0.16, should_stop=stop_after(6), **STILL)
    path = Path(f"{out}.parts/00000.packets")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(EncodeError, match=r"00000\.packets: is damaged"):
        vidnoise.denoise_file(clips("cfr"), out, resume=True, **STILL)
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


def test_an_error_keeps_finished_segments(clips: Clips, tmp_path, monkeypatch):
    from vidnoise.sinks.video_stream import VideoStreamWriter

    out = tmp_path / "out.mkv"
    writes = iter(range(100))
    write_frame = VideoStreamWriter.write

    def full_disk(self, *args):
        if next(writes) == 6:
            raise OSError(28, "No space left on device")
        write_frame(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(VideoStreamWriter, "write", full_disk)
        with pytest.raises(EncodeError, match="No space left"):
            vidnoise.denoise_file(clips("cfr"), out, resume=True, segment_seconds=0.16, **STILL)
    assert vidnoise.denoise_file(clips("cfr"), out, resume=True, **STILL).frames_kept == 4


def test_stopped_before_the_first_frame_leaves_nothing(clips: Clips, tmp_path):
    vidnoise.denoise_file(clips("cfr"), tmp_path / "out.mkv", resume=True, should_stop=lambda: True, **STILL)
    assert list(tmp_path.iterdir()) == []


# --- refusals ---------------------------------------------------------------------------------------------------------


def begun(clips: Clips, out: Path) -> None:
    vidnoise.denoise_file(clips("cfr"), out, resume=True, segment_seconds=0.16, should_stop=stop_after(6), **STILL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strength": 1}, "strength 0, now 1"),
        ({"codec": "ffv1"}, "codec none, now ffv1"),
        ({"start": 0.1}, "start"),
        ({"model": "standard"}, "model"),
    ],
)
def test_other_settings_are_refused(clips: Clips, tmp_path, change, says):
    out = tmp_path / "out.mkv"
    begun(clips, out)
    with pytest.raises(UsageError, match=says):
        vidnoise.denoise_file(clips("cfr"), out, resume=True, **{**STILL, **change})
    assert vidnoise.denoise_file(clips("cfr"), out, resume=True, **STILL).frames_kept > 0


def test_another_input_is_refused(clips: Clips, tmp_path):
    begun(clips, tmp_path / "out.mkv")
    with pytest.raises(UsageError, match="input"):
        vidnoise.denoise_file(clips("cfr_mkv"), tmp_path / "out.mkv", resume=True, **STILL)


def test_an_input_that_reads_otherwise_is_refused(clips: Clips, tmp_path):
    out = tmp_path / "out.mkv"
    begun(clips, out)
    path = Path(f"{out}.parts/00000.json")
    found = json.loads(path.read_text())
    found["frames"][0] += 1
    path.write_text(json.dumps(found))
    with pytest.raises(SourceError, match="reads otherwise"):
        vidnoise.denoise_file(clips("cfr"), out, resume=True, **STILL)


def test_a_folder_of_that_name_that_is_not_ours_is_left_alone(clips: Clips, tmp_path):
    (tmp_path / "out.mkv.parts").mkdir()
    (tmp_path / "out.mkv.parts" / "mine").touch()
    with pytest.raises(SinkOpenError, match="move it away"):
        vidnoise.denoise_file(clips("cfr"), tmp_path / "out.mkv", resume=True, **STILL)
    assert os.listdir(tmp_path / "out.mkv.parts") == ["mine"]


@pytest.mark.parametrize(
    ("source", "output", "options", "says"),
    [
        ("-", "out.mkv", {}, "go back"),
        ("http://127.0.0.1:9/a.mp4", "out.mkv", {}, "go back"),
        (None, "-", {}, "only a file"),
        (None, "out.m3u8", {}, "only a file"),
        (None, "out.y4m", {}, "cannot be resumed"),
        (None, "out.mkv", {"grow": True}, "does not go with"),
        (None, "out.mkv", {"tee": ["b.mkv"]}, "does not go with"),
        (None, "out.mkv", {"segment_seconds": 0}, "longer than 0"),
        (None, "out.mkv", {"mask": np.ones((48, 64), np.float32)}, "mask that is a file"),
    ],
)
def test_what_cannot_be_resumed(clips: Clips, tmp_path, monkeypatch, source, output, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        vidnoise.denoise_file(source or clips("cfr"), output, resume=True, **STILL, **options)
    assert os.listdir(tmp_path) == []


# --- segments ---------------------------------------------------------------------------------------------------------


def test_decoding_times_go_on_over_a_seam(tmp_path):
    """Uneven frame times: the second segment's own clock begins before the end of the first."""
    parts = Parts(str(tmp_path / "out.mp4"))
    parts.load({})
    parts.note("headers", "")
    for shown, decoded in (((0, 30, 10, 40), (-30, 0, 10, 30)), ((50, 130, 60, 140), (-20, 50, 60, 130))):
        file = parts.begin()
        for pts, dts in zip(shown, decoded, strict=True):
            file.add(EncodedPacket(pts, dts, 10, pts in (0, 50), b"x"))
        parts.finish(file, sorted(shown), Fraction(1, 1000))
    found = [(packet.pts, packet.dts) for packet, _ in parts.packets()]
    assert [dts for _, dts in found] == [-10, 0, 10, 30, 40, 50, 60, 130]
    assert all(dts <= pts for pts, dts in found)
