"""Warping by an optical flow.

Note [Flow convention]. A flow is ``(N, 2, h, w)``, in pixels of its own resolution, channel 0 = x.
``flow[:, :, i, j]`` is the offset from ``(i, j)`` at which to sample the *previous* frame. Pixel centres
are integers (``align_corners=False`` after normalising); only :func:`warp` depends on that.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sampling_grid(flow: Tensor) -> Tensor:
    """Return normalised coordinates ``(N, h, w, 2)`` for ``grid_sample`` (Note [Flow convention])."""
    _, _, h, w = flow.shape
    flow = flow.float()
    x = torch.arange(w, device=flow.device, dtype=torch.float32)
    y = torch.arange(h, device=flow.device, dtype=torch.float32).unsqueeze(1)
    return torch.stack([(flow[:, 0] + x) * (2 / w) + (1 / w - 1), (flow[:, 1] + y) * (2 / h) + (1 / h - 1)], dim=-1)


def warp(image: Tensor, grid: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Sample ``image`` ``(N, C, h, w)`` at ``grid`` (from :func:`sampling_grid`); borders are repeated.

    Always in float32: half-precision coordinates cannot address a large frame.
    """
    return F.grid_sample(image.float(), grid, mode=mode, padding_mode="border", align_corners=False)


def outside(grid: Tensor) -> Tensor:
    """Return a float mask ``(N, 1, h, w)``: 1 where :func:`warp` samples outside the frame, else 0."""
    return (grid.abs().amax(dim=-1, keepdim=True) > 1).permute(0, 3, 1, 2).float()


def resize_flow(flow: Tensor, scale: float) -> Tensor:
    """Resample a flow to ``scale`` times its resolution, scaling its vectors accordingly."""
    if scale < 1:
        return F.avg_pool2d(flow, round(1 / scale)) * scale
    return F.interpolate(flow, scale_factor=scale, mode="bilinear", align_corners=False) * scale
