"""Benchmark cases, each a model with a way to run it on pictures of one size; and the pictures."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vidnoise.backends import BACKENDS, check_backend
from vidnoise.backends.device import PRECISIONS, resolve_device
from vidnoise.errors import UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.model import ModelConfig
from vidnoise.model.network import MULTIPLE
from vidnoise.options import DenoiseOptions
from vidnoise.weights import find_model, read_card

SIZES = {"540p": (540, 960), "720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}
"""Height and width by name."""

SIGMA = 20.0
"""Standard deviation of the pictures' noise, in 8-bit units."""

WARM_UP = 3
"""Frames before timing starts; the second is the first one with a past."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case to measure, as requested; what ``auto`` resolves to is known only when it has run."""

    model: str
    device: str
    backend: str
    precision: str
    height: int
    width: int
    streams: int | None = None
    """Number of streams in one :class:`vidnoise.StreamBatch`; None for a single :class:`vidnoise.Denoiser`."""
    lookahead: int = 0
    """Frames that each frame of a single stream waits for; 0 is causal."""

    @property
    def label(self) -> str:
        """Short description."""
        streams = "" if self.streams is None else f", {self.streams} stream{'s' * (self.streams > 1)}"
        streams += f", lookahead {self.lookahead}" if self.lookahead else ""
        return f"{self.model}, {self.backend}, {self.precision}, {self.device}, {self.width}x{self.height}{streams}"

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6

    @property
    def padded_pixels(self) -> int:
        """Pixels that the network computes per frame, whose size is padded to a multiple of :data:`MULTIPLE`."""
        return (-(-self.height // MULTIPLE) * MULTIPLE) * (-(-self.width // MULTIPLE) * MULTIPLE)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``1080p`` or ``1920x1080`` to height and width.

    Raises:
        UsageError: It is neither, or smaller than 16 pixels.
    """
    if text in SIZES:
        return SIZES[text]
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < MULTIPLE:
        raise UsageError(f"unknown size {text!r}; use {', '.join(SIZES)} or WIDTHxHEIGHT (at least 16x16)")
    return int(match[2]), int(match[1])


def make_cases(
    models: Sequence[str],
    *,
    device: str = "auto",
    backends: Sequence[str] = ("auto",),
    precisions: Sequence[str] = ("auto",),
    sizes: Sequence[str] = ("1080p",),
    streams: Sequence[int] = (),
    lookaheads: Sequence[int] = (),
) -> list[Case]:
    """Make all combinations, after checking every name.

    Args:
        models: Names or files.
        device: Device of all cases.
        backends: Names, ``all``, or ``name:precision`` for one that runs in that precision only.
        precisions: Precisions of backends without one.
        sizes: See :func:`parse_size`.
        streams: See :attr:`Case.streams`.
        lookaheads: See :attr:`Case.lookahead`.

    Raises:
        UsageError, UnknownModelError, DeviceError: There is no such model, device, backend, precision, size, lookahead.
    """
    for model in models:
        find_model(model)
    backends = list(BACKENDS) if list(backends) == ["all"] else backends
    ways = [
        (name, precision)
        for name, _, own in (backend.partition(":") for backend in backends)
        for precision in ([own] if own else precisions)
    ]
    for backend, precision in ways:
        check_backend(backend)
        if precision not in ("auto", *PRECISIONS):
            raise UsageError(f"unknown precision {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if any(n < 1 for n in streams):
        raise UsageError("there must be at least 1 stream")
    for n in lookaheads:
        DenoiseOptions(lookahead=n)
    if streams and any(lookaheads):
        raise UsageError("lookahead is of a single stream: leave out one of streams and lookaheads")
    where = str(resolve_device(device))
    parsed = [parse_size(size) for size in sizes]
    combined = itertools.product(parsed, models, ways, streams or (None,), lookaheads or (0,))
    return [Case(model, where, *way, *size, n, ahead) for size, model, way, n, ahead in combined]


def config_of(model: str) -> ModelConfig:
    """Return the configuration of a model, without loading its weights."""
    return ModelConfig.from_dict(read_card(find_model(model))[1])


def noisy_frames(height: int, width: int, count: int, device: torch.device | str = "cpu") -> list[Frame]:
    """Make 8-bit 4:2:0 frames of a moving gradient with noise."""
    generator = torch.Generator().manual_seed(0)
    format = PIXEL_FORMATS["yuv420p"]
    frames = []
    for i in range(count):
        planes = []
        for k in range(3):
            h, w = format.plane_shape(k, height, width)
            ramp = torch.linspace(60, 180, w).roll(2 * i) if k == 0 else torch.full((w,), 128.0)
            noise = torch.randn(h, w, generator=generator) * (SIGMA if k == 0 else 0.4 * SIGMA)
            planes.append((ramp + noise).round().clamp(0, 255).to(torch.uint8).to(device))
        frames.append(Frame(tuple(planes), format, ColorInfo(1, 1, 1, 1), index=i))
    return frames
