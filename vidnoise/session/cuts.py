"""Scene cuts, found cheaply on quarter-resolution frames.

Everything stays in tensors, so that a GPU is never waited for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_CHANGE = 6.0
"""Mean absolute change, in 8-bit units, below which no cut is seen: dissolves and still scenes lie below."""

RISE = 2.2
"""A cut changes the picture this many times as much as the frames before it did: pans do not."""

MAX_CORRELATION = 0.6
"""Frames on both sides of a cut correlate less than this; flashes and fades, which scale a picture, more."""


class CutMemory(NamedTuple):
    """Memory of the past: the last thumbnail and the usual change."""

    thumbnail: Tensor
    """``(1, 1, h, w)``."""
    usual: Tensor
    """Running mean of the change from frame to frame, 8-bit units; negative before it is known."""


def thumbnail(rgb: Tensor) -> Tensor:
    """Gray picture for :func:`detect_cut`: ``(1, 3, H, W)`` to ``(1, 1, about H/16, about W/16)``.

    Made from the 1/4-resolution picture, smoothed further so that noise does not look like change.
    """
    quarter = F.avg_pool2d(rgb, 4, ceil_mode=True).mean(1, keepdim=True)
    return F.avg_pool2d(quarter, min(4, *quarter.shape[-2:]), ceil_mode=True)


def detect_cut(picture: Tensor, memory: CutMemory | None) -> tuple[Tensor, CutMemory]:
    """Say whether a cut lies before this frame.

    Args:
        picture: from :func:`thumbnail`.
        memory: from the frame before; ``None`` at the start of a stream.

    Returns:
        A boolean scalar tensor and the memory for the next frame.
    """
    if memory is None:
        return torch.zeros((), dtype=torch.bool, device=picture.device), CutMemory(picture, picture.new_tensor(-1.0))
    change = (picture - memory.thumbnail).abs().mean() * 255
    a, b = (p - p.mean() for p in (picture, memory.thumbnail))
    correlation = (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt().clamp(min=1e-8)
    first = memory.usual < 0
    cut = (change > MIN_CHANGE) & (correlation < MAX_CORRELATION) & (first | (change > RISE * memory.usual))
    running = torch.where(first, change, 0.8 * memory.usual + 0.2 * change)
    # A jump says little of how the new scene moves; a part of it keeps a wild pan from being cut at every frame.
    usual = torch.where(cut, 0.6 * change, running)
    return cut, CutMemory(picture, usual)
