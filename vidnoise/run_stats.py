"""What a run tells while it goes on and when it is over; measured in constant memory."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")


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

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left, if that can be told."""
        if not self.total_frames or not self.fps:
            return None
        return max(0.0, (self.total_frames - self.frames) / self.fps)


@dataclass(frozen=True, slots=True)
class RunStats:
    """What a run did."""

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
    """Mean time of a frame in each stage; stages on threads of their own overlap the others."""
    device: str
    model: str
    precision: str
    interrupted: bool = False
    """Stopped by the user; what was done until then is finished properly."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in {
                **asdict(self),
                "stage_ms": {name: round(ms, 3) for name, ms in self.stage_ms.items()},
            }.items()
        }


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
