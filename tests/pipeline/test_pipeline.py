"""run() with stand-ins for its ends: what is closed, aborted and counted, whatever happens in between."""

from __future__ import annotations

import time

import pytest
import torch

from support.fakes import FakeDenoiser, FakeSink, FakeSource
from vidnoise.errors import DecodeError, DeviceError, EncodeError, SinkOpenError
from vidnoise.frame import Frame, Packet
from vidnoise.pipeline.device_transfer import HostTransfer
from vidnoise.pipeline.meter import PROGRESS_SECONDS
from vidnoise.pipeline.run import run
from vidnoise.pipeline.stats import Percentiles, Progress

pytestmark = pytest.mark.realtime


def test_every_frame_goes_through_in_order_with_its_packets():
    source, sink = FakeSource(50), FakeSink()
    stats = run(source, FakeDenoiser(), sink, depth=2)
    assert [f.index for f in sink.frames] == list(range(50))
    assert all(int(f.planes[0][0, 0]) == f.index + 1 for f in sink.frames)
    assert [f.packets[0].data for f in sink.frames] == [f"sound {i}" for i in range(50)]
    assert sink.trailing == (Packet(1, "last sound"),)
    assert sink.events == ["open", "close"]
    assert source.closed
    assert source.iterator_closed_by == "vidnoise-source"
    assert (stats.frames_in, stats.frames_out, stats.frames_dropped, stats.packets_corrupt) == (50, 50, 0, 2)
    assert (stats.n_cuts, stats.sigma_mean, stats.model, stats.device) == (3, 12.5, "plus one", "cpu")
    assert stats.video_seconds == pytest.approx(2.0)
    assert not stats.interrupted
    assert stats.fps == pytest.approx(50 / stats.seconds)


@pytest.mark.parametrize(
    ("ends", "error", "events"),
    [
        ({"source": {"fail_at": 7}}, DecodeError, ["open", "abort"]),
        ({"source": {"fail_at": 0}}, DecodeError, ["open", "abort"]),
        ({"denoiser": {"fail_at": 5}}, DeviceError, ["open", "abort"]),
        ({"sink": {"fail_at": 5}}, EncodeError, ["open", "abort"]),
        ({"sink": {"fail_at": 19}}, EncodeError, ["open", "abort"]),
        ({"sink": {"fail_close": True}}, EncodeError, ["open", "abort"]),
        ({"sink": {"fail_open": True}}, SinkOpenError, ["abort"]),
    ],
)
def test_an_error_anywhere_aborts_the_sink_and_closes_the_source(ends, error, events):
    source = FakeSource(**ends.get("source", {}))
    sink = FakeSink(**ends.get("sink", {}))
    with pytest.raises(error):
        run(source, FakeDenoiser(**ends.get("denoiser", {})), sink, depth=2)
    assert sink.events == events
    assert source.closed
    # No thread is left: conftest checks that after each test.


def test_should_stop_finishes_the_file_so_far():
    source, sink = FakeSource(10_000), FakeSink()
    stats = run(source, FakeDenoiser(), sink, should_stop=lambda: len(sink.frames) >= 12)
    assert stats.interrupted
    assert sink.events == ["open", "close"]
    assert 12 <= len(sink.frames) < 30
    assert stats.frames_out == len(sink.frames)
    assert [f.index for f in sink.frames] == list(range(len(sink.frames)))
    assert source.n_read < 50


def test_stopping_before_the_first_frame_leaves_no_file():
    sink = FakeSink()
    stats = run(FakeSource(), FakeDenoiser(), sink, should_stop=lambda: True)
    assert stats.interrupted
    assert stats.frames_out == 0
    assert sink.events == ["open", "abort"]


def test_ctrl_c_finishes_the_file_and_goes_on():
    source, sink = FakeSource(10_000), FakeSink()
    with pytest.raises(KeyboardInterrupt):
        run(source, FakeDenoiser(interrupt_at=9), sink)
    assert sink.events == ["open", "close"]
    assert [f.index for f in sink.frames] == list(range(9))
    assert source.closed


