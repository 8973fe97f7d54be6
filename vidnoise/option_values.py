"""Types of option values, with the limits and defaults that other modules need as well."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch

    MaskLike: TypeAlias = str | os.PathLike[str] | np.ndarray | torch.Tensor
    SigmaLike: TypeAlias = float | np.ndarray | torch.Tensor
    ZonesLike: TypeAlias = str | Sequence[tuple[float, float, float]]
    RegionLike: TypeAlias = str | Sequence[int]
    SpanLike: TypeAlias = str | tuple[float, float]

PathLike: TypeAlias = "str | os.PathLike[str]"

Seconds: TypeAlias = float
"""Seconds; the command line also accepts ``1:30``."""

Attempts: TypeAlias = int
"""Number of attempts; :data:`FOREVER` means no limit."""

SizeChange = Literal["stop", "split", "scale"]
"""Ways to handle pictures that change size or format midway."""

FOREVER = -1
"""Number of attempts that means no limit."""

MAX_STRENGTH = 2.0

MAX_JOBS = 256
"""Maximum number of processes on a device."""

MAX_LOOKAHEAD = 32
"""Maximum lookahead: the fusion's minimum gain leaves later frames no effect, and each frame takes memory."""

MAX_LATENCY_MS = 1000
"""Default maximum time from a live frame's arrival to its being written."""

SEGMENT_SECONDS = 60.0
"""Default length of a segment in seconds of video, which is what an interruption costs at most."""

MAX_PIXELS = 1 << 28
"""Default limit of the picture size: 16384x16384, 400 MB as yuv420p. A few bytes of input can demand any size."""

LONGEST_SECONDS = 1_000_000_000
"""A limit that is longer than any video, and fits libav's 64-bit timestamps."""


class Running(Protocol):
    """A backend in use; see :class:`vidnoise.backends.protocol.Backend`."""

    @property
    def name(self) -> str:
        """Name of the backend."""
        ...
