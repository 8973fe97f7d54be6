"""Components of a frame, as the kernels for planes take them."""

from __future__ import annotations

import torch
from torch import Tensor

from vidnoise.color import component
from vidnoise.errors import FormatError
from vidnoise.frame import Frame

NAMES = {"yuv": "yuv", "rgb": "rgb", "gray": "yyy"}
"""Three components by family; the kernels take the first one only of gray pictures."""


def components(frame: Frame, planes: tuple[Tensor, ...] | None = None) -> list[Tensor]:
    """Return views ``(H, W)`` of the three components in a frame's planes, or in others of the same layout."""
    return [component(planes or frame.planes, frame.format, name) for name in NAMES[frame.format.family]]


def targets(frame: Frame) -> tuple[Tensor, ...]:
    """Return memory for the planes of a frame with other values of its components; all else it holds is copied."""
    names = set(NAMES[frame.format.family])
    return tuple(
        torch.empty_like(plane, memory_format=torch.contiguous_format)
        if set(parts) <= names
        else plane.clone(memory_format=torch.contiguous_format)
        if set(parts) & names
        else plane
        for plane, parts in zip(frame.planes, frame.format.layout, strict=True)
    )


def check_covers(frame: Frame, **pictures: Tensor | None) -> None:
    """Check that pictures ``(1, 3, H, W)`` are at least as large as a frame.

    Raises:
        FormatError: One is smaller.
    """
    for name, image in pictures.items():
        if image is not None and (image.shape[2] < frame.height or image.shape[3] < frame.width):
            raise FormatError(f"{name} is {tuple(image.shape)}, smaller than the frame of {frame.width}x{frame.height}")