def test_a_live_source_drops_the_oldest_counts_it_and_keeps_its_sound():
    source, denoiser, sink = FakeSource(60, is_live=True, wait=0.001), FakeDenoiser(wait=0.01), FakeSink()
    stats = run(source, denoiser, sink, depth=2)
    assert stats.frames_dropped > 10
    assert stats.frames_out == 60 - stats.frames_dropped
    assert stats.frames_in == 60
    indices = [f.index for f in sink.frames]
    assert indices == sorted(indices)
    for before, after in zip(indices, denoiser.seen[1:], strict=False):
        assert after.discontinuity == (after.index - before > 13)  # half a second
    assert [p.data for f in sink.frames for p in f.packets] == [f"sound {i}" for i in range(60)]


def test_a_file_never_drops():
    stats = run(FakeSource(60), FakeDenoiser(wait=0.002), FakeSink(), depth=1)
    assert (stats.frames_out, stats.frames_dropped) == (60, 0)


def test_progress_goes_up_to_the_end():
    told: list[Progress] = []
    stats = run(FakeSource(40), FakeDenoiser(wait=0.01), FakeSink(), on_progress=told.append)
    assert 3 <= len(told) <= stats.seconds / PROGRESS_SECONDS + 3
    assert [p.frames for p in told] == sorted(p.frames for p in told)
    assert told[-1].frames == told[-1].total_frames == 40
    assert told[-1].eta_seconds == 0
    assert told[-1].sigma == 12.5
    assert 0 < told[-1].fps < 100


def test_stage_times_are_told_apart():
    stats = run(FakeSource(15, wait=0.01), FakeDenoiser(wait=0.04), FakeSink(), depth=2)
    assert stats.ms_p50 >= 39.9
    assert stats.stage_ms["denoise"] >= 40
    assert 10 <= stats.stage_ms["decode"] < stats.stage_ms["denoise"]
    assert stats.stage_ms["encode"] < 10


class SlowTransfer(HostTransfer):
    """Takes 3 ms up and 6 ms down."""

    def upload(self, frames):
        for frame in frames:
            time.sleep(0.003)
            yield frame

    def download(self, frames, held=1):
        for frame in frames:
            time.sleep(0.006)
            yield frame


@pytest.mark.parametrize("slow", ["source", "sink"])
def test_stages_on_the_device_thread_add_up_to_the_run(slow):
    sink = FakeSink()
    if slow == "sink":
        write = sink.write
        sink.write = lambda frame: (time.sleep(0.05), write(frame))[1]
    source = FakeSource(25, wait=0.05 if slow == "source" else 0)
    stats = run(source, FakeDenoiser(wait=0.01), sink, depth=2, device_transfer=SlowTransfer())
    stages = stats.stage_ms
    assert stages["upload"] >= 3
    assert stages["denoise"] >= 10
    assert stages["download"] >= 6
    waits = (stages["wait_for_input"], stages["wait_for_output"])
    assert max(waits) == waits[slow == "sink"] > 5
    here = sum(stages[n] for n in ("wait_for_input", "upload", "denoise", "download", "wait_for_output"))
    # The sink's last frames are written after the last was handed on.
    assert here == pytest.approx(1e3 * stats.seconds / stats.frames_out, rel=0.3)


def test_stats_become_json():
    import json

    stats = run(FakeSource(5), FakeDenoiser(), FakeSink())
    assert json.loads(json.dumps(stats.to_dict()))["frames_out"] == 5


def test_percentiles_are_within_a_hundredth():
    percentiles = Percentiles()
    assert percentiles.quantile(0.5) == 0
    for i in range(1, 1001):
        percentiles.add(i / 10)
    assert percentiles.quantile(0.5) == pytest.approx(50, rel=0.011)
    assert percentiles.quantile(0.95) == pytest.approx(95, rel=0.011)


def test_memory_does_not_grow_with_the_length():
    """At no time are more frames alive than the two queues and the hands between them hold."""
    import weakref

    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    class Watched(FakeSource):
        def __iter__(self):
            nonlocal most
            for frame in super().__iter__():
                alive.add(frame.planes[0])
                most = max(most, len(alive))
                yield frame
                del frame

    class Forgetting(FakeSink):
        def write(self, frame: Frame) -> None:
            pass

    class Light(FakeDenoiser):
        def __call__(self, frames):
            yield from frames

    run(Watched(400), Light(), Forgetting(), depth=2)
    assert most <= 2 * 2 + 6
