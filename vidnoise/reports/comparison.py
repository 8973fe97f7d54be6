"""Comparison of two versions of a video: a combined video, a contact sheet, and figures against a reference."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vidnoise.color import to_rgb
from vidnoise.color.colorimetry import luma_weights
from vidnoise.errors import FormatError, UsageError
from vidnoise.evaluation import vmaf as vmaf_metric
from vidnoise.evaluation.metrics import psnr, ssim, temporal_error
from vidnoise.frame import Frame
from vidnoise.pictures import Order, PictureAdapter, is_one_picture
from vidnoise.pipeline.meter import PROGRESS_SECONDS
from vidnoise.pipeline.stats import Progress
from vidnoise.reports.contact_sheet import Column, Moment, check_sheet_path, write_sheet
from vidnoise.session.split import in_format_of, side_by_side, split
from vidnoise.sinks import Sink, check_places, open_sink
from vidnoise.sources import Source, open_source

logger = logging.getLogger(__name__)

MODES = ("side", "split", "wipe")
"""Both pictures side by side; left half and right half; a moving divider."""

WIPE_SECONDS = 4.0
"""Period of the moving divider."""

MOMENTS = (1 / 6, 1 / 2, 5 / 6)
"""Positions of the frames on the contact sheet, as fractions of the length."""

UNKNOWN_LENGTH = 75
"""Number of frames assumed for a video of unknown length."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Similarity of a version to the reference."""

    psnr: float
    """PSNR in dB on R'G'B', mean over frames."""
    ssim: float | None
    """SSIM, mean over frames; None for pictures smaller than its window of 11 pixels."""
    flicker: float
    """Mean error of the change from frame to frame, in 8-bit units."""
    vmaf: float | None
    """VMAF from 0 to 100, mean over frames; None if it was not measured."""


@dataclass(frozen=True, slots=True)
class Comparison(Quality):
    """Similarity of one version of a video or picture to another, as measured by :func:`compare`."""

    frames: int
    """Number of frames compared."""

    def __str__(self) -> str:
        return f"{_frames_text(self.frames)}  {quality_text(self)}"


@dataclass(frozen=True, slots=True)
class FileComparison:
    """Result of :func:`compare_files`."""

    frames: int
    quality: dict[str, Quality] = field(default_factory=dict)
    """Quality by version, ``a`` and ``b``; empty without a reference."""
    written: tuple[str, ...] = ()
    vmaf_missing: str | None = None
    """Why VMAF could not be measured, in a few words; None if it was, or was not wanted."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return asdict(self)


def compare_files(
    a: str,
    b: str,
    *,
    output: str | None = None,
    sheet: str | None = None,
    reference: str | None = None,
    mode: str = "side",
    labels: Sequence[str] = ("A", "B"),
    start: float | None = None,
    duration: float | None = None,
    vmaf: bool | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **encoding: Any,
) -> FileComparison:
    """Compare two versions of a video frame by frame, in constant memory.

    Args:
        a: Path or URL of a video, which is shown on the left, and whose audio is kept.
        b: Path or URL of a video of the same size.
        output: Video of both versions to write, in the format of ``a``.
        sheet: PNG to write, with three moments of the video, whole and enlarged.
        reference: The clean original, for PSNR, SSIM, flicker and VMAF.
        mode: One of :data:`MODES`.
        labels: Names of the versions on the sheet.
        start: Beginning of the time range to compare, in seconds.
        duration: Length of the time range, in seconds.
        vmaf: Whether to measure VMAF against the reference; None for where an ffmpeg with the filter libvmaf is found.
        overwrite: Whether ``output`` and ``sheet`` may exist.
        progress: Called about ten times a second.
        encoding: ``codec``, ``crf``, ``preset``, ``pix_fmt`` as for :func:`open_sink`.

    Raises:
        UsageError: There is nothing to do, the mode is unknown, or VMAF was asked for and cannot be measured.
        SourceError, SinkError, FormatError: As for :func:`denoise_file`; different sizes are a FormatError.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}; use {', '.join(MODES)}")
    if output is None and sheet is None and reference is None:
        raise UsageError("nothing to do: give an output video, a contact sheet or a reference")
    if vmaf and reference is None:
        raise UsageError("VMAF is measured against a reference: give one")
    with contextlib.ExitStack() as stack:
        if sheet is not None:
            check_sheet_path(sheet, overwrite=overwrite)
        sink = None if output is None else open_sink(output, overwrite=overwrite, **encoding)
        paths = [a, b] if reference is None else [a, b, reference]
        check_places([] if output is None else [output], reads=paths, writes=[] if sheet is None else [sheet])
        sources = [open_source(path, start=start, duration=duration) for path in paths]
        for source in sources:
            stack.callback(source.close)
        _check_alike(paths, sources)
        run = _Run(sources, sink, mode, sheet is not None)
        vmaf_missing = None if reference is None or vmaf is False else run.start_vmaf(stack)
        if vmaf and vmaf_missing is not None:
            raise UsageError(f"VMAF cannot be measured: {vmaf_missing}")
        try:
            begin = reported = time.perf_counter()
            for n in run.frames(paths):
                now = time.perf_counter()
                if progress is not None and now - reported >= PROGRESS_SECONDS:
                    reported = now
                    progress(Progress(n, run.total, now - begin, n / (now - begin), None))
            quality = run.quality()
            if sheet is not None:
                write_sheet(
                    sheet, run.columns(labels, [*quality.values()]), sources[0].info.rotation, overwrite=overwrite
                )
            if sink is not None:
                sink.close(sources[0].trailing_packets)
        except BaseException:
            if sink is not None:
                sink.abort()
            raise
    written = tuple(path for path in (output, sheet) if path is not None)
    return FileComparison(run.n, quality, written, vmaf_missing)


