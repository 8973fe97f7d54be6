"""Pipes: what goes in and out of them bit for bit, who reads it, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from support.clips import Clip, Recipe, truncate, write
from support.live_peers import need
from vidnoise.cli import main
from vidnoise.errors import DecodeError, ReaderClosedError, SourceOpenError, UsageError, VidnoiseError
from vidnoise.frame import Frame
from vidnoise.sinks import open_sink
from vidnoise.sinks.uncompressed import Y4M_FORMATS
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]
VIDNOISE = (sys.executable, "-m", "vidnoise")
SECONDS = 100


def raw_clip(path: Path, format: str, n: int = 3, width: int = 64, height: int = 48) -> Clip:
    ticks = tuple(range(n))
    recipe = Recipe(".nut", "rawvideo", {}, format, width, height, ticks, time_base=Fraction(1, 25), color=(1, 1, 1, 1))
    return write(path, recipe)


def send(source: object, sink_uri: str, **options: object) -> list[Frame]:
    """Copy a source's frames through a sink, undenoised; returns them."""
    reader = open_source(str(source))
    sink = open_sink(sink_uri, **options)  # type: ignore[arg-type]
    sink.open(reader.info)
    frames = list(reader)
    for frame in frames:
        sink.write(frame)
    sink.close(reader.trailing_packets)
    return frames


class Feeder:
    """A pipe that ``data`` is written into by a thread, as the address of its read end."""

    def __init__(self, data: bytes) -> None:
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._feed, args=(data,))

    def _feed(self, data: bytes) -> None:
        with os.fdopen(self._writing, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(data)

    def __enter__(self) -> str:
        self._thread.start()
        return f"pipe:{self._reading}"

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
        self._thread.join()


def same(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) > 0 and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x.planes, y.planes, strict=True)
    )


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (33, 17)], ids=["even", "odd"])
@pytest.mark.parametrize("format", Y4M_FORMATS)
def test_y4m_holds_every_format_bit_for_bit(tmp_path: Path, format: str, size: tuple[int, int]) -> None:
    clip = raw_clip(tmp_path / "in.nut", format, 2, *size)
    frames = send(clip, str(tmp_path / "out.y4m"))
    with Feeder((tmp_path / "out.y4m").read_bytes()) as pipe:
        source = open_source(pipe)
        back = list(source)
    assert source.info.format.name == format
    assert same(frames, back)
    assert [f.pts for f in back] == [0, 1]


@pytest.mark.parametrize("format", ["yuv440p", "yuv410p", "gbrp", "nv12", "rgb24"])
def test_y4m_takes_what_it_has_no_name_for(tmp_path: Path, caplog: pytest.LogCaptureFixture, format: str) -> None:
    clip = raw_clip(tmp_path / "in.nut", format)
    send(clip, str(tmp_path / "out.y4m"))
    source = open_source(str(tmp_path / "out.y4m"))
    assert len(list(source)) == 3
    assert ("y4m cannot hold" in caplog.text) == (format != "nv12")


def test_y4m_keeps_rate_range_and_sample_aspect_ratio(tmp_path: Path) -> None:
    recipe = Recipe(sample_aspect_ratio=Fraction(4, 3), rate=Fraction(30000, 1001), color=(1, 2, 1, 1))
    recipe = Recipe(**{**recipe.__dict__, "ticks": tuple(3003 * i for i in range(5))})
    send(write(tmp_path / "in.mp4", recipe), str(tmp_path / "out.y4m"))
    info = open_source(str(tmp_path / "out.y4m")).info
    assert info.rate == Fraction(30000, 1001)
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert info.color.range == 2


@pytest.mark.parametrize("format", ["mkv", "ts", "nut"])
def test_containers_through_pipes(clips: Clips, format: str) -> None:
    """The reader finds the format by itself."""
    reading, writing = os.pipe()

    def write() -> None:
        send(clips("cfr"), f"pipe:{writing}", format=format, **({} if format == "ts" else {"codec": "ffv1"}))
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    found = list(open_source(f"pipe:{reading}"))
    thread.join()
    os.close(reading)
    wanted = list(open_source(clips("cfr")))
    assert len(found) == len(wanted)
    if format != "ts":  # which has to compress
        assert same(wanted, found)


