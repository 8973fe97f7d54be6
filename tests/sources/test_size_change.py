"""Pictures that change their size, shape or colours in the middle of a stream: nothing that was done is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vidnoise
from support.clips import CLIPS, join_ts, write
from support.sinks import frame_of, info_of
from vidnoise.cli import main
from vidnoise.errors import SizeChangeError, SourceLostError, UsageError
from vidnoise.sinks import open_sink
from vidnoise.sources import open_source
from vidnoise.sources.live import LiveSource

STILL: dict[str, Any] = {"device": "cpu", "threads": 1, "strength": 0}

pytestmark = pytest.mark.usefixtures("no_network_for_nothing")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broadcast of 30 pictures of 64x48 with sound, then 10 of 96x64, on one clock."""
    folder = tmp_path_factory.mktemp("joined")
    first = replace(CLIPS["gops_ts"], options={"preset": "ultrafast", "bf": "0"})
    ticks = tuple(90000 + 3600 * i for i in range(30, 40))
    second = replace(first, width=96, height=64, ticks=ticks, audio=())
    parts = [write(folder / f"{n}.ts", recipe).path for n, recipe in enumerate((first, second))]
    return join_ts(parts, folder / "joined.ts")


def sizes(path: Path) -> list[tuple[int, int]]:
    return [(frame.width, frame.height) for frame in open_source(path)]


def test_a_file_is_finished_where_the_size_changes(joined: Path, tmp_path: Path, tiny_model: str) -> None:
    out = tmp_path / "out.mkv"
    with pytest.raises(SizeChangeError, match=r"changes from 64x48 yuv420p to 96x64 .*before is finished"):
        vidnoise.denoise_file(joined, out, model=tiny_model, **STILL)
    assert sizes(out) == [(64, 48)] * 30
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize("extension", [".mkv", ".mp4"])
def test_split_goes_on_in_another_file(joined: Path, tmp_path: Path, tiny_model: str, extension: str) -> None:
    """All frames are there, each part begins at zero, and a file of the user's with that name is left alone."""
    out = tmp_path / f"out{extension}"
    (tmp_path / f"out-2{extension}").write_bytes(b"mine")
    stats = vidnoise.denoise_file(joined, out, model=tiny_model, size_change="split", overwrite=True, **STILL)
    assert sizes(out) == [(64, 48)] * 30
    rest = tmp_path / f"out-3{extension}"
    assert sizes(rest) == [(96, 64)] * 10
    assert stats.frames_out == 40
    assert (tmp_path / f"out-2{extension}").read_bytes() == b"mine"
    frames = list(open_source(rest))
    assert float(frames[0].pts * frames[0].time_base) < 0.05
    with av.open(str(out)) as container:
        assert len([p for p in container.demux(container.streams.audio[0]) if p.size]) > 40


def test_scale_gives_all_the_first_size(joined: Path, tmp_path: Path, tiny_model: str, caplog: Any) -> None:
    out = tmp_path / "out.mkv"
    vidnoise.denoise_file(joined, out, model=tiny_model, size_change="scale", codec="ffv1", **STILL)
    assert sizes(out) == [(64, 48)] * 40
    assert caplog.text.count("it is scaled to the first size, 64x48 yuv420p") == 1
    frames = list(open_source(joined, size_change="scale"))
    assert [f.discontinuity for f in frames] == [False] * 30 + [True] + [False] * 9
    *_, last = open_source(joined, size_change="split")
    assert last.width == 64, "split ends before the other pictures"
    brightness = [float(f.planes[0].float().mean()) for f in frames[28:32]]
    assert np.ptp(brightness) < 20, "the same scene, scaled"


def test_a_live_stream_goes_on_in_another_file_by_itself(joined: Path, tmp_path: Path, tiny_model: str) -> None:
    """Over a pipe, as a recorder gets it. The slowest machine has time for one frame of each part at least."""
    out = tmp_path / "rec.mkv"
    code = main([str(joined), "--live", "-o", str(out), "--model", tiny_model, "--device", "cpu", "--strength", "0"])
    assert code == 0
    assert set(sizes(out)) == {(64, 48)}
    assert set(sizes(tmp_path / "rec-2.mkv")) == {(96, 64)}


def test_split_needs_files(joined: Path, tmp_path: Path, tiny_model: str) -> None:
    with pytest.raises(UsageError, match="every output must be one"):
        vidnoise.denoise_file(joined, "-", model=tiny_model, size_change="split", **STILL)
    with pytest.raises(UsageError, match="must be stop, split or scale"):
        open_source(joined, size_change="melt")  # type: ignore[arg-type]


SMALL, LARGE = (f"lavfi:testsrc2=size={size}:rate=25:duration=0.2" for size in ("64x48", "96x64"))


def camera(*uris: str) -> Callable[[], Any]:
    waiting = list(uris)

    def reopen() -> Any:
        if not waiting:
            raise SourceLostError("it is gone")
        return open_source(waiting.pop(0), size_change="scale")

    return reopen


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sources.live._FIRST_WAIT_SECONDS", 0.01)


@pytest.mark.usefixtures("_at_once")
def test_a_camera_that_comes_back_with_another_size() -> None:
    source = LiveSource("camera", camera(SMALL, LARGE), reconnect=1, size_change="split")
    assert {f.width for f in source} == {64}
    assert source.next_part()
    assert source.info.width == 96
    with pytest.raises(SourceLostError):
        frames = [f.width for f in source]
        assert frames == [96] * 5
    scaled = LiveSource("camera", camera(SMALL, LARGE), reconnect=1, size_change="scale")
    widths = []
    with pytest.raises(SourceLostError):
        for frame in scaled:
            widths.append(frame.width)
    assert widths == [64] * 10
    with pytest.raises(SourceLostError, match="came back with 96x64"):
        list(LiveSource("camera", camera(SMALL, LARGE), reconnect=1))


def test_colours_and_shapes_that_change_are_said_with_their_time(tmp_path: Path, caplog: Any) -> None:
    info = info_of(sample_aspect_ratio=Fraction(1))
    sink = open_sink(tmp_path / "out.mkv", codec="ffv1")
    sink.open(info)
    for n in range(4):
        frame = replace(frame_of(info, n), sample_aspect_ratio=Fraction(16, 11) if n > 1 else Fraction(1))
        sink.write(replace(frame, color=replace(frame.color, range=2)) if n == 3 else frame)
    sink.close()
    seconds = [float(frame_of(info, n).pts * info.time_base) for n in (2, 3)]
    said = [r.getMessage() for r in caplog.records]
    assert said == [
        f"at {seconds[0]:.3f} s the input's sample aspect ratio changes from 1 to 16/11; the output goes on with the "
        "first",
        f"at {seconds[1]:.3f} s the input's colour range changes from {info.color.range} to 2 (H.273); the output goes "
        f"on saying {info.color.range}",
    ]


def test_a_broadcast_follows_the_shape_of_its_input(tmp_path: Path) -> None:
    info = info_of(sample_aspect_ratio=Fraction(1), is_live=True)
    out = tmp_path / "out.ts"
    sink = open_sink(out, codec="h264", grow=True)
    sink.open(info)
    for n in range(10):
        sink.write(replace(frame_of(info, n), sample_aspect_ratio=Fraction(16, 11) if n > 4 else Fraction(1)))
    sink.close()
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        found = []
        for packet in container.demux(video=0):
            found += [context.sample_aspect_ratio for _ in packet.decode()]
    assert found[0] == 1
    assert found[-1] == Fraction(16, 11)
