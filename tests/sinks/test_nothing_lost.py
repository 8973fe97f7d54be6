"""The end of the work, and what may go wrong there: trailers, late sound, readers that leave or stall, signals."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

import vidnoise
from support.clips import CLIPS, Clip, Recipe, join_ts, write
from support.live_peers import need
from support.patience import Same
from support.sinks import frame_of, info_of
from vidnoise import disk
from vidnoise.cli import main
from vidnoise.cli.interrupt import stop_on_signal
from vidnoise.errors import EncodeError, ReaderClosedError, StalledError
from vidnoise.frame import Frame
from vidnoise.pipeline.run import run
from vidnoise.sinks import open_sink
from vidnoise.sinks.stamps import Stamps
from vidnoise.sinks.tags import container_tags
from vidnoise.sources import open_source

STILL: dict[str, Any] = {"device": "cpu", "threads": 1, "strength": 0}
ENDLESS = "lavfi:testsrc2=size=64x48:rate=25"

pytestmark = pytest.mark.usefixtures("no_network_for_nothing")


def sound(path: object) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


# --- what the trailer refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("extension", "codec"), [(".avi", "pcm_s16le"), (".mkv", "pcm_s24le"), (".mkv", "pcm_f32le")])
def test_sound_that_does_not_say_which_channels_it_has(
    tmp_path: Path, tiny_model: str, extension: str, codec: str, caplog: Any
) -> None:
    """Tape captures: two channels of PCM, which .mp4 refuses in its trailer."""
    recipe = Recipe(extension, "mpeg4", {}, audio=((codec, "eng"),), time_base=Fraction(1, 25), ticks=tuple(range(10)))
    clip = write(tmp_path / f"in{extension}", recipe)
    with av.open(str(clip)) as container:
        assert container.streams.audio[0].layout.name == "2 channels", "or this shows nothing"
    for name, options in {"copy.mp4": {}, "copy.mov": {}, "aac.mp4": {"audio": "aac"}}.items():
        vidnoise.denoise_file(clip, tmp_path / name, model=tiny_model, codec="h264", **options, **STILL)
    vidnoise.denoise_file(clip, tmp_path / "resumed.mp4", model=tiny_model, codec="h264", resume=True, **STILL)
    whole = b"".join(sound(clip))
    assert [b"".join(sound(tmp_path / n)) == whole for n in ("copy.mp4", "copy.mov", "resumed.mp4")] == [True] * 3
    with av.open(str(tmp_path / "aac.mp4")) as container:
        assert container.streams.audio[0].layout.name == "stereo"


def test_a_timecode_track_becomes_one_again(tmp_path: Path, tiny_model: str, caplog: Any) -> None:
    source = tmp_path / "in.mov"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata["timecode"] = "10:20:30:05"
        for _ in range(5):
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(video.encode(None))
    with av.open(str(source)) as container:
        assert [s.type for s in container.streams] == ["video", "data"], "or this shows nothing"
    for extension in (".mov", ".mp4", ".mkv"):
        out = tmp_path / f"out{extension}"
        vidnoise.denoise_file(source, out, model=tiny_model, **STILL)
        with av.open(str(out)) as container:
            tags = {k.lower(): v for k, v in container.streams.video[0].metadata.items()}
            assert tags["timecode"] == "10:20:30:05"
            assert len(container.streams) == (1 if extension == ".mkv" else 2)
    assert "left out" not in caplog.text
    container_tags({"timecode": "10:20:30:05"}, "mp4", "out.mp4")  # as .mxf and DV have it
    assert "no place" not in caplog.text
    vidnoise.denoise_file(source, tmp_path / "out.ts", model=tiny_model, **STILL)
    assert "no place for the timecode" in caplog.text


@pytest.mark.parametrize("options", [{}, {"audio": "aac"}])
@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".ts"])
def test_a_clock_that_steps_back_a_little(
    tmp_path: Path, tiny_model: str, extension: str, options: dict[str, Any]
) -> None:
    """Two recordings that overlap by half a second, joined: less than a new clock, more than a muxer takes."""
    first = CLIPS["gops_ts"]
    second = replace(first, ticks=tuple(90000 + 3600 * i for i in range(18, 30)))
    parts = [write(tmp_path / f"{n}.ts", recipe).path for n, recipe in enumerate((first, second))]
    source = join_ts(parts, tmp_path / "in.ts")
    out = tmp_path / f"out{extension}"
    stats = vidnoise.denoise_file(source, out, model=tiny_model, codec="h264", **options, **STILL)
    assert len(list(open_source(out))) == stats.frames_out > 35
    with av.open(str(out)) as container:
        times = [p.dts for p in container.demux(container.streams.audio[0]) if p.size]
    assert times == sorted(times)
    if not options:
        assert len(sound(out)) >= len(sound(parts[0])) + len(sound(parts[1])) - 2


def test_stamps_go_up_in_the_ticks_of_the_output(tmp_path: Path) -> None:
    """One tick of the source may be none of the output's."""

    class FakeStream:
        type, index, time_base = "audio", 0, Fraction(1, 1000)

    class Placed:
        """What a packet is to :class:`Stamps`."""

        def __init__(self, pts: int | None, dts: int | None) -> None:
            self.pts, self.dts, self.duration, self.time_base = pts, dts, 1800, Fraction(1, 90000)

    with av.open(str(tmp_path / "a.mp4"), "w") as strict, av.open(str(tmp_path / "a.mkv"), "w") as free:
        wanted = {strict: [0, 1, 2, 3, 22, 44], free: [0, 0, 0, 0, 22, 44]}
        for container, times in wanted.items():
            stamps = Stamps(container, FakeStream())  # type: ignore[arg-type]
            packets = [Placed(0, 0), Placed(1, 1), Placed(None, None), Placed(-900, -900), Placed(2000, 1980)]
            packets.append(Placed(3960, -(10**14)))  # uninitialised memory, as libx265 returns it for short streams
            for packet in packets:
                stamps.rescale(packet)  # type: ignore[arg-type]
            assert [p.dts for p in packets] == times
            assert all(p.pts >= p.dts and p.duration == 20 for p in packets)  # type: ignore[operator]


