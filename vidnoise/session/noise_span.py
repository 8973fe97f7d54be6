"""A noise profile from part of a video, which is read before the video is denoised."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vidnoise.errors import UsageError
from vidnoise.frame import Frame, StreamInfo
from vidnoise.frame.clock import parse_clock
from vidnoise.kernels.conversion import to_network
from vidnoise.model.network import MULTIPLE
from vidnoise.notices import silent
from vidnoise.session.fields import fields
from vidnoise.session.noise_profile import ROUNDING, NoiseProfile, picture_variance, region_variance, warn_unless_flat
from vidnoise.session.noise_region import Region
from vidnoise.session.sample_noise import sample_noise
from vidnoise.sources import make_source, source_kind
from vidnoise.text import shown

if TYPE_CHECKING:
    from vidnoise.options import SourceOptions, SpanLike


def parse_span(span: SpanLike) -> tuple[float, float]:
    """Read a part of the video: ``"0-2"``, ``"1:03-1:05"``, or (begin, end) in seconds.

    Raises:
        UsageError: It cannot be read, or ends before it begins.
    """
    if isinstance(span, str):
        match = re.fullmatch(r"\s*([\d:.]+)\s*-\s*([\d:.]+)\s*", span)
        begin, end = (parse_clock(match[1]), parse_clock(match[2])) if match else (None, None)
    else:
        try:
            begin, end = map(float, span)
        except (TypeError, ValueError):
            begin = end = None
    if begin is None or end is None:
        raise UsageError(f"noise_from must be START-END, as in 0-2 or 1:03-1:05, got {span!r}", "noise_from")
    if not 0 <= begin < end < float("inf"):
        raise UsageError(f"noise_from {begin:g}-{end:g} ends before it begins, or begins before 0", "noise_from")
    return begin, end


def measure_span(
    src: str | os.PathLike[str],
    span: tuple[float, float],
    region: Region | None,
    options: SourceOptions,
    info: StreamInfo,
    should_stop: Callable[[], bool] | None = None,
) -> NoiseProfile | None:
    """Measure the noise in a part of an input, which is opened once more.

    Args:
        src: The input.
        span: Begin and end of the part in seconds.
        region: Where to measure; None for the flattest parts of the picture.
        options: Options of the input, whose own ``start`` and ``duration`` do not matter.
        info: Description of the input.
        should_stop: Called before each frame; when it returns True, the part ends there.

    Returns:
        The profile; None if it was stopped before the first frame.

    Raises:
        UsageError: The input can be read only once, the part or the region is outside of it, or holds no noise.
    """
    path = os.fspath(src).removeprefix("file:")
    kind = source_kind(path)
    if info.is_live or kind in ("pipe", "url", "device") or (kind == "file" and not os.path.isfile(path)):
        raise UsageError(
            f"{shown(path)}: noise_from needs a file, as that part is read first; noise_region goes with every input",
            "noise_from", "noise_region",
        )  # fmt: skip
    if info.is_still:
        raise UsageError(
            f"{shown(path)}: is one picture, so noise_from has no time to measure at; noise_region does without",
            "noise_from", "noise_region",
        )  # fmt: skip
    begin, end = span
    outside = UsageError(f"noise_from {begin:g}-{end:g} is outside of {shown(path)}", "noise_from")
    is_stopped = should_stop or bool
    try:
        source = make_source(src, replace(options, start=begin, duration=end - begin), notify=silent)
    except UsageError as ex:
        if "start" in ex.options:
            raise outside from ex
        raise
    with contextlib.closing(source):
        profile = measure_frames(itertools.takewhile(lambda _: not is_stopped(), source), region, info.rotation)
    if profile is None and not is_stopped():
        raise outside
    return profile


def measure_frames(frames: Iterable[Frame], region: Region | None, rotation: int) -> NoiseProfile | None:
    """Measure the noise of several frames, of interlaced ones by field; the median over the pictures counts.

    Args:
        frames: The frames, all of one format.
        region: Where to measure; None for the flattest parts of the whole picture.
        rotation: Rotation of the video for display, in degrees.

    Returns:
        The profile, or None if there is no frame.

    Raises:
        UsageError: The region reaches outside of the picture, or nothing but exactly flat parts was found.
    """
    found: list[Tensor] = []
    n_frames, gains = 0, (0.0,) * 6
    for frame in frames:
        n_frames += 1
        gains = sample_noise(frame)
        for picture in fields(frame) if frame.interlaced else (frame,):
            noisy = to_network(picture, MULTIPLE)[..., : picture.height, : picture.width]
            if region is None:
                variance = picture_variance(noisy)
            else:
                variance = region_variance(noisy, region, rotation)
                if not found:
                    warn_unless_flat(region, variance, noisy)
            if variance is not None and bool((variance > ROUNDING).any()):
                found.append(variance.cpu())
    if not n_frames:
        return None
    if not found:
        raise UsageError("the picture is exactly flat where the noise was to be measured: it holds no noise there")
    variance = torch.cat(found).quantile(0.5, 0)
    luma, first, second = (_in_samples(variance, gains, channel) for channel in range(3))
    return NoiseProfile(variance.sqrt()[None], luma, ((first**2 + second**2) / 2) ** 0.5, n_frames)


def _in_samples(variance: Tensor, gains: tuple[float, ...], channel: int) -> float:
    """Return the standard deviation of white noise in the stored samples with the same energy, in 8-bit units."""
    # The low-pass band holds a quarter of a pixel's variance, the three detail bands the rest.
    low, detail = variance[channel], variance[channel + 3]
    unit = gains[channel] ** 2 + 3 * gains[channel + 3] ** 2
    return float(low + 3 * detail) ** 0.5 / unit**0.5 if unit else 0.0
