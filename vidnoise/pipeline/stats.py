"""Statistics of a run, while it goes on and when it is over; measured in constant memory."""

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
    """How a live run did in the last second or so."""

    fps: float
    """Frames written per second."""
    lag_ms: float
    """The longest time from a frame's arrival to its being written."""
    reconnects: int
    """Since the start."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Handed to ``on_progress`` a few times a second."""

    frames: int
    """Frames finished."""
    total_frames: int | None
    """How many there will be, if the source knows (an estimate)."""
    seconds: float
    """Since the start of the run."""
    fps: float
    sigma: float | None
    """Noise level of the last frame, 8-bit units."""
    frames_dropped: int = 0
    live: LiveProgress | None = None
    """Measured for live inputs only."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left, if that can be told."""
        if not self.total_frames or not self.fps:
            return None
        return max(0.0, (self.total_frames - self.frames) / self.fps)


@dataclass(frozen=True, slots=True)
class RunStats:
    """Statistics of a finished run."""

    frames_in: int
    """Frames that the source gave."""
    frames_out: int
    """Frames that the sink took."""
    frames_dropped: int
    """Frames of a live source that came too fast."""
    packets_corrupt: int
    """Packets and pictures found damaged."""
    n_cuts: int
    sigma_mean: float | None
    """Mean noise level of the video, 8-bit units, from every tenth frame."""
    seconds: float
    fps: float
    """Frames out per second of the whole run."""
    video_seconds: float
    """Playing time of what was written."""
    ms_p50: float
    """Median time of a frame on the device, transfers included."""
    ms_p95: float
    stage_ms: dict[str, float]
    """Mean time of a frame in each stage: ``decode`` and ``encode`` on threads of their own; between them
    ``wait_for_input``, ``upload``, ``denoise``, ``download`` and ``wait_for_output``, whose sum is the whole. On a GPU
    ``denoise`` is the time to hand out the work; what the device takes beyond that shows as ``download``."""
    device: str
    model: str
    precision: str
    backend: str = "eager"
    """How the network ran; of ``auto``, what it came to."""
    lag_ms_p50: float | None = None
    """Median time from a live frame's arrival to its being written; None for files."""
    lag_ms_p99: float | None = None
    lag_ms_max: float | None = None
    reconnects: int = 0
    """How often a live input was lost and came back."""
    output_drops: dict[str, int] = field(default_factory=dict)
    """Frames that each of several outputs of a live input did not take in time, beyond ``frames_dropped``."""
    interrupted: bool = False
    """Stopped by the user; what was done until then is finished properly."""
    frames_kept: int = 0
    """Frames in the output that an earlier, interrupted run had finished; the other counts are without them."""
    is_whole: bool = True
    """Whether the output is there; if not, what was done is kept for going on."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in {
                **asdict(self),
                "stage_ms": {name: round(ms, 3) for name, ms in self.stage_ms.items()},
            }.items()
        }


def joined(parts: Sequence[RunStats]) -> RunStats:
    """The runs of one input into several files as one: sums, means by frames, the worst of what is worst."""
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
        self._counts[round(math.log(max(value, 1e-9)) / self._STEP)] += 1

    def quantile(self, q: float) -> float:
        """The smallest number that a share ``q`` of the numbers does not exceed; 0 if there were none."""
        left = q * sum(self._counts.values())
        for bin_, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return math.exp(bin_ * self._STEP)
        return 0.0


class LagMeter:
    """How far a live run lags behind its source, and which frames would come too late. Thread-safe.

    Args:
        max_latency_ms: From a frame's arrival to its being written.
    """

    def __init__(self, max_latency_ms: float) -> None:
        self._max_seconds = max_latency_ms / 1000
        self._lock = threading.Lock()
        self._all = Percentiles()
        self._taken: dict[int, float] = {}
        self._rest_seconds = 0.0
        """Time that a frame takes once it has left the queue."""
        self._write_seconds = 0.0
        self._last_written = -math.inf
        self._max_ms = self._recent_ms = 0.0
        self._n_recent = 0
        self._recent_since = time.monotonic()

    def is_late(self, arrived: float | None) -> bool:
        """Whether a frame that would be taken now is unlikely to be written in time.

        A fresh frame never is, however slow the rest: of what cannot be kept up with, the newest frames come through.
        """
        if arrived is None:
            return False
        left = max(self._max_seconds - self._rest_seconds, self._max_seconds / 5)
        return time.monotonic() - arrived > left

    def take(self, index: int) -> None:
        """Frame ``index`` leaves the queue."""
        with self._lock:
            self._taken[index] = time.monotonic()

    def is_too_late(self, index: int, arrived: float | None) -> bool:
        """Whether a frame that is ready comes too late all the same, and shall not be written.

        A second without any frame is worse: then the next one is written, however late.
        """
        now = time.monotonic()
        with self._lock:
            if arrived is None or now - self._last_written > max(1.0, 2 * self._max_seconds):
                return False
            if now - arrived + self._write_seconds <= self._max_seconds:
                return False
            self._note_rest(now - self._taken.pop(index, now))
            return True

    def _note_rest(self, seconds: float) -> None:
        self._rest_seconds = _estimate(self._rest_seconds, seconds)

    def written(self, index: int, arrived: float | None, write_seconds: float = 0.0) -> None:
        """It is written, which took ``write_seconds``."""
        now = time.monotonic()
        with self._lock:
            self._note_rest(now - self._taken.pop(index, now))
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
        """Return the figures since the last call."""
        with self._lock:
            now = time.monotonic()
            fps = self._n_recent / max(now - self._recent_since, 1e-9)
            found = LiveProgress(fps, self._recent_ms, reconnects)
            self._n_recent, self._recent_ms, self._recent_since = 0, 0.0, now
            return found

    def quantiles(self) -> tuple[float, float, float]:
        """Median, 99th percentile and greatest lag, ms."""
        with self._lock:
            return self._all.quantile(0.5), self._all.quantile(0.99), self._max_ms


def _estimate(before: float, seconds: float) -> float:
    """An estimate of the next time from the one before and the latest time: goes up at once and down slowly."""
    return max(seconds, 0.98 * before + 0.02 * seconds)


class Stopwatch:
    """Time spent inside an iterator or a function, that of the stages it calls included."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0

    @property
    def mean_ms(self) -> float:
        return 1e3 * self.seconds / self.count if self.count else 0.0

    def iterate(self, items: Iterable[T]) -> Iterator[T]:
        """``items``, with the time that each takes to come."""
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
        """``function``, with the time that each call takes."""

        def timed(item: T) -> None:
            start = time.perf_counter()
            try:
                function(item)
            finally:
                self.seconds += time.perf_counter() - start
                self.count += 1

        return timed
