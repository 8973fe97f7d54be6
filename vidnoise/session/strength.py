"""The strength of denoising by frame and by pixel, from zones and a mask.

Nothing else decides on the strength; :class:`vidnoise.Denoiser` asks once per frame.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.color import to_rgb
from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import Frame
from vidnoise.frame.clock import parse_clock
from vidnoise.option_values import MAX_STRENGTH
from vidnoise.sources import Source, open_source
from vidnoise.text import shown

if TYPE_CHECKING:
    import numpy as np

    from vidnoise.option_values import MaskLike, ZonesLike

logger = logging.getLogger(__name__)

TOLERANCE_SECONDS = Fraction(2, 1000)
"""Tolerance between the times of matching frames: some containers round to milliseconds."""

MAX_STRETCH = 1.01
"""Maximum ratio between the aspect ratios of mask and video for the mask to be scaled."""


class Amount(NamedTuple):
    """The strength of denoising for one frame."""

    strength: float
    """Strength for the whole frame, 0 to 2."""
    map: Tensor | None
    """Share of the correction for each pixel, ``(H, W)`` in [0, 1]; None for all of it."""


class Strength:
    """The strength of each frame of one stream, in order.

    Args:
        strength: Strength outside of zones, 0 to 2.
        zones: ``"0-10:0.5,60-:0"``, or (begin, end, strength) each: the strength within a range of seconds, end
            exclusive, from the beginning of the video.
        mask: Where to denoise, from black (not at all) to white (fully): the path of a picture, or of a video read in
            step with the frames, or an ``(H, W)`` array or tensor, uint8 or float in [0, 1]. Its orientation is that of
            the displayed video.
        rotation: Rotation of the video for display, in degrees.
        begin_seconds: Position of the first frame in the video, in seconds.
        first_time: Timestamp of the video's first frame in seconds, if the first frame given is a later one.

    Raises:
        UsageError: Zones overlap or are invalid.
        SourceError, FormatError: The mask cannot be read.
    """

    def __init__(
        self,
        strength: float = 1.0,
        *,
        zones: ZonesLike | None = None,
        mask: MaskLike | None = None,
        rotation: int = 0,
        begin_seconds: float = 0.0,
        first_time: Fraction | None = None,
    ) -> None:
        self.strength = strength
        ordered = parse_zones(zones) if isinstance(zones, str) else _sorted(zones or ())
        self._zones = [(_exact(begin), _exact(end), s) for begin, end, s in ordered]
        self._begin = Fraction(begin_seconds).limit_denominator(1_000_000)
        self._first = first_time
        self._mask = None if mask is None else Mask(mask, rotation=rotation, begin_seconds=begin_seconds)

    def at(self, frame: Frame) -> Amount:
        """Return the strength of the next frame.

        Raises:
            UsageError: There are zones, but the frame has no timestamp.
            FormatError: The aspect ratio of the mask differs from the frame's.
        """
        seconds = self._seconds(frame)
        map = None if self._mask is None else self._mask.at(seconds, frame)
        if self._zones and seconds is None:
            raise UsageError(
                "zones need frames that have times; arrays and tensors have none, so use Frames with pts and time_base",
                "zones",
            )
        strength = self.strength
        if seconds is not None:
            now = seconds + self._begin
            strength = next((s for begin, end, s in self._zones if begin <= now < end), strength)
        return Amount(strength, map)

    def close(self) -> None:
        """Release the mask's file. Idempotent."""
        if self._mask is not None:
            self._mask.close()

    def _seconds(self, frame: Frame) -> Fraction | None:
        """Return the time of a frame since the first one, or None."""
        seconds = frame.seconds
        if seconds is None:
            return None
        if self._first is None:
            self._first = seconds
        return seconds - self._first


def parse_zones(text: str) -> list[tuple[float, float, float]]:
    """Parse zones such as ``"0-10:0.5, 1:30-:0"`` into (begin, end, strength) in seconds, in order.

    Raises:
        UsageError: The text is invalid, zones overlap, or a strength is not between 0 and 2.
    """
    zones = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\d:.]*)\s*-\s*([\d:.]*)\s*:\s*(\d+\.?\d*|\.\d+)\s*", part)
        # The last number is the strength: 0-1:30:0.5 ends at 1:30.
        begin, end = (_clock(match[1], 0.0), _clock(match[2], math.inf)) if match else (None, None)
        if match is None or begin is None or end is None:
            raise UsageError(
                f"zone {part.strip()!r} cannot be read; write BEGIN-END:STRENGTH, as in 0-10:0.5,60-:0", "zones"
            )
        zones.append((begin, end, float(match[3])))
    return _sorted(zones)


def _exact(seconds: float) -> Fraction | float:
    """Return the intended decimal number: the float 0.08 is slightly more, so a frame at 2/25 s would precede it."""
    return seconds if math.isinf(seconds) else Fraction(seconds).limit_denominator(1_000_000)


def _clock(text: str, default: float) -> float | None:
    return parse_clock(text) if text else default