def test_a_stream_that_the_end_would_refuse_is_found_at_its_beginning(
    clips: Callable[[str], Clip], tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("vidnoise.sinks.copies.refusal", lambda *_: "Invalid argument")
    with pytest.raises(EncodeError, match=r"does not take audio stream #1 .*\(Invalid argument\); write an \.mkv file"):
        vidnoise.denoise_file(clips("audio"), tmp_path / "out.mp4", model=tiny_model, **STILL)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(
        "vidnoise.sinks.copies.refusal", lambda name, stream, packet: stream.kind == "subtitle" and "no"
    )
    vidnoise.denoise_file(clips("everything"), tmp_path / "out.mkv", model=tiny_model, **STILL)
    assert "matroska does not take it (no)" in caplog.text
    assert len(sound(tmp_path / "out.mkv")) > 5


def fail(*_: object) -> None:
    raise OSError(22, "Invalid argument")


@pytest.mark.parametrize(("name", "is_live"), [("out.mkv", False), ("out.ts", False), ("out.mp4", True)])
def test_what_fails_at_the_end_stays_and_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_live: bool
) -> None:
    """By the command in the message."""
    need("ffmpeg")
    out = tmp_path / name
    info = info_of(is_live=is_live)
    sink = open_sink(out, codec="h264", preset="ultrafast")
    sink.open(info)
    for n in range(60):
        sink.write(frame_of(info, n))
    if is_live:  # a full disk, so that not even a trailer comes
        monkeypatch.setattr(disk.Layer, "write", fail)
    else:
        monkeypatch.setattr("vidnoise.sinks.copies.CopiedStreams.finish", fail)
    with pytest.raises(EncodeError, match="writing failed: Invalid argument; what was written stays as ") as caught:
        sink.close()
    assert not out.exists()
    command = shlex.split(str(caught.value).partition("to finish it: ")[2])
    subprocess.run([*command, "-v", "error"], check=True)
    assert len(list(open_source(out))) >= (40 if is_live else 60)


def test_an_index_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sinks.copies.CopiedStreams.finish", fail)
    sink = open_sink(tmp_path / "out.mp4")
    sink.open(info_of())
    sink.write(frame_of(info_of(), 0))
    with pytest.raises(EncodeError, match=r"stays as .*out\.mp4\.\w+\.part: its index is missing; untrunc makes one"):
        sink.close()
    assert len(list(tmp_path.glob("*.part"))) == 1


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), MemoryError()])
def test_a_recording_is_finished_whatever_fails(tmp_path: Path, error: Exception) -> None:
    class Failing(Same):
        def __call__(self, frames: Any) -> Iterator[Frame]:
            for frame in frames:
                if frame.index >= 10:
                    raise error
                yield frame

    out = tmp_path / "out.mkv"
    source = open_source(ENDLESS, live=True)
    with pytest.raises(type(error)):
        run(source, Failing(), open_sink(out, codec="ffv1"))  # type: ignore[arg-type]
    assert 0 < len(list(open_source(out))) <= 10
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]


