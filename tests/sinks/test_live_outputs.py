"""Live outputs: real servers and players on loopback, files that grow, several outputs at once, full disks."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from support.clips import Clip
from support.fakes import FakeSink
from support.live_peers import ffmpeg, free_port, need
from support.patience import HICCUP_MS, PATIENT, Same
from vidnoise.errors import EncodeError, ReaderClosedError, SinkOpenError, UsageError
from vidnoise.frame import Frame, StreamInfo
from vidnoise.pipeline.run import run
from vidnoise.sinks import open_sink, sink_kind
from vidnoise.sinks.codecs import low_latency_options
from vidnoise.sinks.several import TeeSink
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]
SECONDS = 100
CAMERA = "lavfi:testsrc2=size=64x48:rate=25:duration={}"

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(150)]


def send(uri: str, seconds: float, **options: object) -> None:
    source = open_source(CAMERA.format(seconds), live=True)
    run(source, Same(), open_sink(uri, **options), **PATIENT)  # type: ignore[arg-type]


def length(path: Path) -> int:
    return len(list(open_source(path)))


def send_when_ready(uri: str, seconds: float, peer: subprocess.Popen[bytes], **options: object) -> None:
    """Send to a peer that is about to listen."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return send(uri, seconds, **options)
        except SinkOpenError:
            assert peer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)


# --- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rtmp", "rtsp", "tcp"])
def test_push(tmp_path: Path, kind: str) -> None:
    need("ffmpeg")
    out, port = tmp_path / "out.mkv", free_port()
    url = f"{kind}://127.0.0.1:{port}" + ("" if kind == "tcp" else "/live/x")
    listen = {
        "rtmp": ("-listen", "1", "-timeout", "60", "-f", "flv", "-i", url),
        "rtsp": ("-rtsp_flags", "listen", "-i", url),
        "tcp": ("-f", "mpegts", "-i", f"{url}?listen=1"),
    }
    with ffmpeg(*listen[kind], "-c", "copy", out) as peer:
        send_when_ready(url, 2, peer)
        peer.wait(SECONDS)
    assert length(out) == 50


def test_udp(tmp_path: Path) -> None:
    need("ffmpeg")
    out, port = tmp_path / "out.mkv", free_port(socket.SOCK_DGRAM)
    url = f"udp://127.0.0.1:{port}"
    with ffmpeg("-i", f"{url}?timeout=60000000", "-c:v", "ffv1", "-frames:v", 20, out) as peer:
        while peer.poll() is None:
            send(url, 3)
    assert length(out) == 20


def test_srt(tmp_path: Path) -> None:
    need("ffmpeg")
    out, port = tmp_path / "out.ts", free_port(socket.SOCK_DGRAM)
    listen = ("-f", "mpegts", "-analyzeduration", "500000", "-i", f"srt://127.0.0.1:{port}?mode=listener")
    with ffmpeg(*listen, "-c", "copy", out) as peer:
        send(f"srt://127.0.0.1:{port}", 3)
        peer.wait(SECONDS)
    assert length(out) >= 60  # SRT throws away what is still on its way when a sender ends


def test_srt_without_a_peer_or_program(monkeypatch: pytest.MonkeyPatch) -> None:
    need("ffmpeg")
    uri = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}?connect_timeout=300"
    with pytest.raises(EncodeError, match=r"ffmpeg failed: .*srt://127"):
        send(uri, 1)
    with pytest.raises(EncodeError, match=r"writing failed: .*srt://127"):
        send(uri, 60)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SinkOpenError, match="needs ffmpeg, which is not installed"):
        open_sink(uri)


def test_a_peer_that_goes_away_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(EncodeError, match="writing failed") as caught:
            send(f"tcp://127.0.0.1:{server.getsockname()[1]}", 20)
        thread.join()
    assert not isinstance(caught.value, ReaderClosedError)