def _sorted(zones: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    ordered = sorted((float(a), float(b), _checked(s)) for a, b, s in zones)
    for begin, end, _ in ordered:
        if not 0 <= begin < end:
            raise UsageError(f"zone {begin:g}-{end:g} ends before it begins, or begins before 0", "zones")
    for (_, end, _), (begin, _, _) in itertools.pairwise(ordered):
        if begin < end:
            raise UsageError(f"zones overlap at {begin:g} s: each moment has one strength", "zones")
    return ordered


def _checked(strength: float) -> float:
    if not 0 <= strength <= MAX_STRENGTH:
        raise UsageError(f"the strength of a zone must be between 0 and {MAX_STRENGTH:g}, got {strength:g}", "zones")
    return float(strength)


class Mask:
    """A mask of the strength: a still picture, an array, or a video read in step with the frames.

    For a video, the picture at the frame's time counts, or the last one after its end; if frames have no timestamps,
    the pictures are used one by one. See :class:`Strength` for the arguments.
    """

    def __init__(self, mask: MaskLike, *, rotation: int = 0, begin_seconds: float = 0.0) -> None:
        self._source: Source | None = None
        self._pictures: Iterator[Frame] = iter(())
        self._next: Frame | None = None
        self._first_seconds: Fraction | None = None
        self._is_warned = False
        self._fitted: Tensor | None = None
        """The current picture scaled to the frames' size; None until needed."""
        if isinstance(mask, (str, os.PathLike)):
            self.name = os.fspath(mask)
            self._rotation = self._open(begin_seconds) - rotation
        else:
            self.name = "the mask"
            self._current = _from_array(mask)
            self._rotation = -rotation

    def _open(self, begin_seconds: float) -> int:
        """Read the first picture; returns the rotation of the mask for display."""
        source = open_source(self.name)
        pictures = iter(source)
        first, second = next(pictures), next(pictures, None)
        if second is not None and begin_seconds:  # for a video, use the part that matches the frames
            source.close()
            source = open_source(self.name, start=begin_seconds)
            pictures = iter(source)
            first, second = next(pictures), next(pictures, None)
        self._source, self._pictures, self._next = source, pictures, second
        self._current = _weights(first)
        self._first_seconds = first.seconds
        if second is None:
            self.close()
        return source.info.rotation

    def at(self, seconds: Fraction | None, frame: Frame) -> Tensor:
        """Return the mask for the next frame, ``(H, W)`` float32 in [0, 1] on its device.

        Args:
            seconds: Time since the first frame, if it has one.
            frame: The frame, for its size and device.
        """
        height, width, device = frame.height, frame.width, frame.planes[0].device
        self._advance(seconds)
        fitted = self._fitted
        if fitted is None or fitted.shape != (height, width) or fitted.device != device:
            self._fitted = fitted = self._fit(height, width).to(device)
        return fitted

    def _advance(self, seconds: Fraction | None) -> None:
        """Advance to the picture that matches the frame."""
        if seconds is None:  # one picture for each frame; the first one is already in place
            if self._fitted is not None and self._next is not None:
                self._use(self._next)
            return
        while self._next is not None and self._is_due(self._next, seconds):
            self._use(self._next)

    def _is_due(self, picture: Frame, seconds: Fraction) -> bool:
        time = picture.seconds
        if time is None or self._first_seconds is None:
            return True
        return time - self._first_seconds <= seconds + TOLERANCE_SECONDS

    def _use(self, picture: Frame) -> None:
        self._current, self._fitted = _weights(picture), None
        self._next = next(self._pictures, None)
        if self._next is None:
            logger.info("%s: the mask has ended; its last picture holds from here on", self.name)
            self.close()

    def _fit(self, height: int, width: int) -> Tensor:
        weights = torch.rot90(self._current, self._rotation // 90 % 4, (0, 1))
        h, w = weights.shape
        if (h, w) == (height, width):
            return weights
        stretch = (w / h) / (width / height)
        if not 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
            raise FormatError(f"{self.name} is {w}x{h}, which are other proportions than the video's {width}x{height}")
        if not self._is_warned:
            self._is_warned = True
            logger.warning("%s is %dx%d and is scaled to the video's %dx%d", self.name, w, h, width, height)
        is_smaller = height < h
        return F.interpolate(
            weights[None, None], size=(height, width), mode="bilinear", align_corners=False, antialias=is_smaller
        )[0, 0].clamp(0, 1)

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._source is not None:
            self._source.close()


def still_mask(path: str | os.PathLike[str]) -> Tensor:
    """Read a mask that is a picture: ``(H, W)`` float32 in [0, 1], as it is displayed.

    Raises:
        UsageError: It is a video.
        SourceError, FormatError: It cannot be read.
    """
    with open_source(path) as source:
        pictures = iter(source)
        first = next(pictures)
        if next(pictures, None) is not None:
            raise UsageError(
                f"{shown(os.fspath(path))}: a mask that is a video is read in step with the frames, by one process: "
                "leave out several devices, jobs and cluster", "mask", "device", "jobs", "cluster",
            )  # fmt: skip
        return torch.rot90(_weights(first), source.info.rotation // 90 % 4, (0, 1)).contiguous()


def _weights(frame: Frame) -> Tensor:
    """Return the mean of red, green and blue, ``(H, W)`` in [0, 1]."""
    return to_rgb(frame)[0].mean(0).clamp(0, 1)


def _from_array(mask: np.ndarray | Tensor) -> Tensor:
    values = mask if isinstance(mask, Tensor) else torch.from_numpy(mask.copy())
    if values.ndim != 2 or values.numel() == 0 or values.dtype not in (torch.uint8, torch.bool, torch.float32):
        raise FormatError(
            f"a mask may be a path, or a (H, W) array of uint8, bool or float32, got {tuple(values.shape)} "
            f"of {values.dtype}"
        )
    weights = values.float() / (255 if values.dtype == torch.uint8 else 1)
    if not bool(((weights >= 0) & (weights <= 1)).all()):
        raise FormatError("a float mask must be between 0 (leave) and 1 (denoise fully)")
    return weights