def compare(a: Any, b: Any, *, order: Order = "rgb", vmaf: bool = False) -> Comparison:
    """Measure how close ``a`` is to ``b``, the reference, as ``vidnoise compare`` does: PSNR, SSIM, flicker and VMAF.

    If one of them has more frames, the rest is not compared, and a warning is logged.

    Args:
        a: The path or URL of a video, one picture, or an iterable of pictures of any kind that
            :func:`vidnoise.denoise` takes.
        b: The same of the reference.
        order: Order of the channels of arrays and tensors, ``"rgb"`` or ``"bgr"``.
        vmaf: Whether to measure VMAF, too. This runs an ffmpeg program that has the filter libvmaf: the one on PATH,
            or else that of the package imageio-ffmpeg (``pip install 'vidnoise[vmaf]'``).

    Raises:
        UsageError: VMAF was asked for, and there is no such program.
        FormatError: The pictures differ in size, are of an unsupported kind or too small for VMAF, or there are none.
        SourceError: A video cannot be read.

    >>> import numpy as np, vidnoise
    >>> clean = np.full((48, 64, 3), 128, np.uint8)
    >>> noisy = [clean + np.random.default_rng(i).integers(-9, 10, clean.shape).astype(np.uint8) for i in range(3)]
    >>> comparison = vidnoise.compare(noisy, [clean] * 3)
    >>> comparison.frames, round(comparison.psnr), comparison.ssim < 1, round(comparison.flicker, 1)
    (3, 33, True, 6.3)
    """
    if vmaf:
        vmaf_metric.check_available()
    meter = _Meter()
    with contextlib.ExitStack() as stack:
        versions = [stack.enter_context(_frames_of(version, order)) for version in (a, b)]
        for one, other in itertools.zip_longest(*versions):
            if one is None or other is None:
                short = "a" if one is None else "b"
                logger.warning("%s ended after %d frames; the rest was not compared", short, meter.n)
                break
            if (one.height, one.width) != (other.height, other.width):
                raise FormatError(
                    f"a is {_shape(one.width, one.height, 0)}, but b is {_shape(other.width, other.height, 0)}; only "
                    "pictures of one size can be compared"
                )
            if vmaf and meter.n == 0:
                weights = luma_weights(other.color, other.format, other.height, other.width)
                meter.vmaf = stack.enter_context(vmaf_metric.Vmaf(other.height, other.width, weights))
            meter.add(*(to_rgb(frame).cpu() for frame in (one, other)))
        if not meter.n:
            raise FormatError("there is no frame to compare")
        quality = meter.quality()
    return Comparison(quality.psnr, quality.ssim, quality.flicker, quality.vmaf, meter.n)


@contextlib.contextmanager
def _frames_of(version: Any, order: Order) -> Iterator[Iterator[Frame]]:
    """Yield the frames of a version, one by one."""
    if isinstance(version, (str, os.PathLike)):
        with open_source(version) as source:
            yield iter(source)
        return
    adapter = PictureAdapter(order)
    yield (adapter.frame(picture)[0] for picture in ([version] if is_one_picture(version) else version))


def _check_alike(paths: Sequence[str], sources: Sequence[Source]) -> None:
    first = sources[0].info
    for path, source in zip(paths[1:], sources[1:], strict=True):
        info = source.info
        if (info.width, info.height, info.rotation) != (first.width, first.height, first.rotation):
            raise FormatError(
                f"{path} is {_shape(info.width, info.height, info.rotation)}, but {paths[0]} is "
                f"{_shape(first.width, first.height, first.rotation)}; only pictures of one size can be compared"
            )


def _shape(width: int, height: int, rotation: int) -> str:
    return f"{width}x{height}" + (f" rotated by {rotation} degrees" if rotation else "")


class _Meter:
    """Measures the similarity of a version to the reference, frame by frame.

    Pictures are ``(1, 3, H, W)``, clamped to [0, 1] here, except for VMAF, which gets luma as it is stored.
    """

    def __init__(self) -> None:
        self.n = 0
        self.vmaf: vmaf_metric.Vmaf | None = None
        self._psnr = self._ssim = self._flicker = 0.0
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, version: Tensor, reference: Tensor) -> None:
        if self.vmaf is not None:
            self.vmaf.add(version[0], reference[0])
        version, reference = version.clamp(0, 1), reference.clamp(0, 1)
        self._psnr += float(psnr(version, reference))
        self._ssim += float(ssim(version, reference)) if min(version.shape[-2:]) >= 11 else math.nan
        if self._last is not None:
            past, before = self._last
            self._flicker += temporal_error(torch.cat([past, version]), torch.cat([before, reference]))
        self._last = version, reference
        self.n += 1

    def quality(self) -> Quality:
        mean_ssim = None if math.isnan(self._ssim) else self._ssim / self.n
        vmaf = None if self.vmaf is None else self.vmaf.score()
        return Quality(self._psnr / self.n, mean_ssim, self._flicker / max(1, self.n - 1), vmaf)