def test_a_peer_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sinks.direct._TCP_TIMEOUT", "timeout=500000")
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        source = open_source("lavfi:testsrc2=size=640x480:rate=25:duration=60")
        with pytest.raises(EncodeError, match="writing failed"):
            run(source, Same(), open_sink(f"tcp://127.0.0.1:{server.getsockname()[1]}", format="raw"))  # type: ignore[arg-type]
        assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("rtmp://127.0.0.1:1/x", SinkOpenError, "refused"),
        ("gopher://127.0.0.1:1/x", UsageError, "nothing writes to gopher"),
        ("/dev/video97", SinkOpenError, "v4l2loopback"),
        ("window:x", UsageError, "window:"),
        ("nowhere/x.m3u8", SinkOpenError, "no directory"),
    ],
)
def test_bad_live_outputs(uri: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        send(uri, 1)


def test_kinds() -> None:
    uris = ("-", "a.mp4", "rtmp://x/y", "a.m3u8", "/dev/video3", "window:", "pipe:1", "srt://x:1")
    assert [sink_kind(u) for u in uris] == ["pipe", "file", "url", "hls", "camera", "window", "pipe", "srt"]


def test_encoders_of_live_outputs_hold_nothing_back(tmp_path: Path) -> None:
    options = low_latency_options("libx264", {"crf": "18"}, Fraction(30), keeps_preset=False)
    assert options == {"crf": "18", "preset": "veryfast", "tune": "zerolatency", "g": "60"}
    assert low_latency_options("libx264", {"preset": "slow"}, None, keeps_preset=True)["preset"] == "slow"
    assert low_latency_options("ffv1", {"g": "1"}, None, keeps_preset=False) == {"g": "1"}
    reading, writing = os.pipe()
    source = open_source(CAMERA.format(2), live=True)
    sink = open_sink(f"pipe:{writing}", format="ts")
    sink.open(source.info)
    frames = iter(source)
    n_bytes = 0
    for frame in itertools.islice(frames, 5):  # each frame can be read as soon as it is written
        sink.write(frame)
        n_bytes = len(os.read(reading, 1 << 16))
        assert n_bytes > 0
    frames.close()  # type: ignore[attr-defined]
    sink.abort()
    os.close(reading)
    os.close(writing)


# --- files and windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "file"])
def test_hls(tmp_path: Path, is_live: bool) -> None:
    out = tmp_path / "a %d b.m3u8"
    source = open_source(CAMERA.format(5), live=is_live)
    run(source, Same(), open_sink(out), **PATIENT)  # type: ignore[arg-type]
    with av.open(str(out)) as playlist:
        assert sum(1 for _ in playlist.decode(video=0)) == 125
    assert len(list(tmp_path.glob("*.ts"))) == (3 if is_live else 1)
    with pytest.raises(SinkOpenError, match="exists already"):
        open_sink(out)


@pytest.mark.parametrize("extension", [".mkv", ".ts", ".mp4", ".y4m"])
def test_a_file_that_grows_can_be_read_meanwhile(tmp_path: Path, extension: str) -> None:
    out = tmp_path / f"out{extension}"
    source = open_source("lavfi:testsrc2=size=64x48:rate=25:duration=12")
    sink = open_sink(out, grow=True, **({} if extension == ".y4m" else {"codec": "h264"}))
    sink.open(source.info)
    frames = list(source)
    for frame in frames[:280]:
        sink.write(frame)
    assert not list(tmp_path.glob("*.part"))
    assert length(out) > 100
    for frame in frames[280:]:
        sink.write(frame)
    sink.close()
    assert length(out) == 300


def test_growing_needs_a_container_that_can(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read while they grow"):
        open_sink(tmp_path / "a.avi", grow=True)


def test_the_preview_window(monkeypatch: pytest.MonkeyPatch) -> None:
    need("ffplay")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    send("window:", 1)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SinkOpenError, match="needs ffplay"):
        open_sink("window:")


def test_closing_the_preview_window_ends_it_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = tmp_path / "ffplay"
    player.write_text("#!/bin/sh\nhead -c 100000 > /dev/null\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ReaderClosedError):
        run(open_source(CAMERA.format(600)), Same(), open_sink("window:"))  # type: ignore[arg-type]


def test_a_full_disk_is_one_clear_error(clips: Clips) -> None:
    """``/dev/full`` is a disk without room."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises((EncodeError, SinkOpenError), match="No space left"):
            run(open_source(clips("cfr")), Same(), open_sink(f"pipe:{fd}"))  # type: ignore[arg-type]
    finally:
        os.close(fd)


# --- several ----------------------------------------------------------------------------------------------------------


def test_tee_writes_both_with_their_sound(clips: Clips, tmp_path: Path) -> None:
    source = open_source(clips("everything"))
    first, second = tmp_path / "a.mkv", tmp_path / "b.mkv"
    run(source, Same(), open_sink(first, tee=[second], codec="ffv1"))  # type: ignore[arg-type]

    def packets(path: object) -> list[tuple[int | None, bytes]]:
        with av.open(str(path)) as container:
            audio = container.streams.audio[0]
            return [(p.pts, bytes(p)) for p in container.demux(audio) if p.size]

    assert length(first) == length(second) == length(clips("everything").path)
    assert packets(first) == packets(second)
    assert [data for _, data in packets(first)] == [data for _, data in packets(clips("everything"))]


def test_tee_goes_on_with_the_output_that_is_left(caplog: pytest.LogCaptureFixture) -> None:
    class Sinks(FakeSink):
        def __init__(self, error: Exception | None = None) -> None:
            super().__init__()
            self.error = error

        def write(self, frame: Frame) -> None:
            if self.error is not None and frame.index == 3:
                raise self.error
            super().write(frame)

    def through(*sinks: Sinks) -> list[Sinks]:
        run(open_source(CAMERA.format(0.4)), Same(), TeeSink(sinks))  # type: ignore[arg-type]
        return list(sinks)

    viewer, file = through(Sinks(ReaderClosedError("the viewer has gone")), Sinks())
    assert (len(viewer.frames), len(file.frames), file.events) == (3, 10, ["open", "close"])
    assert "the viewer has gone; the other output goes on" in caplog.text
    server, file = Sinks(EncodeError("server: writing failed")), Sinks()
    with pytest.raises(EncodeError, match="server: writing failed"):
        through(file, server)
    assert (len(file.frames), file.events[:2]) == (10, ["open", "close"])
    caplog.clear()
    with pytest.raises(EncodeError, match=r"first|second") as failure:  # whichever thread was faster
        through(Sinks(EncodeError("first")), Sinks(EncodeError("second")))
    assert {"first", "second"} <= {str(failure.value)} | {record.getMessage() for record in caplog.records}
    closed = Sinks()
    closed.fail_open = True
    with pytest.raises(SinkOpenError):
        through(Sinks(), closed)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.mkv", "./a.mkv"), ("-", "-"), ("-", "pipe:1"), ("udp://127.0.0.1:1", "udp://127.0.0.1:1")],
)
def test_two_outputs_to_one_place_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is an output already"):
        open_sink(first, tee=["b.mkv", second])


def test_tee_does_not_encode_sound_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="encodes for one output"):
        open_sink(tmp_path / "a.mkv", tee=[tmp_path / "b.mkv"], audio="aac")


def test_a_slow_viewer_costs_frames_and_no_lag() -> None:
    """The sink is the slow part here: frames are dropped before the network, not piled up behind it."""

    class Slow(FakeSink):
        def write(self, frame: Frame) -> None:
            time.sleep(0.1)
            super().write(replace(frame, planes=()))

        def open(self, info: StreamInfo) -> None:
            assert info.is_live

    stats = run(open_source(CAMERA.format(4), live=True), Same(), Slow(), max_latency_ms=600)  # type: ignore[arg-type]
    assert stats.frames_dropped > 30
    assert stats.lag_ms_max is not None
    assert stats.lag_ms_max < 600 + HICCUP_MS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("comes", [False, True])
def test_a_reader_that_has_not_come_holds_no_recording_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, comes: bool
) -> None:
    """And gets the rest, should it come."""
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    paths = {"rec.mkv": None, "fifo": "mkv"}
    tee = TeeSink([open_sink(tmp_path / name, format=format, codec="ffv1") for name, format in paths.items()])
    assert tee.is_ready()
    source = open_source(CAMERA.format(1))
    tee.open(replace(source.info, is_live=True))
    for n, frame in enumerate(source):
        tee.write(frame)
        if n == 5 and comes:
            reader.start()
            time.sleep(1)
        time.sleep(0.02)
    tee.close()
    assert len(list(open_source(tmp_path / "rec.mkv"))) == 25 - tee.n_dropped.get(str(tmp_path / "rec.mkv"), 0) > 5
    assert "waits for its reader; the other output goes on" in caplog.text
    if comes:
        reader.join()
        (tmp_path / "got.mkv").write_bytes(got[0])
        assert len(list(open_source(tmp_path / "got.mkv"))) > 0
    else:
        assert "no reader has come" in caplog.text
