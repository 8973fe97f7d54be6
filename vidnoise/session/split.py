"""Two pictures in one, split by a divider or side by side. Samples are moved, never converted.

Left and right are those of the displayed picture: a video with rotation is cut along the other axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vidnoise.color import apply_correction, gray_codes, to_rgb
from vidnoise.errors import FormatError
from vidnoise.frame import Frame, PixelFormat
from vidnoise.pictures import Order, Picture, PictureAdapter

WHITE = 1.0
"""Luma of the divider."""


def in_format_of(frame: Frame, like: Frame) -> Frame:
    """Convert ``frame`` to the pixel format, depth and colour space of ``like``, if they differ.

    Raises:
        FormatError: The pictures differ in size.
    """
    if (frame.height, frame.width) != (like.height, like.width):
        raise FormatError(
            f"the pictures differ in size: {like.width}x{like.height} and {frame.width}x{frame.height}; scale one first"
        )
    if frame.format == like.format and frame.color == like.color:
        return frame
    return apply_correction(like, to_rgb(frame) - to_rgb(like))


def split(left: Frame, right: Frame, *, rotation: int = 0, share: float = 0.5) -> Frame:
    """Combine two pictures: the left ``share`` from ``left``, a thin divider, and the rest from ``right``.

    Args:
        left: Frame whose left part is shown.
        right: Frame of the same size and format, whose right part is shown.
        rotation: Rotation of the video for display in degrees (:attr:`StreamInfo.rotation`).
        share: Position of the divider, 0 to 1; at 0 all is ``right``, at 1 all is ``left``.

    Returns:
        ``right`` with new planes; the samples of both pictures are unchanged beside the divider.
    """
    axis, is_reversed = _axis(rotation)
    format = left.format
    length = left.planes[0].shape[axis]
    step = _step(format, axis)
    share = min(max(1 - share if is_reversed else share, 0.0), 1.0)
    cut = length if share == 1 else min(round(share * length / step) * step, length)
    thickness = divider_width(length, step)
    begin = max(0, cut - thickness // (2 * step) * step)
    end = min(begin + thickness, length)
    has_divider = 0 < cut < length
    first, second = (right, left) if is_reversed else (left, right)
    planes = []
    for i, plane in enumerate(second.planes):
        n, start, stop = (format.plane_shape(i, at, at)[axis] for at in (cut, begin, end))
        out = plane.clone(memory_format=torch.contiguous_format)
        out.narrow(axis, 0, n).copy_(first.planes[i].narrow(axis, 0, n))
        if has_divider:
            _paint(out.narrow(axis, start, stop - start), left, i)
        planes.append(out)
    return replace(right, planes=tuple(planes))


def side_by_side(left: Picture, right: Picture, *, order: Order = "rgb", rotation: int = 0) -> Picture:
    """Combine two whole pictures side by side, with a thin divider in between.

    Args:
        left: Picture of any kind that :func:`vidnoise.denoise` takes.
        right: Picture of the same size, of any such kind.
        order: Order of the channels of arrays and tensors, ``"rgb"`` or ``"bgr"``.
        rotation: Rotation of the video for display in degrees (:attr:`StreamInfo.rotation`).

    Returns:
        A picture like ``left``, in its format, a little more than twice as wide (or high).

    Raises:
        FormatError: The pictures differ in size, or are of an unsupported kind.

    >>> import numpy as np, vidnoise
    >>> noisy, clean = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64, 3), np.uint8)
    >>> vidnoise.side_by_side(noisy, clean).shape
    (48, 130, 3)
    """
    adapter = PictureAdapter(order)
    first, to_picture = adapter.frame(left)
    second, _ = adapter.frame(right)
    return to_picture(_joined(first, in_format_of(second.to(first.planes[0].device), first), rotation))


def _joined(left: Frame, right: Frame, rotation: int) -> Frame:
    axis, is_reversed = _axis(rotation)
    format = left.format
    step = _step(format, axis)
    length = left.planes[0].shape[axis]
    padded = -(-length // step) * step
    thickness = divider_width(length, step)
    first, second = (right, left) if is_reversed else (left, right)
    planes = []
    for i, (a, b) in enumerate(zip(first.planes, second.planes, strict=True)):
        whole, between = (format.plane_shape(i, n, n)[axis] for n in (padded, thickness))
        missing = whole - a.shape[axis]
        shape = list(a.shape)
        shape[axis] = between
        bar = a.new_empty(shape)
        _paint(bar, left, i)
        planes.append(torch.cat([_extended(a, axis, missing), bar, _extended(b, axis, missing)], axis))
    return replace(left, planes=tuple(planes))


def divider_width(length: int, step: int = 1) -> int:
    """Return the width of the divider in pixels: 2 for small pictures, more for large ones; a multiple of ``step``."""
    return max(step, 2) * max(1, round(length / 960))


def _axis(rotation: int) -> tuple[int, bool]:
    """Return the stored picture's axis that is horizontal on display, and whether right comes first on it.

    FFmpeg's rotations are counter-clockwise: at 90 degrees, the top row is displayed at the left.
    """
    return {0: (1, False), 90: (0, False), 180: (1, True), 270: (0, True)}.get(rotation % 360, (1, False))


def _step(format: PixelFormat, axis: int) -> int:
    return 1 << (format.log2_chroma_h if axis == 0 else format.log2_chroma_w)


def _extended(plane: Tensor, axis: int, count: int) -> Tensor:
    """Extend a plane by repeating its last row or column."""
    if not count:
        return plane
    return torch.cat([plane, *[plane.narrow(axis, plane.shape[axis] - 1, 1)] * count], axis)


def _paint(part: Tensor, frame: Frame, plane: int) -> None:
    codes = gray_codes(frame, WHITE)
    components: Sequence[str] = frame.format.layout[plane]
    for j, name in enumerate(components):
        target = part if len(components) == 1 else part[..., j]
        top = 1.0 if frame.format.is_float else float((1 << (frame.format.bit_depth + frame.format.msb_shift)) - 1)
        value = codes.get(name, top)  # alpha: opaque
        target.copy_(torch.full(target.shape, value).to(target.dtype))
