"""Live inputs: real servers on loopback, outages, bad lines, a camera that is too fast."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import re
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

import av
import pytest

from support.clips import Clip
from support.fakes import FakeDenoiser, FakeSink, FakeSource
from support.live_peers import CAMERA, BadLine, RtspServer, ffmpeg, free_port, need, need_rtsp_server
from support.patience import HICCUP_MS, PATIENT, Same
from vidnoise.errors import DecodeError, SourceError, SourceLostError, SourceOpenError, UsageError
from vidnoise.frame import Frame
from vidnoise.frame.frame_queue import FrameQueue
from vidnoise.option_values import FOREVER
from vidnoise.pipeline.live_policy import GAP_SECONDS
from vidnoise.pipeline.run import run
from vidnoise.pipeline.stats import LagMeter, Progress
from vidnoise.sinks import open_sink
from vidnoise.sources import Source, open_source, source_kind
from vidnoise.sources.address import device_address, network_options
from vidnoise.sources.live import LiveSource

SECONDS = 100


pytestmark = [pytest.mark.realtime, pytest.mark.timeout(150)]


@pytest.fixture(autouse=True)
def _quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sources.live._FIRST_WAIT_SECONDS", 0.05)


def first_frames(source: object, n: int) -> list[Frame]:
    frames = list(itertools.islice(iter(source), n))  # type: ignore[call-overload]
    source.close()  # type: ignore[attr-defined]
    return frames


def goes_up(frames: list[Frame]) -> bool:
    return all(a.pts < b.pts for a, b in itertools.pairwise(frames))  # type: ignore[operator]


# --- lag --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slowness", [0.1, 0.02], ids=["three times too slow", "fast enough"])
def test_lag_stays_under_max_latency(slowness: float) -> None:
    source = open_source("lavfi:testsrc2=size=64x48:rate=30:duration=4", live=True)
    seen: list[Progress] = []
    sink, denoiser = FakeSink(), FakeDenoiser(wait=slowness)
    stats = run(source, denoiser, sink, max_latency_ms=400, on_progress=seen.append)
    assert stats.frames_in == 120
    assert stats.frames_out == 120 - stats.frames_dropped == len(sink.frames)
    assert stats.lag_ms_p50 is not None
    assert stats.lag_ms_p99 is not None
    assert stats.lag_ms_max is not None
    assert stats.lag_ms_p50 <= 1.02 * stats.lag_ms_p99
    assert stats.lag_ms_max < 400 + HICCUP_MS
    assert (stats.frames_dropped > 60) == (slowness == 0.1)
    assert goes_up(sink.frames)
    assert 3 <= len(seen) <= stats.seconds + 3  # one a second
    assert all(p.live is not None for p in seen)
    # A few frames that were left out between two others are no gap: the denoiser keeps what it knows.
    for before, after in itertools.pairwise(denoiser.seen):
        assert after.discontinuity == ((after.pts - before.pts) * after.time_base > GAP_SECONDS)


def test_control_without_the_bound_the_lag_is_that_of_the_queue() -> None:
    source = open_source("lavfi:testsrc2=size=64x48:rate=30:duration=3", live=True)
    stats = run(source, FakeDenoiser(wait=0.1), FakeSink(), max_latency_ms=60_000, depth=20)
    assert stats.lag_ms_max is not None
    assert stats.lag_ms_max > 400 + 2 * HICCUP_MS


def test_a_gap_forgets_the_past_and_dropped_frames_do_not() -> None:
    class Gappy(FakeSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, pts=frame.index * 5 + (20 if frame.index > 9 else 0), arrived=time.monotonic())

    sink = FakeSink()
    run(Gappy(20, is_live=True, wait=0.01), FakeDenoiser(), sink, **PATIENT)
    assert [f.index for f in sink.frames if f.discontinuity] == [10]


def test_late_items_are_dropped_when_they_are_wanted() -> None:
    told: list[tuple[int, int]] = []

    def on_drop(old: int, new: int) -> int:
        told.append((old, new))
        return new

    queue: FrameQueue[int] = FrameQueue(8, "drop_oldest", on_drop, lambda item: item < 4)
    for i in range(6):
        queue.put(i)
    items = iter(queue)
    assert next(items) == 4
    assert told == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert next(items) == 5
    queue.put(1)  # late, and nothing follows it yet
    queue._drop_late()
    queue.put(7)
    assert next(items) == 7
    assert told[-1] == (1, 7)
    queue.put(2)
    queue.finish()  # nothing will follow: late is better than never
    assert list(items) == [2]


def test_what_is_slower_than_foreseen_is_not_written_late() -> None:
    """Each tenth frame takes three times the bound, and a hiccup more; its sound is not lost with it."""

    class Stumbling(FakeDenoiser):
        def __call__(self, frames):
            for i, frame in enumerate(super().__call__(frames)):
                time.sleep(0.65 if i % 10 == 9 else 0.0)
                yield frame

    class Arriving(FakeSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, arrived=time.monotonic())

    sink = FakeSink()
    stats = run(Arriving(100, is_live=True, wait=0.02), Stumbling(), sink, max_latency_ms=200)
    assert stats.frames_in == 100
    assert stats.frames_out == len(sink.frames) == 100 - stats.frames_dropped > 20
    assert stats.lag_ms_max is not None
    assert stats.lag_ms_max < 200 + HICCUP_MS
    assert [p.data for f in sink.frames for p in f.packets] + [p.data for p in sink.trailing] == [
        *(f"sound {i}" for i in range(100)), "last sound",
    ]  # fmt: skip


def test_a_fresh_frame_is_never_late() -> None:
    lag = LagMeter(100)
    lag.note_dequeued(0)
    time.sleep(0.15)
    lag.note_written(0, time.monotonic() - 0.15)  # one frame takes longer than all may take
    assert not lag.is_late(time.monotonic())
    assert lag.is_late(time.monotonic() - 0.05)
    assert not lag.is_late(None)
    assert lag.quantiles()[2] >= 150


# --- time and reconnecting, without a network -------------------------------------------------------------------------


class Cameras:
    """Opens sources one after the other, each in place of the one that was lost."""

    def __init__(self, *uris: str | Exception) -> None:
        self.uris = list(uris)

    def __call__(self) -> Source:
        uri = self.uris.pop(0) if self.uris else SourceOpenError("camera: refused")
        if isinstance(uri, Exception):
            raise uri
        return open_source(uri)


SHORT = "lavfi:testsrc2=size=64x48:rate=25:duration=0.2"


def test_time_goes_on_after_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    cameras = Cameras(
        SHORT, SourceOpenError("camera: no answer"), SHORT, "lavfi:testsrc2=size=64x48:rate=50:duration=0.1"
    )
    source = LiveSource("camera", cameras, reconnect=2)
    with pytest.raises(SourceLostError, match=r"camera: lost: refused; gave up after 2 attempts"):
        list(source)
    assert source.n_reconnects == 2
    assert "it ended; trying again in 0.1 s (attempt 1 of 2)" in caplog.text
    assert "no answer; trying again" in caplog.text


def test_frames_across_outages_are_in_order() -> None:
    source = LiveSource("camera", Cameras(SHORT, SHORT), reconnect=1)
    frames = []
    with pytest.raises(SourceLostError):
        for frame in source:
            frames.append(frame)
    assert len(frames) == 10
    assert goes_up(frames)
    assert [f.index for f in frames] == list(range(10))
    assert [f.index for f in frames if f.discontinuity] == [5]
    gap = (frames[5].pts - frames[4].pts) * frames[0].time_base
    assert Fraction(1, 25) <= gap < 3
    with pytest.raises(SourceError, match="only once"):
        iter(source)


def test_sound_goes_on_after_an_outage_too(clips: Callable[[str], Clip], tmp_path: Path) -> None:
    source = LiveSource("camera", Cameras(str(clips("audio")), str(clips("audio"))), reconnect=1)
    out = tmp_path / "out.mkv"
    with pytest.raises(SourceLostError):
        run(source, Same(), open_sink(out), **PATIENT)  # type: ignore[arg-type]
    with av.open(str(out)) as container:
        packets = [p for p in container.demux(container.streams.audio[0]) if p.size]
    with av.open(str(clips("audio"))) as container:
        data = [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]
    assert [bytes(p) for p in packets] == data + data
    times = [p.pts for p in packets]
    assert all(a < b for a, b in itertools.pairwise(times))  # type: ignore[operator]
    frames = list(open_source(out))
    assert len(frames) == 20
    second = packets[len(data)]
    assert second.pts is not None
    apart = float(second.pts * second.time_base - frames[10].pts * frames[10].time_base)  # type: ignore[operator]
    assert abs(apart) < 0.05  # the second part's sound begins with its picture


def test_another_picture_after_an_outage_is_refused() -> None:
    source = LiveSource("camera", Cameras(SHORT, "lavfi:testsrc2=size=32x48:duration=1"), reconnect=1)
    with pytest.raises(SourceLostError, match=r"came back with 32x48 yuv420p \(it was 64x48"):
        list(source)


def test_what_came_before_the_loss_is_finished() -> None:
    source, sink = LiveSource("camera", Cameras(SHORT), reconnect=0), FakeSink()
    with pytest.raises(SourceLostError, match=r"lost: it ended$"):
        run(source, FakeDenoiser(), sink, **PATIENT)
    assert sink.events == ["open", "close"]
    assert len(sink.frames) == 5


def test_stop_during_the_back_off_is_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sources.live._FIRST_WAIT_SECONDS", 60)
    source, sink = LiveSource("camera", Cameras(SHORT), reconnect=FOREVER), FakeSink()
    start = time.monotonic()
    stats = run(source, FakeDenoiser(), sink, should_stop=lambda: time.monotonic() - start > 1)
    assert time.monotonic() - start < 30
    assert stats.interrupted
    assert sink.events == ["open", "close"]


def test_a_file_is_played_in_real_time() -> None:
    start = time.monotonic()
    frames = list(open_source("lavfi:testsrc2=size=64x48:rate=10:duration=1", live=True))
    assert len(frames) == 10
    assert 0.85 < time.monotonic() - start < 20
    assert all(f.arrived is not None for f in frames)


@pytest.mark.parametrize(
    ("uri", "options", "error", "says"),
    [
        ("lavfi:testsrc2", {"live": True, "start": 3}, UsageError, "no start to skip to"),
        ("rtsp://127.0.0.1:1/x", {"reconnect": -2}, UsageError, "reconnect"),
        ("rtsp://127.0.0.1:1/x", {"rtsp_transport": "http"}, UsageError, "tcp or udp"),
        ("rtsp://127.0.0.1:1/x", {"connect_timeout": 0}, UsageError, "more than 0 seconds"),
        ("rtsp://127.0.0.1:1/x", {}, SourceOpenError, "refused"),
        ("rtmp://127.0.0.1:1/x", {}, SourceOpenError, "refused"),
        ("srt://127.0.0.1:1", {}, SourceOpenError, r"does not know srt; .* \| vidnoise - --live"),
        ("/dev/video98", {}, SourceOpenError, "/dev/video98: "),
        ("v4l2:/dev/video98", {}, SourceOpenError, "v4l2:/dev/video98: "),
        ("dshow:", {}, SourceOpenError, "name a device"),
        ("dshow:Webcam", {}, SourceOpenError, "cannot read such devices"),
        ("x11grab::97", {}, SourceOpenError, "x11grab::97: "),
    ],
)
def test_bad_live_inputs(uri: str, options: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises((error, DecodeError) if error is SourceOpenError else error, match=says) as caught:
        source = open_source(uri, **options)  # type: ignore[arg-type]
        list(source)
    assert "\n" not in str(caught.value)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":5.0")
    monkeypatch.setattr(sys, "platform", "linux")
    assert source_kind("/dev/video0") == source_kind("dshow:Webcam") == source_kind("screen:") == "device"
    assert device_address("/dev/video0").format == "video4linux2,v4l2"
    assert (device_address("dshow:USB Cam").name, device_address("dshow:USB Cam").format) == ("video=USB Cam", "dshow")
    assert device_address("avfoundation:FaceTime").name == "FaceTime"
    assert (device_address("screen:").name, device_address("screen:").format) == (":5.0", "x11grab")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert device_address("screen:").name == "Capture screen 0"
    monkeypatch.setattr(sys, "platform", "win32")
    assert device_address("screen:").name == "desktop"
    assert network_options("rtsp://x", None)["rtsp_transport"] == "tcp"


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(SourceOpenError, match="no answer in time"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x", connect_timeout=1)
        assert time.monotonic() - start < 20


# --- real peers -------------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with 175 frames in 7 s as a finished playlist (a.m3u8) and as one without an end (live.m3u8)."""
    folder = tmp_path_factory.mktemp("hls")
    camera = open_source("lavfi:testsrc2=size=64x48:rate=25:duration=7")
    run(camera, Same(), open_sink(folder / "a.m3u8"))  # type: ignore[arg-type]
    whole = (folder / "a.m3u8").read_text()
    (folder / "live.m3u8").write_text(whole.replace("#EXT-X-ENDLIST", "").replace("#EXT-X-PLAYLIST-TYPE:VOD\n", ""))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_hls_without_an_end_is_live(hls: str) -> None:
    source = open_source(f"{hls}/live.m3u8")
    assert source.info.is_live
    assert len(first_frames(source, 10)) == 10
    file = open_source(f"{hls}/a.m3u8")
    assert not file.info.is_live
    assert len(list(file)) == 175
    told = open_source(f"{hls}/live.m3u8", live=False)
    assert not told.info.is_live
    assert len(first_frames(told, 10)) == 10


