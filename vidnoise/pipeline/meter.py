"""Measuring a run and reporting its progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator

from vidnoise.frame import Frame
from vidnoise.pipeline.live_policy import KeepAll
from vidnoise.pipeline.stats import Percentiles, Progress, RunStats, Stopwatch
from vidnoise.session.protocol import Session
from vidnoise.sinks import Sink
from vidnoise.sources import Source

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.1
"""Interval between calls of ``on_progress``."""

LIVE_PROGRESS_SECONDS = 1.0
"""Interval between calls of ``on_progress`` for live sources."""

FASTEST = "fast"
"""The model to advise where the network is too slow."""

ADVICE_AFTER_SECONDS = 5.0
"""Age of a live run before its drops count as a habit: the first frames take longer."""

SIGMA_EVERY = 10
"""Frames between two readings of the noise level: on a GPU, each waits for the device."""


class Meter:
    """Counts and times one run.

    Args:
        source, denoiser, sink, policy: Parts of the run, which provide counts of their own.
        on_progress: Called on the thread that iterates over the frames.
    """

    def __init__(
        self,
        source: Source,
        denoiser: Session,
        sink: Sink,
        policy: KeepAll,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._source, self._denoiser, self._sink, self._policy = source, denoiser, sink, policy
        self._on_progress = on_progress
        self._progress_seconds = LIVE_PROGRESS_SECONDS if policy.lag else PROGRESS_SECONDS
        self._start = time.perf_counter()
        self._last_progress = self._start if policy.lag else 0.0
        self._frames_in = self._frames_pulled = 0
        self._has_advised = False
        self._sigma_sum = 0.0
        self._sigma_count = 0
        self._sigma: float | None = None
        self._video_seconds = 0.0
        self._first_seconds: float | None = None
        self._frame_ms = Percentiles()
        self.decode, self.encode = Stopwatch(), Stopwatch()
        # Each includes the time of those before it, which it waits for.
        self._wait, self.uploaded, self.denoised, self._device = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
        self._blocked_seconds = 0.0
        """Time spent waiting for room in the queue before the sink."""

    @property
    def frames_out(self) -> int:
        """Number of frames passed to the sink."""
        return self.encode.count

    def count_input(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Count frames as they leave the queue after the source."""
        for frame in self._wait.iterate(frames):
            self._frames_in += 1
            yield frame

    def count_output(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Count frames as they enter the queue before the sink."""
        before = 0.0
        for frame in self._device.iterate(frames):
            now = self._device.seconds - self._wait.seconds
            self._frame_ms.add(1e3 * (now - before))
            before = now
            if self._frames_pulled % SIGMA_EVERY == 0:
                self._read_sigma()
            self._frames_pulled += 1
            self._note_time(frame)
            handed_on = time.perf_counter()
            yield frame
            self._blocked_seconds += time.perf_counter() - handed_on
            self._report_if_due()

    def _read_sigma(self) -> None:
        self._sigma = self._denoiser.estimated_sigma
        if self._sigma is not None:
            if not self._sigma_count:
                logger.info("noise of the first frame: %.1f/255", self._sigma)
            self._sigma_sum += self._sigma
            self._sigma_count += 1

    def _note_time(self, frame: Frame) -> None:
        if frame.seconds is None:
            return
        seconds = float(frame.seconds)
        if self._first_seconds is None:
            self._first_seconds = seconds
        length = float((frame.duration or 0) * frame.time_base)
        self._video_seconds = max(self._video_seconds, seconds + length - self._first_seconds)

    def on_wait(self) -> None:
        """Report progress while waiting, for live sources."""
        if self._policy.lag is not None:
            self._report_if_due()

    def _report_if_due(self) -> None:
        if time.perf_counter() - self._last_progress >= self._progress_seconds:
            self.report_progress()

    def report_progress(self) -> None:
        """Call ``on_progress`` now."""
        self._last_progress = time.perf_counter()
        self._advise_if_too_slow()
        if self._on_progress is None:
            return
        total, seconds = self._source.info.estimated_frames, self._last_progress - self._start
        fps = self._frames_pulled / max(seconds, 1e-9)
        dropped = self._n_dropped
        lag = self._policy.lag
        live = None if lag is None else lag.recent(self._n_reconnects)
        self._on_progress(Progress(self._frames_pulled, total, seconds, fps, self._sigma, dropped, live))

    @property
    def _n_dropped(self) -> int:
        return self._policy.n_dropped + self._policy.n_late

    def _advise_if_too_slow(self) -> None:
        """Name the faster model, once, if a live run drops most of its frames."""
        is_young = self._last_progress - self._start < ADVICE_AFTER_SECONDS
        if self._policy.lag is None or self._has_advised or is_young or self._n_dropped <= self.frames_out:
            return
        self._has_advised = True
        model = self._denoiser.model_name
        remedy = "smaller pictures or a GPU help" if model == FASTEST else f'try model="{FASTEST}"'
        logger.warning(
            "most frames are dropped (%d, and %d written): model %s is too slow for this video here; %s",
            self._n_dropped, self.frames_out, model, remedy,
        )  # fmt: skip

    @property
    def _n_reconnects(self) -> int:
        return getattr(self._source, "n_reconnects", 0)

    def stats(self, *, interrupted: bool) -> RunStats:
        """Return the statistics of the run until now.

        Args:
            interrupted: Whether it was stopped by the user.
        """
        seconds = time.perf_counter() - self._start
        denoiser, n_out = self._denoiser, self.frames_out
        policy = self._policy
        p50, p99, worst = (None, None, None) if policy.lag is None else policy.lag.quantiles()
        return RunStats(
            frames_in=self._frames_in + policy.n_dropped,
            frames_out=n_out,
            frames_dropped=self._n_dropped,
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
            interrupted=interrupted,
            output_drops=dict(getattr(self._sink, "n_dropped", {})),
        )

    def _stage_ms(self) -> dict[str, float]:
        """Return :attr:`RunStats.stage_ms`."""
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
