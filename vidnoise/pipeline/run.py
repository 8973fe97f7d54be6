"""From a source through a denoiser into a sink: the whole main job, on one screen."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from vidnoise.errors import SizeChangeError, SourceLostError, StalledError, UsageError
from vidnoise.frame import Frame, Packet
from vidnoise.frame.frame_queue import beside, drain, prefetch
from vidnoise.options import MAX_LATENCY_MS
from vidnoise.pipeline.device_transfer import Transfer, make_transfer
from vidnoise.pipeline.stats import LagMeter, Percentiles, Progress, RunStats, Stopwatch
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser
from vidnoise.sinks import Sink
from vidnoise.sources import Source

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.1
"""Time between two calls of ``on_progress``."""

LIVE_PROGRESS_SECONDS = 1.0
"""The same for live sources."""

GAP_SECONDS = 0.5
"""A live picture that comes so much after the one before (and three frames late) does not follow from it."""

READER_SECONDS = 0.1
"""Time between two looks at whether somebody reads a FIFO."""

SIGMA_EVERY = 10
"""Frames between two looks at the noise level: on a GPU each look waits for the device."""


def run(
    source: Source,
    denoiser: Denoiser | FieldDenoiser,
    sink: Sink,
    *,
    transfer: Transfer | None = None,
    depth: int = 4,
    max_latency_ms: float = MAX_LATENCY_MS,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    close_source: bool = True,
) -> RunStats:
    """Denoise all of ``source`` into ``sink``, in constant memory; both are closed when it returns or raises.

    Reading and writing happen on threads of their own, which have ended by then too. On an error the sink is
    aborted, so that nothing half-written gets its final name. On Ctrl-C what was read so far is written and
    finished properly before ``KeyboardInterrupt`` goes on.

    Args:
        source: What to read; a live one drops the oldest waiting frames when it is too fast.
        denoiser: The stream's session; it is used from this thread only.
        sink: Where to write; not open yet.
        transfer: The way to the denoiser's device and back; by default the one for ``denoiser.device``.
        depth: Frames that may wait at each joint.
        max_latency_ms: Of a live source: frames that would be written later after their arrival are dropped.
        on_progress: Called on this thread about ten times a second (live: once a second), and once at the end.
        should_stop: Asked before each frame; when it says yes, the run ends as if the source had.
        close_source: False leaves that to the caller: the source may go on with pictures of another size.

    Raises:
        SizeChangeError: The pictures change their size; what came before is written and finished properly.
        SourceLostError: A live source did not come back; what came before is written and finished properly.
        VidnoiseError: Whatever the source, denoiser or sink raised.
    """
    if not 0 < max_latency_ms < float("inf"):
        raise UsageError(f"max_latency must be more than 0 ms, got {max_latency_ms:g}")
    is_live = source.info.is_live
    lag = LagMeter(max_latency_ms) if is_live else None
    meter = _Meter(source, denoiser, on_progress, should_stop, lag)
    transfer = transfer or make_transfer(denoiser.device, depth)
    policy = "drop_oldest" if is_live else "block"
    behind = 1 if is_live else depth
    try:
        if not meter.wait_for_reader(sink):
            sink.abort()
            return meter.stats()
        sink.open(source.info)
        with contextlib.ExitStack() as stages:  # closes the last stage first, each on the thread that runs it

            def stage(frames: Iterable[Frame]) -> Iterable[Frame]:
                stages.callback(getattr(frames, "close", lambda: None))
                return frames

            reading = meter.decode.iterate(source)
            frames = prefetch(
                reading, depth, policy, meter.dropped, is_late=meter.is_late, on_wait=meter.waiting, stop=source.stop
            )
            frames = stage(frames)
            frames = stage(meter.arriving(frames))
            frames = stage(meter.uploaded.iterate(transfer.upload(frames)))
            frames = stage(meter.denoised.iterate(denoiser(frames)))
            # A frame may wait in the queue, be with the sink, and be in our hand.
            frames = stage(transfer.download(frames, held=behind + 2))
            drain(meter.leaving(frames), meter.writing(sink), behind, on_wait=meter.waiting_for_output)
        if meter.source_error is not None and not meter.encode.count:
            raise meter.source_error
        meter.finish(sink)
    except KeyboardInterrupt:
        meter.interrupted = True
        meter.finish(sink)
        raise
    except StalledError as ex:
        logger.warning("%s", ex)
        raise
    except BaseException:
        # What was recorded will not come again, whatever it was that failed.
        if meter.encode.count and is_live:
            meter.finish(sink)
        else:
            sink.abort()
        raise
    finally:
        if close_source:
            source.close()
    if isinstance(meter.source_error, SizeChangeError):
        raise SizeChangeError(f"{meter.source_error}. What came before is finished") from meter.source_error
    if meter.source_error is not None:
        raise meter.source_error
    return meter.stats()


class _Meter:
    """Counts and times one run."""

    def __init__(
        self,
        source: Source,
        denoiser: Denoiser | FieldDenoiser,
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool] | None,
        lag: LagMeter | None,
    ) -> None:
        self._lag = lag
        self._progress_seconds = LIVE_PROGRESS_SECONDS if lag else PROGRESS_SECONDS
        self._previous_seconds: Fraction | None = None
        self._source = source
        self._denoiser = denoiser
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._start = time.perf_counter()
        self._last_progress = self._start if lag else 0.0
        self._frames_in = self._frames_pulled = self._frames_dropped = 0
        self._frames_late = 0
        """Frames that were ready too late, and not written."""
        self._carried: tuple[Packet, ...] = ()
        """Their sound."""
        self._sigma_sum = 0.0
        self._sigma_count = 0
        self._sigma: float | None = None
        self._video_seconds = 0.0
        self._first_seconds: float | None = None
        self._frame_ms = Percentiles()
        self.decode, self.encode = Stopwatch(), Stopwatch()
        # Each with the time of those before it, which it waits for.
        self._wait, self.uploaded, self.denoised, self._device = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
        self._blocked_seconds = 0.0
        """Time spent waiting for room before the sink."""
        self._sink: Sink | None = None
        self.interrupted = False
        self.source_error: SizeChangeError | SourceLostError | None = None
        """Raised when the frames before it are written: with frames ahead, some are on their way still."""

    def dropped(self, frame: Frame, following: Frame) -> Frame:
        """Frame ``following`` after a live source's ``frame`` was dropped: its sound must not be lost with it."""
        self._frames_dropped += 1
        packets = (*frame.packets, *following.packets)
        return replace(following, packets=packets, discontinuity=following.discontinuity or frame.discontinuity)

    def waiting(self) -> bool:
        """Nothing came for a while: whether the run shall end."""
        if self._should_stop is not None and self._should_stop():
            self.interrupted = True
        if self._lag is not None:
            self._tell_if_due()
        return self.interrupted

    def wait_for_reader(self, sink: Sink) -> bool:
        """Until ``sink`` can be opened; False where the run is to end before."""
        while not sink.is_ready():
            if self.waiting():
                return False
            time.sleep(READER_SECONDS)
        return True

    def waiting_for_output(self) -> None:
        """The sink takes nothing for a while: where the run is to end, it need not wait for its readers."""
        if self._lag is not None:
            self._tell_if_due()
        if self._should_stop is None or not self._should_stop() or self._sink is None:
            return
        self._sink.stop()
        if self._sink.leave():
            raise StalledError("the output takes nothing any more, and was left")

    def is_late(self, frame: Frame) -> bool:
        return self._lag is not None and self._lag.is_late(frame.arrived)

    def arriving(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        try:
            for frame in self._wait.iterate(frames):
                if self._should_stop is not None and self._should_stop():
                    self.interrupted = True
                    return
                self._frames_in += 1
                if self._lag is not None:
                    self._lag.take(frame.index)
                    frame = self._after_gap(frame)
                yield frame
        except (SizeChangeError, SourceLostError) as ex:
            self.source_error = ex

    def _after_gap(self, frame: Frame) -> Frame:
        """``frame``, marked where too much is missing before it for the past to be of use."""
        if frame.pts is None:
            return frame
        seconds, previous = frame.pts * frame.time_base, self._previous_seconds
        self._previous_seconds = seconds
        rate = self._source.info.rate
        if previous is None or seconds - previous <= max(GAP_SECONDS, 3 / rate if rate else 0):
            return frame
        return replace(frame, discontinuity=True)

    def writing(self, sink: Sink) -> Callable[[Frame], None]:
        """``sink.write``, timed."""
        self._sink = sink
        write = self.encode.call(sink.write)
        lag = self._lag
        if lag is None:
            return write

        def write_live(frame: Frame) -> None:
            is_late = lag.is_too_late(frame.index, frame.arrived)
            if (
                is_late and self.encode.count
            ):  # something was slower than foreseen; without any frame there is no output
                self._frames_late += 1
                self._carried += frame.packets
                return
            if self._carried:
                frame = replace(frame, packets=(*self._carried, *frame.packets))
                self._carried = ()
            begin = time.monotonic()
            write(frame)
            lag.written(frame.index, frame.arrived, time.monotonic() - begin)

        return write_live

    def leaving(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        before = 0.0
        for frame in self._device.iterate(frames):
            now = self._device.seconds - self._wait.seconds
            self._frame_ms.add(1e3 * (now - before))
            before = now
            if self._frames_pulled % SIGMA_EVERY == 0:
                self._look_at_sigma()
            self._frames_pulled += 1
            self._note_time(frame)
            handed_on = time.perf_counter()
            yield frame
            self._blocked_seconds += time.perf_counter() - handed_on
            self._tell_if_due()

    def _look_at_sigma(self) -> None:
        self._sigma = self._denoiser.estimated_sigma
        if self._sigma is not None:
            self._sigma_sum += self._sigma
            self._sigma_count += 1

    def _note_time(self, frame: Frame) -> None:
        if frame.pts is None:
            return
        seconds = float(frame.pts * frame.time_base)
        if self._first_seconds is None:
            self._first_seconds = seconds
        length = float((frame.duration or 0) * frame.time_base)
        self._video_seconds = max(self._video_seconds, seconds + length - self._first_seconds)

    def _tell_if_due(self) -> None:
        if time.perf_counter() - self._last_progress >= self._progress_seconds:
            self._tell()

    def _tell(self) -> None:
        self._last_progress = time.perf_counter()
        if self._on_progress is None:
            return
        info, seconds = self._source.info, self._last_progress - self._start
        total = info.n_frames
        if total is None and info.duration_seconds and info.rate:
            total = round(info.duration_seconds * info.rate)
        fps = self._frames_pulled / max(seconds, 1e-9)
        dropped = self._frames_dropped + self._frames_late
        live = None if self._lag is None else self._lag.recent(self._n_reconnects)
        self._on_progress(Progress(self._frames_pulled, total, seconds, fps, self._sigma, dropped, live))

    @property
    def _n_reconnects(self) -> int:
        return getattr(self._source, "n_reconnects", 0)

    def finish(self, sink: Sink) -> None:
        """Close the sink, or take it away if the user stopped before the first frame."""
        if self.interrupted and self.encode.count == 0:
            sink.abort()
            return
        if self.interrupted or self._lag is not None:
            sink.stop()
        packets = (*self._carried, *self._source.trailing_packets)
        beside(lambda: sink.close(packets), self.waiting_for_output)
        self._tell()

    def stats(self) -> RunStats:
        seconds = time.perf_counter() - self._start
        denoiser, n_out = self._denoiser, self.encode.count
        p50, p99, worst = (None, None, None) if self._lag is None else self._lag.quantiles()
        return RunStats(
            frames_in=self._frames_in + self._frames_dropped,
            frames_out=n_out,
            frames_dropped=self._frames_dropped + self._frames_late,
            packets_corrupt=self._source.n_corrupt,
            n_cuts=denoiser.n_cuts,
            sigma_mean=self._sigma_sum / self._sigma_count if self._sigma_count else None,
            seconds=seconds,
            fps=n_out / max(seconds, 1e-9),
            video_seconds=self._video_seconds,
            ms_p50=self._frame_ms.quantile(0.5),
            ms_p95=self._frame_ms.quantile(0.95),
            stage_ms=self._stage_ms(),
            device=str(denoiser.device),
            model=denoiser.model_name,
            precision=str(denoiser.dtype).removeprefix("torch."),
            backend=denoiser.backend_name,
            lag_ms_p50=p50,
            lag_ms_p99=p99,
            lag_ms_max=worst,
            reconnects=self._n_reconnects,
            interrupted=self.interrupted,
            output_drops=dict(getattr(self._sink, "n_dropped", {})),
        )

    def _stage_ms(self) -> dict[str, float]:
        """See :attr:`RunStats.stage_ms`."""
        waited, uploaded, denoised, downloaded = (
            watch.seconds for watch in (self._wait, self.uploaded, self.denoised, self._device)
        )
        here = {
            "wait_for_input": waited,
            "upload": uploaded - waited,
            "denoise": denoised - uploaded,
            "download": downloaded - denoised,
            "wait_for_output": self._blocked_seconds,
        }
        frames = max(1, self._frames_pulled)
        means = {name: max(0.0, 1e3 * seconds / frames) for name, seconds in here.items()}
        return {"decode": self.decode.mean_ms, **means, "encode": self.encode.mean_ms}