def test_frames_of_a_piece_are_not_late_because_they_come_at_once(hls: str) -> None:
    """HLS brings seconds of video at a time; they arrive, as far as lag goes, when their time comes."""
    source = open_source(f"{hls}/live.m3u8", duration=2)
    assert isinstance(source, LiveSource)
    stats = run(source, FakeDenoiser(wait=0.02), FakeSink(), max_latency_ms=500)
    assert (stats.frames_out, stats.frames_dropped, source.n_reconnects) == (50, 0, 0)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp(transport: str) -> None:
    need_rtsp_server()
    with RtspServer() as server:
        source = open_source(server.url, rtsp_transport=transport)
        frames = first_frames(source, 30)
    assert source.info.is_live
    assert len(frames) == 30
    assert goes_up(frames)
    spread = [b.arrived - a.arrived for a, b in itertools.pairwise(frames[10:])]  # type: ignore[operator]
    assert 0.01 < sum(spread) / len(spread) < 0.2  # in real time, not all at once


def test_rtmp() -> None:
    """We listen, and an encoder pushes."""
    need("ffmpeg")
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    done = threading.Event()

    def push() -> None:
        while not done.is_set():  # refused until we listen
            with ffmpeg("-re", "-f", "lavfi", "-i", "sine", *CAMERA, "-c:a", "aac", "-f", "flv", url) as pushing:
                while pushing.poll() is None and not done.wait(0.1):
                    pass

    thread = threading.Thread(target=push)
    thread.start()
    try:
        source = open_source(url, input_options={"listen": "1"}, connect_timeout=60)
        kinds = [s.kind for s in source.info.passthrough.streams]  # type: ignore[union-attr]
        frames = first_frames(source, 20)
    finally:
        done.set()
        thread.join()
    assert kinds == ["audio"]
    assert len(frames) == 20
    assert goes_up(frames)