@pytest.mark.slow
def test_two_of_us_in_a_row(tmp_path: Path, tiny: tuple[str, ...], clips: Clips) -> None:
    """As in a shell."""
    first = subprocess.Popen(
        [*VIDNOISE, str(clips("cfr")), "-o", "-", *tiny, "--strength", "0", "-q"], stdout=subprocess.PIPE
    )
    out = tmp_path / "out.mkv"
    second = subprocess.run(
        [*VIDNOISE, "-", "-o", out, "--codec", "ffv1", *tiny, "--strength", "0", "-q"],
        stdin=first.stdout, timeout=SECONDS, capture_output=True, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    first.stdout.close()
    assert (first.wait(SECONDS), second.returncode, second.stderr) == (0, 0, "")
    assert same(list(open_source(clips("cfr"))), list(open_source(out)))


def test_y4m_as_vspipe_writes_it() -> None:
    """Its header gives a length that readers do not know, and no siting."""
    luma, chroma = bytes(range(48)) * 64, bytes([99]) * (32 * 24)
    data = b"YUV4MPEG2 C420p10 W64 H48 F30000:1001 Ip A0:0 XLENGTH=2\n"
    picture = b"".join(bytes([v, 1]) for v in luma + 2 * chroma)
    with Feeder(data + 2 * (b"FRAME\n" + picture)) as pipe:
        source = open_source(pipe)
        frames = list(source)
    assert (source.info.format.name, source.info.rate, len(frames)) == ("yuv420p10le", Fraction(30000, 1001), 2)
    assert frames[1].planes[0].flatten().tolist() == [256 + v for v in luma]


@pytest.mark.parametrize("format", ["yuv420p", "yuv422p10le", "rgb24", "gray16le", "nv12"])
def test_raw_video(tmp_path: Path, format: str) -> None:
    clip = raw_clip(tmp_path / "in.nut", format, 3, 32, 18)
    frames = send(clip, str(tmp_path / "out.raw"), format="raw")
    data = (tmp_path / "out.raw").read_bytes()
    assert data == b"".join(p.contiguous().view(torch.uint8).numpy().tobytes() for f in frames for p in f.planes)
    with Feeder(data) as pipe:
        source = open_source(pipe, raw_size="32x18", raw_format=format, raw_rate="30000/1001")
        back = list(source)
    assert same(frames, back)
    assert source.info.rate == Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"raw_size": "32x18"}, "needs both"),
        ({"raw_format": "yuv420p"}, "needs both"),
        ({"raw_rate": "25"}, "needs both"),
        ({"raw_size": "32*18", "raw_format": "yuv420p"}, "WIDTHxHEIGHT"),
        ({"raw_size": "32x18", "raw_format": "yuv42"}, "unknown raw_format"),
        ({"raw_size": "32x18", "raw_format": "yuv420p", "raw_rate": "0"}, "more than 0"),
        ({"raw_size": "32x18", "raw_format": "yuv420p", "raw_rate": "1/0"}, "frames per second"),
        ({"raw_size": "32x18", "raw_format": "yuv420p", "format": "y4m"}, "not for y4m"),
        ({"format": "raw"}, "needs raw_size"),
    ],
)
def test_senseless_raw_options(clips: Clips, options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(clips("cfr"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("-", {"codec": "hevc"}, "no codec to choose"),
        ("-", {"crf": 20}, "no crf to choose"),
        ("-", {"format": "y5m"}, "unknown format"),
        ("-", {"format": "mp3"}, "no video"),
        ("-", {"pix_fmt": "gbrp"}, "y4m does not take"),
        ("pipe:x", {}, "number of an open file"),
        ("pipe:999", {}, "no open file"),
    ],
)
def test_senseless_outputs(clips: Clips, uri: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_sink(uri, **options).open(open_source(clips("cfr")).info)  # type: ignore[arg-type]


def test_what_y4m_has_no_place_for_is_named(clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    send(clips("everything"), str(tmp_path / "out.y4m"))
    assert "holds pictures only; left out: audio stream #1" in caplog.text


# --- consumers --------------------------------------------------------------------------------------------------------

CONSUMERS = {
    "x264": (["x264", "--demuxer", "y4m", "-", "-o", "{out}"], ("gray", "yuv422p", "yuv420p10le")),
    "x265": (["x265", "--y4m", "-", "-o", "{out}"], ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le")),
    "SvtAv1EncApp": (["SvtAv1EncApp", "-i", "stdin", "-b", "{out}", "--preset", "12"], ("yuv420p", "yuv420p10le")),
    "ffmpeg": (
        ["ffmpeg", "-v", "error", "-i", "-", "-c:v", "ffv1", "-strict", "-1", "{out}"],
        ("gray", "gray10le", "yuv411p", "yuv422p10le", "yuv444p16le"),
    ),
}


@pytest.mark.parametrize(
    ("program", "format"), [(name, format) for name, (_, formats) in CONSUMERS.items() for format in formats]
)
def test_programs_read_our_y4m(tmp_path: Path, program: str, format: str) -> None:
    need(program)
    clip = raw_clip(tmp_path / "in.nut", format, 4, 128, 96)
    out = tmp_path / "out.mkv"
    command = [part.format(out=out) for part in CONSUMERS[program][0]]
    reading, writing = os.pipe()
    with subprocess.Popen(
        command, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as theirs:
        os.close(reading)
        send(clip, f"pipe:{writing}")
        os.close(writing)
        err = theirs.communicate(timeout=SECONDS)[1]
    assert theirs.returncode == 0, err
    assert out.stat().st_size > 100
    if program == "ffmpeg":
        assert same(list(open_source(clip)), list(open_source(out)))


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (b"", {}, "no data$"),
        (b"", {"raw_size": "8x8", "raw_format": "gray"}, "no data$"),
        (b"YUV4MPEG2 W64 H48 F25", {}, "ended early"),
        (b"YUV4MPEG2 W64 H48 F25:1 C420\nFRAME\n" + bytes(99), {}, "ended early"),
        (bytes(20), {"raw_size": "8x8", "raw_format": "gray"}, "ended early"),
        (b"\0\0\0\x18ftypisom", {}, "pipe can carry|ended early"),
    ],
)
def test_inputs_without_a_picture(data: bytes, options: dict[str, str], says: str) -> None:
    with Feeder(data) as pipe, pytest.raises((SourceOpenError, DecodeError), match=says) as caught:
        open_source(pipe, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    assert ("no data" in str(caught.value)) == (not data)


@pytest.mark.parametrize("kind", ["y4m", "raw"])
def test_inputs_that_end_inside_a_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    clip = raw_clip(tmp_path / "in.nut", "yuv420p", 5)
    send(clip, str(tmp_path / f"out.{kind}"), format=kind)
    options = {"raw_size": "64x48", "raw_format": "yuv420p"} if kind == "raw" else {}
    data = (tmp_path / f"out.{kind}").read_bytes()
    for cut, n, early in ((0, 5, False), (100, 4, True), (4000, 4, True)):
        caplog.clear()
        with Feeder(data[: len(data) - cut]) as pipe:
            source = open_source(pipe, **options)  # type: ignore[arg-type]
            assert len(list(source)) == n
        assert ("ended early, in the middle of frame 4" in caplog.text) == early


def test_a_container_that_ends_early(clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut = truncate(clips("cfr_mkv").path, tmp_path / "cut.mkv", 0.6)
    with Feeder(cut.read_bytes()) as pipe:
        assert list(open_source(pipe))
    assert "before the end that its header gives" in caplog.text


def test_a_container_that_ends_inside_its_header(clips: Clips) -> None:
    with Feeder(clips("cfr_mkv").path.read_bytes()[:400]) as pipe, pytest.raises(SourceOpenError, match="ended early"):
        open_source(pipe)


def test_a_reader_that_goes_away_is_no_failure_to_speak_of(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    ours = subprocess.Popen(
        [*VIDNOISE, "lavfi:testsrc2=size=320x240:rate=25:duration=60", "-o", "-", *tiny, "--strength", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert ours.stdout is not None
    assert ours.stderr is not None
    assert ours.stdout.read(9) == b"YUV4MPEG2"
    ours.stdout.close()
    assert ours.wait(SECONDS) == 141
    assert ours.stderr.read() == b""
    ours.stderr.close()


def test_a_closed_pipe_in_the_library_is_its_own_error(clips: Clips) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(ReaderClosedError) as caught:
            send(clips("cfr"), f"pipe:{writing}")
    finally:
        os.close(writing)
    assert isinstance(caught.value, (VidnoiseError, BrokenPipeError))


def test_a_slow_reader_makes_a_slow_writer(tmp_path: Path) -> None:
    """Nothing is written ahead of the reader but what the pipe itself holds."""
    clip = raw_clip(tmp_path / "in.nut", "yuv444p", 40, 320, 240)  # 230 KB a frame
    reading, writing = os.pipe()
    n_read = 0
    written: list[int] = []

    def run() -> None:
        source, sink = open_source(str(clip)), open_sink(f"pipe:{writing}")
        sink.open(source.info)
        for i, frame in enumerate(source):
            sink.write(frame)
            written.append(i)
        sink.close()
        os.close(writing)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(1)
    ahead = [len(written) * 230400]
    while data := os.read(reading, 1 << 20):
        n_read += len(data)
        ahead.append(len(written) * 230400 - n_read)
    thread.join()
    # A pipe holds 64 KB (1 MB on some systems), libav's buffer 1 MB.
    assert max(ahead) < 2_500_000
    os.close(reading)
    assert len(written) == 40
    assert n_read > 40 * 230400


def test_stopping_while_standard_input_is_silent_finishes_the_output(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    send(raw_clip(tmp_path / "in.nut", "yuv420p", 4), str(tmp_path / "in.y4m"))
    out = tmp_path / "out.mkv"
    ours = subprocess.Popen(
        [*VIDNOISE, "-", "-o", out, "--codec", "ffv1", *tiny, "--progress"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert ours.stdin is not None
    assert ours.stderr is not None
    ours.stdin.write((tmp_path / "in.y4m").read_bytes())
    ours.stdin.flush()
    deadline = time.monotonic() + SECONDS
    while not list(tmp_path.glob("out.mkv.*.part")):  # frames come out later only: each waits for those after it
        assert time.monotonic() < deadline, ours.kill()
        time.sleep(0.1)
    time.sleep(2)
    ours.send_signal(signal.SIGTERM)
    start = time.monotonic()
    code = ours.wait(SECONDS)
    assert time.monotonic() - start < 20
    ours.stdin.close()
    assert code == 130, ours.stderr.read()
    ours.stderr.close()
    assert len(list(open_source(out))) == 4


def test_standard_output_carries_nothing_but_the_video(
    tmp_path: Path, tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = raw_clip(tmp_path / "in.nut", "yuv420p", 3)
    ours = subprocess.run(
        [*VIDNOISE, clip, "-o", "-", *tiny, "-vv", "--strength", "0", "--json", tmp_path / "s.json"],
        capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    assert ours.returncode == 0
    frame = b"FRAME\n" + bytes(64 * 48 * 3 // 2)
    assert len(ours.stdout) == ours.stdout.index(b"\n") + 1 + 3 * len(frame)
    assert json.loads((tmp_path / "s.json").read_text())["frames_out"] == 3
    assert b"standard output: 3 frames" in ours.stderr
    assert main([str(clip), "-o", "-", "--json", "-"]) == 2
    assert capsys.readouterr().out == ""


def test_noise_of_every_kind_is_no_crash() -> None:
    """Whatever comes, it is one of our errors."""
    rng = np.random.default_rng(3)
    header = b"YUV4MPEG2 W8 H8 F25:1 C420\n"
    for start in (b"", header, header + b"FRAME\n", b"\x1aE\xdf\xa3", b"G" * 188, b"nut/multimedia container\0"):
        with Feeder(start + rng.bytes(3000)) as pipe, pytest.raises(VidnoiseError):
            list(open_source(pipe))
            raise DecodeError("it was a video after all")
