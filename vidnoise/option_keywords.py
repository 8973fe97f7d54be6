"""The names and types of :mod:`vidnoise.options` again, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from vidnoise.option_values import Attempts, PathLike, Running, Seconds, SizeChange

if TYPE_CHECKING:
    import torch

    from vidnoise.option_values import MaskLike, RegionLike, SigmaLike, SpanLike, ZonesLike


class DeviceKeywords(TypedDict, total=False):
    """Keywords of :class:`DeviceOptions`."""

    device: str | torch.device | Sequence[str]
    precision: str
    backend: str | Running
    max_memory: float | None


class ImageKeywords(DeviceKeywords, total=False):
    """Keywords of :class:`ImageOptions`."""

    strength: float
    luma: float
    chroma: float
    mask: MaskLike | None
    grain: float
    grain_seed: int
    sigma: SigmaLike | None
    noise_region: RegionLike | None


class DenoiseKeywords(ImageKeywords, total=False):
    """Keywords of :class:`DenoiseOptions`."""

    zones: ZonesLike | None
    grain_table: PathLike | None
    preview: str | None
    detect_cuts: bool
    lookahead: int | str


class ThreadKeywords(TypedDict, total=False):
    """Keywords of :class:`ThreadOptions`."""

    threads: int


class SourceKeywords(ThreadKeywords, total=False):
    """Keywords of :class:`SourceOptions`."""

    start: Seconds | None
    duration: Seconds | None
    hwaccel: str
    input_format: str | None
    raw_size: str | None
    raw_format: str | None
    raw_rate: str | None
    rate: str | None
    live: bool | None
    connect_timeout: float
    read_timeout: float | None
    reconnect: Attempts
    rtsp_transport: str | None
    input_options: dict[str, str] | None
    interlaced: str
    size_change: SizeChange | None
    tracks: str | None
    max_pixels: int | None


class SinkKeywords(ThreadKeywords, total=False):
    """Keywords of :class:`SinkOptions`."""

    overwrite: bool
    codec: str | None
    crf: float | None
    quality: int | None
    preset: str | None
    pix_fmt: str | None
    audio: str
    format: str | None
    tee: Sequence[PathLike]
    faststart: bool | None
    grow: bool


class FileKeywords(DenoiseKeywords, SourceKeywords, SinkKeywords, total=False):
    """Keywords of :class:`FileOptions`."""

    noise_from: SpanLike | None
    resume: bool
    segment_seconds: Seconds
    jobs: int | None
    cluster: str | None
    max_latency: float
