"""Statistics of a run, during it and at its end, measured in constant memory."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """Performance of a live run during the last second or so."""

    fps: float
    """Frames written per second."""
    lag_ms: float
    """Longest time from a frame's arrival to its being written."""
    reconnects: int
    """Number of reconnects since the start of the run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run, passed to ``on_progress`` a few times a second."""

    frames: int
    """Number of finished frames."""
    total_frames: int | None
    """Expected number of frames, if the source provides an estimate."""
    seconds: float
    """Time since the start of the run."""
    fps: float
    sigma: float | None
    """Noise level of the last frame, in 8-bit units."""
    frames_dropped: int = 0
    live: LiveProgress | None = None
    """Live performance; None for other inputs."""

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds left; None if unknown."""
        if not self.total_frames or not self.fps:
            return None
        return max(0.0, (self.total_frames - self.frames) / self.fps)


@dataclass(frozen=True, slots=True)
class RunStats:
    """Statistics of a finished run."""

    frames_in: int
    """Number of frames that the source delivered."""
    frames_out: int
    """Number of frames passed to the sink."""
    frames_dropped: int
    """Number of frames of a live source that were dropped."""
    packets_corrupt: int
    """Number of damaged packets and pictures."""
    n_cuts: int
    sigma_mean: float | None
    """Mean noise level of the video in 8-bit units, from every tenth frame."""
    seconds: float
    fps: float
    """Output frames per second over the whole run."""
    video_seconds: float
    """Playing time of the output."""
    ms_p50: float
    """Median time per frame on the device, including copies to and from it."""
    ms_p95: float
    stage_ms: dict[str, float]
    """Mean time per frame in each stage.

    ``decode`` and ``encode`` run on threads of their own; ``wait_for_input``, ``upload``, ``denoise``, ``download`` and
    ``wait_for_output`` add up to the time of the main thread. On a GPU, ``denoise`` is the time to enqueue the work;
    what the device takes beyond that appears as ``download``.
    """
    device: str
    model: str
    precision: str
    backend: str = "eager"
    """Name of the backend that ran the network; for ``auto``, the one it chose."""
    lag_ms_p50: float | None = None
    """Median time from a live frame's arrival to its being written; None for other inputs."""
    lag_ms_p99: float | None = None
    lag_ms_max: float | None = None
    reconnects: int = 0
    """Number of times a live input was lost and came back."""
    output_drops: dict[str, int] = field(default_factory=dict)
    """Number of frames that each of several outputs did not take in time, in addition to ``frames_dropped``."""
    interrupted: bool = False
    """Whether the user stopped the run; the output up to there is finished."""
    frames_kept: int = 0
    """Number of frames in the output from an earlier, interrupted run; the other counts do not include them."""
    is_whole: bool = True
    """Whether the output is complete; if not, its parts are kept for resuming."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in {
                **asdict(self),
                "stage_ms": {name: round(ms, 3) for name, ms in self.stage_ms.items()},
            }.items()
        }


def combine(parts: Sequence[RunStats]) -> RunStats:
    """Combine the statistics of one input's runs into several files: sums, means weighted by frames, and maxima."""
    if len(parts) == 1:
        return parts[0]
    frames = [max(part.frames_out, 1) for part in parts]

    def mean(values: Sequence[float]) -> float:
        return sum(v * n for v, n in zip(values, frames, strict=True)) / sum(frames)

    def worst(name: str) -> float | None:
        return max((v for v in (getattr(part, name) for part in parts) if v is not None), default=None)

    last, seconds = parts[-1], sum(part.seconds for part in parts)
    n_out = sum(part.frames_out for part in parts)
    drops: Counter[str] = Counter()
    for part in parts:
        drops.update(part.output_drops)
    sigmas = [part.sigma_mean for part in parts]
    return replace(
        last, frames_in=sum(p.frames_in for p in parts), frames_out=n_out,
        frames_dropped=sum(p.frames_dropped for p in parts), n_cuts=sum(p.n_cuts for p in parts),
        sigma_mean=mean([s or 0.0 for s in sigmas]) if None not in sigmas else last.sigma_mean,
        seconds=seconds, fps=n_out / max(seconds, 1e-9), video_seconds=sum(p.video_seconds for p in parts),
        ms_p50=mean([p.ms_p50 for p in parts]), ms_p95=max(p.ms_p95 for p in parts),
        stage_ms={name: mean([p.stage_ms[name] for p in parts]) for name in last.stage_ms},
        lag_ms_p50=worst("lag_ms_p50"), lag_ms_p99=worst("lag_ms_p99"), lag_ms_max=worst("lag_ms_max"),
        output_drops=dict(drops),
    )  # fmt: skip