class _Run:
    """One pass over all versions."""

    def __init__(self, sources: Sequence[Source], sink: Sink | None, mode: str, wants_moments: bool) -> None:
        self._sources = sources
        self._sink = sink
        self._mode = mode
        info = sources[0].info
        self._rotation = info.rotation
        self.total = info.estimated_frames
        self._wanted = {int(share * (self.total or UNKNOWN_LENGTH)) for share in MOMENTS} if wants_moments else set()
        self._moments: list[list[Tensor]] = []
        self._row: list[Frame] = []
        self._meters = [_Meter() for _ in range(2)]
        self._first_seconds: float | None = None
        self.n = 0

    def start_vmaf(self, stack: contextlib.ExitStack) -> str | None:
        """Let both versions' VMAF be measured until the stack is closed; returns why that is impossible, or None."""
        info = self._sources[-1].info
        if reason := vmaf_metric.missing() or vmaf_metric.too_small(info.height, info.width):
            return reason
        weights = luma_weights(info.color, info.format, info.height, info.width)
        for meter in self._meters:
            meter.vmaf = stack.enter_context(vmaf_metric.Vmaf(info.height, info.width, weights))
        return None

    def frames(self, paths: Sequence[str]) -> Iterator[int]:
        """Compare frame by frame; yields the number of frames done."""
        for row in itertools.zip_longest(*self._sources):
            if None in row:
                short = [path for path, frame in zip(paths, row, strict=True) if frame is None]
                logger.warning("%s ended after %d frames; the rest was not compared", " and ".join(short), self.n)
                break
            self._compare(list(row))
            self.n += 1
            yield self.n
        if self._wanted and not self._moments:  # much shorter than its header says
            self._moments.append(_as_rgb(self._row))

    def _compare(self, row: list[Frame]) -> None:
        if self._sink is not None:
            both = self._joined(*row[:2])
            if self.n == 0:
                info = self._sources[0].info
                self._sink.open(replace(info, width=both.width, height=both.height))
            self._sink.write(both)
        if len(row) == 3:
            *versions, reference = (to_rgb(frame) for frame in row)
            for meter, version in zip(self._meters, versions, strict=True):
                meter.add(version, reference)
        if self.n in self._wanted:
            self._moments.append(_as_rgb(row))
        self._row = row

    def _joined(self, a: Frame, b: Frame) -> Frame:
        if self._mode == "side":
            return side_by_side(a, b, rotation=self._rotation)
        share = 0.5
        if self._mode == "wipe":
            share = self._divider_position(a)
        return split(a, in_format_of(b, a), rotation=self._rotation, share=share)

    def _divider_position(self, frame: Frame) -> float:
        rate = self._sources[0].info.rate
        seconds = self.n / float(rate or 25) if frame.seconds is None else float(frame.seconds)
        self._first_seconds = seconds if self._first_seconds is None else self._first_seconds
        phase = (seconds - self._first_seconds) / WIPE_SECONDS % 1
        return 0.05 + 0.9 * (1 - abs(2 * phase - 1))

    def quality(self) -> dict[str, Quality]:
        if len(self._sources) < 3 or not self.n:
            return {}
        return {name: meter.quality() for name, meter in zip("ab", self._meters, strict=True)}

    def columns(self, labels: Sequence[str], quality: Sequence[Quality]) -> list[Column]:
        """Return the columns of the contact sheet: one for each version, and one for the reference."""
        names = [*labels, "reference"][: len(self._sources)]
        columns = []
        for i, name in enumerate(names):
            moments = [Moment(seen[i][0], self._figures(seen, i)) for seen in self._moments]
            mean = quality_text(quality[i]) if i < len(quality) else ""
            columns.append(Column(name, mean, moments))
        return columns

    @staticmethod
    def _figures(seen: list[Tensor], i: int) -> str:
        if len(seen) < 3 or i > 1:
            return ""
        return f"{float(psnr(seen[i], seen[2])):.2f} dB"


def _as_rgb(row: Sequence[Frame]) -> list[Tensor]:
    return [to_rgb(frame).clamp(0, 1) for frame in row]


def _frames_text(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def quality_text(quality: Quality) -> str:
    """Format the figures on one line."""
    similarity = "" if quality.ssim is None else f"  SSIM {quality.ssim:.4f}"
    vmaf = "" if quality.vmaf is None else f"  VMAF {quality.vmaf:.2f}"
    return f"PSNR {quality.psnr:.2f} dB{similarity}  flicker {quality.flicker:.2f}{vmaf}"


def default_label(path: str) -> str:
    """Return the default label of a version: the name of its file."""
    return os.path.basename(path) or path
