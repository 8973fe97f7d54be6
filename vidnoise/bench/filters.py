"""Benchmark of classic filters on the same pictures, with the same threads, in the same rounds."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from vidnoise.bench.cases import SIGMA, noisy_frames
from vidnoise.bench.ffdnet_size import FFDNET_SIZE
from vidnoise.color import to_rgb
from vidnoise.errors import UsageError
from vidnoise.evaluation.peers import PEERS, Peer

DEFAULT = "hqdn3d,atadenoise,vaguedenoiser,nlmeans,opencv-nlm"
"""Filters that take seconds, not minutes."""

FILTERS: dict[str, Peer] = {**PEERS, FFDNET_SIZE.name: FFDNET_SIZE}
"""All that can be timed."""

CLIP = 5
"""Frames per call."""

RESOLUTION = 0.2
"""Shortest measurable time of a filter, as a share of the time for starting its program and piping the frames."""


class FilterCase:
    """A filter on a short clip of one size, in RGB as in ``vidnoise evaluate``.

    Args:
        peer: The filter, which runs at the middle one of the strengths for the noise.
        height, width: Size of the pictures.
        seconds: Time after which no further call is started.
    """

    def __init__(self, peer: Peer, height: int, width: int, seconds: float) -> None:
        self.peer, self.height, self.width = peer, height, width
        strengths = peer.strengths(SIGMA)
        self.strength = strengths[len(strengths) // 2]
        self.reason = peer.unusable(CLIP)
        self._seconds = seconds
        self._spent = 0.0
        self._ms: list[float] = []
        self._idle_ms: list[float] = []

    def burst(self, clip: Tensor) -> None:
        """Measure one call, less the time of the same call without the filter."""
        if self.reason is not None or (self._ms and self._spent > self._seconds):
            return
        try:
            idle = self.peer.idle_method()
            start_up = _seconds(idle, clip) if idle else 0.0
            total = _seconds(self.peer.method(self.strength), clip)
        except UsageError as ex:
            self.reason = str(ex)
            return
        self._spent += total
        self._idle_ms.append(1e3 * start_up / CLIP)
        self._ms.append(1e3 * (total - start_up) / CLIP)

    def result(self) -> dict[str, Any]:
        """Return the row for the results file."""
        row: dict[str, Any] = {"filter": self.peer.name, "height": self.height, "width": self.width}
        if self.reason is not None:
            return row | {"status": "failed", "reason": self.reason}
        least = RESOLUTION * statistics.median(self._idle_ms)
        found = statistics.median(self._ms)
        ms = max(found, least)
        return row | {
            "status": "ok", "strength": self.strength, "ms_p50": round(ms, 2), "is_below": found < least,
            "fps": round(1e3 / ms, 2), "mpixel_per_second": round(self.height * self.width / 1e3 / ms, 2),
            "calls": len(self._ms),
        }  # fmt: skip


def choose_filters(names: str) -> list[Peer]:
    """Choose filters by a comma-separated list, ``all`` or ``none``; those that cannot run are kept for the report.

    Raises:
        UsageError: There is no such filter.
    """
    if names in ("none", "all"):
        return list(FILTERS.values()) if names == "all" else []
    unknown = [name for name in names.split(",") if name not in FILTERS]
    if unknown:
        raise UsageError(f"unknown peer {unknown[0]!r}; there are: all, none, {', '.join(FILTERS)}")
    return [FILTERS[name] for name in names.split(",")]


def filter_clip(height: int, width: int) -> Tensor:
    """Return the models' input pictures as RGB ``(T, 3, H, W)``."""
    return torch.cat([to_rgb(frame) for frame in noisy_frames(height, width, CLIP)])


def _seconds(method: Any, clip: Tensor) -> float:
    start = time.perf_counter()
    method(clip, SIGMA / 255)
    return time.perf_counter() - start
