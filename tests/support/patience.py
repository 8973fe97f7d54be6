"""Waiting times on a busy machine, and a denoiser that changes nothing."""

from __future__ import annotations

from typing import Any

from support.fakes import FakeDenoiser

HICCUP_MS = 400
"""What a busy machine may take from us between the last look at the clock and the end of a write."""


PATIENT: dict[str, Any] = {"depth": 200, "max_latency_ms": 60_000}
"""For runs of which every frame counts, however busy the machine is: none is dropped."""


class Same(FakeDenoiser):
    """Changes nothing."""

    def __call__(self, frames):
        yield from frames
