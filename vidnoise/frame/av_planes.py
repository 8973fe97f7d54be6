"""The memory of an ``av`` picture as tensors, for sources (reading) and sinks (writing). No av here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidnoise.frame.frame import PixelFormat

_DTYPES = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}


def plane_views(picture: Any, format: PixelFormat) -> tuple[Tensor, ...]:
    """Tensors over the memory of ``picture``, row padding skipped; they keep it alive.

    Args:
        picture: An ``av.VideoFrame`` in main memory whose format is ``format``.
        format: Its layout.

    Returns:
        One tensor a plane, ``(H, W)`` or ``(H, W, C)``.
    """
    size = format.bytes_per_sample
    views: list[torch.Tensor] = []
    for i, plane in enumerate(picture.planes[: len(format.layout)]):
        shape = format.plane_shape(i, picture.height, picture.width)
        pitch = abs(plane.line_size) // size
        channels = shape[2] if len(shape) == 3 else 1
        strides = (pitch, channels, 1)[: len(shape)] if len(shape) == 3 else (pitch, 1)
        view = torch.frombuffer(plane, dtype=_DTYPES[size]).as_strided(shape, strides)
        # A negative pitch means that rows lie bottom-up; torch has no negative strides.
        views.append(view.flip(0) if plane.line_size < 0 else view)
    return tuple(views)