def test_udp() -> None:
    need("ffmpeg")
    port = free_port(socket.SOCK_DGRAM)
    with ffmpeg(*CAMERA, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"):
        frames = first_frames(open_source(f"udp://127.0.0.1:{port}", connect_timeout=60), 40)
    assert len(frames) == 40
    assert goes_up(frames)


def test_a_bad_line_spoils_pictures_and_stops_nothing() -> None:
    need("ffmpeg")
    port = free_port(socket.SOCK_DGRAM)
    with (
        BadLine(port, loses=0.03, spoils=0.03) as line,
        ffmpeg(*CAMERA, "-b:v", "400k", "-f", "mpegts", f"udp://127.0.0.1:{line.port}?pkt_size=188"),
    ):
        source = open_source(f"udp://127.0.0.1:{port}", connect_timeout=60)
        frames = first_frames(source, 100)
        assert line.n_lost
        assert line.n_spoilt
    assert len(frames) == 100
    assert goes_up(frames)
    assert source.n_corrupt > 0


def test_a_source_that_falls_silent_is_lost() -> None:
    need("ffmpeg")
    port = free_port(socket.SOCK_DGRAM)
    with ffmpeg(*CAMERA, "-t", "2", "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"):
        source = open_source(f"udp://127.0.0.1:{port}", connect_timeout=60, read_timeout=1, reconnect=0)
        with pytest.raises(SourceLostError, match="no data came in time"):
            for _ in source:
                pass


def lines(path: Path) -> list[dict[str, float]]:
    """What ``--stats`` has told so far; not the line that is being written."""
    return [json.loads(t) for t in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.parametrize("outage", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_camera_that_is_switched_off_and_on_again(tmp_path: Path, tiny: tuple[str, ...], outage: int) -> None:
    """The output goes on, in one file; statistics tell."""
    need_rtsp_server()
    out, stats_path = tmp_path / "out.mkv", tmp_path / "stats.jsonl"
    with RtspServer() as server:
        ours = subprocess.Popen(
            [sys.executable, "-m", "vidnoise", server.url, "-o", out, "--codec", "ffv1", *tiny, "--strength", "0",
             "--reconnect", "forever", "--read-timeout", "2", "--stats", stats_path, "--json", tmp_path / "all.json"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def until(what: Callable[[], bool]) -> None:
            deadline = time.monotonic() + SECONDS
            while not what():
                assert time.monotonic() < deadline, ours.kill() or (ours.stderr and ours.stderr.read())
                time.sleep(0.1)

        until(lambda: bool(lines(stats_path)) and lines(stats_path)[-1]["frames"] > 30)
        server.kill()
        time.sleep(outage)
        before = lines(stats_path)[-1]["frames"]
        server.start()
        until(lambda: lines(stats_path)[-1]["frames"] > before + 30)
        ours.send_signal(signal.SIGTERM)
        err = ours.communicate(timeout=SECONDS)[1]
    assert ours.returncode == 130, err
    assert "is back" in err
    assert re.search(r"lag \d+ ms, \d+ dropped, 1 reconnect\b", err)
    stats = json.loads((tmp_path / "all.json").read_text())
    assert stats["reconnects"] == 1
    assert stats["interrupted"]
    frames = list(open_source(out))
    assert len(frames) == stats["frames_out"] > before + 30
    assert goes_up(frames)
    gaps = [(b.pts - a.pts) * a.time_base for a, b in itertools.pairwise(frames)]  # type: ignore[operator]
    assert 0.5 * outage < max(gaps) < outage + 30
    assert sum(gap > 1 for gap in gaps) == 1
    assert any(row["fps"] == 0 for row in lines(stats_path))


def test_ctrl_c_finishes_the_file(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    out, stats_path = tmp_path / "out.mp4", tmp_path / "stats.jsonl"
    ours = subprocess.Popen(
        [sys.executable, "-m", "vidnoise", "lavfi:testsrc2=size=64x48:rate=25", "--live", "-o", out, *tiny,
         "--stats", stats_path],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while not (rows := lines(stats_path)) or rows[-1]["frames"] <= 20:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ours.send_signal(signal.SIGINT)
    err = ours.communicate(timeout=SECONDS)[1]
    assert ours.returncode == 130, err
    assert "interrupted; " in err
    assert len(list(open_source(out))) >= rows[-1]["frames"]