# --- sound that begins late -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLV without a word of its sound, which begins after 1.6 s, as servers send it."""
    path = tmp_path_factory.mktemp("late") / "late.flv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("libmp3lame", rate=44100)
        audio.codec_context.layout = "stereo"
        for n in range(60):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(video.encode(frame))
            if n == 40:
                for i in range(12):
                    silence = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
                    for plane in silence.planes:
                        plane.update(bytes(plane.buffer_size))
                    silence.sample_rate, silence.time_base = 44100, Fraction(1, 44100)
                    silence.pts = 44100 * 8 // 5 + 1152 * i
                    container.mux(audio.encode(silence))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    data = bytearray(path.read_bytes())
    data[4] = 1  # the header's flags: video only
    path.write_bytes(data)
    return path


def test_sound_that_begins_late_is_kept(late: Path, tmp_path: Path, tiny_model: str) -> None:
    out = tmp_path / "out.mkv"
    vidnoise.denoise_file(late, out, model=tiny_model, **STILL)
    with av.open(str(out)) as container:
        first = next(p for p in container.demux(container.streams.audio[0]) if p.size)
    assert first.pts is not None
    assert abs(float(first.pts * first.time_base) - 1.6) < 0.1
    assert sound(out) == sound(late)
    with open(late, "rb") as file:  # as a pipe gives it, front to back
        piped = open_source(f"pipe:{file.fileno()}")
        assert [stream.codec for stream in piped.info.passthrough.streams] == ["mp3"]
        piped.close()


@pytest.mark.parametrize("live", [True, None])
def test_sound_that_begins_too_late_is_said_and_costs_nothing(
    late: Path, tmp_path: Path, tiny_model: str, caplog: Any, live: bool | None
) -> None:
    short_look = {"probesize": "3000", "analyzeduration": "100000"}
    out = tmp_path / "out.mkv"
    stats = vidnoise.denoise_file(
        late, out, model=tiny_model, live=live, input_options=short_look, max_latency=60_000, **STILL
    )
    assert len(list(open_source(out))) == stats.frames_out
    assert "a stream that began late is left out: #0:1: Audio: mp3" in caplog.text


# --- messages that nobody takes ---------------------------------------------------------------------------------------


class Full:
    """Standard error on a full disk, or without a reader."""

    encoding = "utf-8"

    def __init__(self, error: int) -> None:
        self._error = error

    def write(self, text: str) -> int:
        raise OSError(self._error, os.strerror(self._error))

    def flush(self) -> None:
        self.write("")

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)

    def isatty(self) -> bool:
        return False