class Percentiles:
    """Quantiles of positive numbers to within 1 percent, from a histogram of their logarithms."""

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count a number; those below 1e-9 count as 1e-9."""
        self._counts[round(math.log(max(value, 1e-9)) / self._STEP)] += 1

    def quantile(self, q: float) -> float:
        """Return the smallest value that is not exceeded by a share ``q`` of the numbers; 0 if there are none."""
        left = q * sum(self._counts.values())
        for bin_, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return math.exp(bin_ * self._STEP)
        return 0.0


class LagMeter:
    """Measures the delay of a live run, and decides which frames would be too late. Thread-safe.

    Args:
        max_latency_ms: Longest time from a frame's arrival to its being written.
    """

    def __init__(self, max_latency_ms: float) -> None:
        self._max_seconds = max_latency_ms / 1000
        self._lock = threading.Lock()
        self._all = Percentiles()
        self._dequeued: dict[int, float] = {}
        self._rest_seconds = 0.0
        """Estimated time from a frame's leaving the queue to its being written."""
        self._write_seconds = 0.0
        self._last_written = -math.inf
        self._max_ms = self._recent_ms = 0.0
        self._n_recent = 0
        self._recent_since = time.monotonic()

    def is_late(self, arrived: float | None) -> bool:
        """Whether a frame that left the queue now would probably be written too late.

        A fresh frame is never late, however slow processing is: under overload, the newest frames get through.
        """
        if arrived is None:
            return False
        left = max(self._max_seconds - self._rest_seconds, self._max_seconds / 5)
        return time.monotonic() - arrived > left

    def note_dequeued(self, index: int) -> None:
        """Record that frame ``index`` left the queue."""
        with self._lock:
            self._dequeued[index] = time.monotonic()

    def is_too_late(self, index: int, arrived: float | None) -> bool:
        """Whether a processed frame is too late to be written.

        After a second without any frame, the next one is written, however late.
        """
        now = time.monotonic()
        with self._lock:
            if arrived is None or now - self._last_written > max(1.0, 2 * self._max_seconds):
                return False
            if now - arrived + self._write_seconds <= self._max_seconds:
                return False
            self._note_rest(now - self._dequeued.pop(index, now))
            return True

    def _note_rest(self, seconds: float) -> None:
        self._rest_seconds = _estimate(self._rest_seconds, seconds)

    def note_written(self, index: int, arrived: float | None, write_seconds: float = 0.0) -> None:
        """Record that a frame was written, which took ``write_seconds``."""
        now = time.monotonic()
        with self._lock:
            self._note_rest(now - self._dequeued.pop(index, now))
            self._write_seconds = _estimate(self._write_seconds, write_seconds)
            self._last_written = now
            if arrived is None:
                return
            lag_ms = 1e3 * (now - arrived)
            self._all.add(lag_ms)
            self._max_ms = max(self._max_ms, lag_ms)
            self._recent_ms = max(self._recent_ms, lag_ms)
            self._n_recent += 1

    def recent(self, reconnects: int) -> LiveProgress:
        """Return the statistics since the last call."""
        with self._lock:
            now = time.monotonic()
            fps = self._n_recent / max(now - self._recent_since, 1e-9)
            found = LiveProgress(fps, self._recent_ms, reconnects)
            self._n_recent, self._recent_ms, self._recent_since = 0, 0.0, now
            return found

    def quantiles(self) -> tuple[float, float, float]:
        """Return the median, the 99th percentile and the maximum of the delay, in ms."""
        with self._lock:
            return self._all.quantile(0.5), self._all.quantile(0.99), self._max_ms


def _estimate(before: float, seconds: float) -> float:
    """Update an estimate of a duration: it rises at once and falls slowly."""
    return max(seconds, 0.98 * before + 0.02 * seconds)


class Stopwatch:
    """Measures the time spent in an iterator or a function, including the stages that it calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0

    @property
    def mean_ms(self) -> float:
        """Mean time per item or call in ms; 0 before the first."""
        return 1e3 * self.seconds / self.count if self.count else 0.0

    def iterate(self, items: Iterable[T]) -> Iterator[T]:
        """Yield ``items``, measuring the time that each takes."""
        iterator = iter(items)
        try:
            while True:
                start = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.perf_counter() - start
                self.count += 1
                yield item
                del item
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def call(self, function: Callable[[T], None]) -> Callable[[T], None]:
        """Wrap ``function`` to measure the time of each call."""

        def timed(item: T) -> None:
            start = time.perf_counter()
            try:
                function(item)
            finally:
                self.seconds += time.perf_counter() - start
                self.count += 1

        return timed