@pytest.mark.usefixtures("batches_here")
@pytest.mark.parametrize("error", [28, 32, 5], ids=["full disk", "no reader", "no terminal"])
def test_messages_that_cannot_be_written_cost_nothing(
    clips: Callable[[str], Clip], tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr("vidnoise.pipeline.meter.LIVE_PROGRESS_SECONDS", 0.01)
    options = ["--model", tiny_model, "--device", "cpu", "--strength", "0", "-v"]
    out = tmp_path / "live.mkv"
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Full(error))
        codes = [
            main([ENDLESS + ":duration=0.3", "--live", "-o", str(out), *options]),
            main([str(clips("cfr")), str(clips("vfr")), "-o", f"{tmp_path}/batch/", *options, "--progress"]),
            main(["nowhere.mp4", "-o", str(tmp_path / "a.mkv"), *options]),
        ]
    assert codes == [0, 0, 3]
    assert list(open_source(out))
    assert len(list((tmp_path / "batch").iterdir())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
def test_standard_files_that_are_closed(tmp_path: Path, tiny_model: str) -> None:
    """The next file to be opened must not become standard error, or messages would go into it."""
    out = tmp_path / "out.mkv"
    command = [
        sys.executable,
        "-m",
        "vidnoise",
        ENDLESS + ":duration=0.2",
        "-o",
        out,
        "--model",
        tiny_model,
        "--codec",
        "ffv1",
    ]
    line = " ".join(shlex.quote(str(word)) for word in command)
    ended = subprocess.run(["sh", "-c", f"exec {line} -vv <&- >&- 2>&-"], check=False)
    assert ended.returncode == 0
    assert len(list(open_source(out))) == 5
    assert b"vidnoise:" not in out.read_bytes()


# --- readers that stall, signals --------------------------------------------------------------------------------------


@pytest.mark.realtime
def test_an_output_that_stalls_does_not_hold_up_the_others(tmp_path: Path, caplog: Any) -> None:
    """Its frames are dropped and counted, the recording goes on, and the end comes within seconds."""
    reading, writing = os.pipe()
    out = tmp_path / "rec.mkv"
    begin = time.monotonic()
    try:
        stats = run(
            open_source(ENDLESS, live=True), Same(), open_sink(out, tee=[f"pipe:{writing}"], codec="ffv1"),  # type: ignore[arg-type]
            should_stop=lambda: time.monotonic() - begin > 4,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert time.monotonic() - begin < 40
    assert stats.interrupted
    assert len(list(open_source(out))) == stats.frames_out > 10
    assert stats.output_drops[f"pipe:{writing}"] > 0
    assert f"pipe:{writing}: did not take its frames in time: " in caplog.text
    assert f"pipe:{writing}: its reader takes nothing any more; the other output goes on" in caplog.text


@pytest.mark.realtime
@pytest.mark.parametrize("live", [True, None])
def test_a_stalled_reader_does_not_hold_up_the_end(live: bool | None) -> None:
    reading, writing = os.pipe()
    begin = time.monotonic()
    try:
        with pytest.raises(ReaderClosedError, match="its reader takes nothing any more"):
            run(
                open_source(ENDLESS, live=live), Same(), open_sink(f"pipe:{writing}"),  # type: ignore[arg-type]
                should_stop=lambda: time.monotonic() - begin > 2,
            )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert time.monotonic() - begin < 40


@pytest.mark.realtime
@pytest.mark.parametrize("tee", [False, True])
def test_a_stalled_server_does_not_hold_up_the_end(
    tmp_path: Path, tee: bool, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Where libav itself writes, and would wait for ever."""
    monkeypatch.setattr("vidnoise.sinks.direct._PATIENCE_SECONDS", 2)
    before = set(threading.enumerate())
    out = tmp_path / "rec.mkv"
    with socket.create_server(("127.0.0.1", 0)) as server:
        # As long as RTMP would wait, to take the time that TCP has by default out of the test.
        uri = f"tcp://127.0.0.1:{server.getsockname()[1]}?timeout=60000000&send_buffer_size=4096"
        sink = open_sink(out, tee=[uri], codec="ffv1") if tee else open_sink(uri, format="raw")
        begin = time.monotonic()

        def should_stop() -> bool:
            return time.monotonic() - begin > 4

        source = open_source("lavfi:testsrc2=size=320x240:rate=25", live=True)
        if tee:
            assert run(source, Same(), sink, should_stop=should_stop).interrupted  # type: ignore[arg-type]
            assert len(list(open_source(out))) > 3
        else:
            with pytest.raises(StalledError, match="takes nothing any more, and was left"):
                run(source, Same(), sink, should_stop=should_stop)  # type: ignore[arg-type]
        assert time.monotonic() - begin < 40
        peer, _ = server.accept()
        peer.close()  # which lets the thread go that was left
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    sink.abort()


def test_a_slow_reader_gets_everything_all_the_same(tmp_path: Path) -> None:
    """Patience where the run is not to end."""
    out = tmp_path / "got.y4m"
    with open(out, "wb") as file:
        slow = "import shutil, sys, time; time.sleep(1); shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
        reader = subprocess.Popen([sys.executable, "-c", slow], stdin=subprocess.PIPE, stdout=file)
        assert reader.stdin is not None
        run(open_source(ENDLESS + ":duration=2"), Same(), open_sink(f"pipe:{reader.stdin.fileno()}"))  # type: ignore[arg-type]
        reader.stdin.close()
        assert reader.wait(30) == 0
    assert len(list(open_source(out))) == 50


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_closed_terminal_asks_to_finish(name: str) -> None:
    number = getattr(signal, name)
    # Whoever runs the tests may have them ignore it, as nohup does.
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    before = signal.signal(number, usual)
    said: list[bool] = []
    try:
        with stop_on_signal(lambda: said.append(True)) as should_stop:
            assert not should_stop()
            os.kill(os.getpid(), number)
            assert should_stop()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
                time.sleep(1)
        assert said == [True]
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX")
def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal(lambda: None) as should_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)
