"""Motion: optical flow from the current noisy frame to the previous clean one, and warping by it.

Coarse to fine with a warped local cost volume at each level, as in PWC-Net (Sun et al.,
arXiv:1709.02371), with one small network shared by all levels, and a refinement at half resolution
so that motion borders are sharper than the quarter-resolution grid.

Note [Flow convention]. A flow is ``(N, 2, h, w)``, in pixels of its own resolution, channel 0 = x.
``flow[:, :, i, j]`` says how far from ``(i, j)`` to sample in the *previous* frame. Pixel centres
are integers (``align_corners=False`` after normalising); :func:`warp` is the only place that knows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dncnn import conv3


class Motion(NamedTuple):
    """Flow by stages; only the last one moves pictures."""

    coarse: tuple[Tensor, ...]
    """``(N, 2, h/8, w/8)``, ... ``(N, 2, h/2, w/2)``: level by level, before refinement."""
    refined: Tensor
    """``(N, 2, h, w)``: what the network found."""
    flow: Tensor
    """``(N, 2, h, w)``: the same, zero where it explains the frame no better than standing still."""


def sampling_grid(flow: Tensor) -> Tensor:
    """Normalised coordinates ``(N, h, w, 2)`` for ``grid_sample`` (Note [Flow convention])."""
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
    """``(N, 1, h, w)`` float mask, 1 where :func:`warp` samples beyond the frame."""
    return (grid.abs().amax(dim=-1, keepdim=True) > 1).permute(0, 3, 1, 2).float()


def resize_flow(flow: Tensor, scale: float) -> Tensor:
    """Resample a flow to ``scale`` times its resolution, its vectors scaled alike."""
    if scale < 1:
        return F.avg_pool2d(flow, round(1 / scale)) * scale
    return F.interpolate(flow, scale_factor=scale, mode="bilinear", align_corners=False) * scale


def cost_volume(current: Tensor, previous: Tensor, radius: int) -> Tensor:
    """Mean product of features over all displacements up to ``radius``: ``(N, (2r+1)², h, w)``."""
    h, w = current.shape[-2:]
    padded = F.pad(previous, [radius] * 4)  # beyond the frame nothing matches
    size = 2 * radius + 1
    costs = [(current * padded[..., i : i + h, j : j + w]).mean(1) for i in range(size) for j in range(size)]
    return torch.stack(costs, dim=1)


STILL_MARGIN, STILL_SOFTNESS = 0.06, 0.04
"""Of :func:`moving`, in units of the noise variance; chosen on the validation clips."""


@torch.no_grad()
def moving(noisy: Tensor, still: Tensor, aligned: Tensor, sigma: Tensor) -> Tensor:
    """How surely the flow explains the frame better than no motion does: ``(N, 1, h, w)`` in [0, 1].

    A network's flow is never exactly zero. Where nothing moves its jitter would blur, frame after frame, what
    the recurrence could keep for ever; so motion must prove itself over a 9×9 neighbourhood. It is a decision,
    not a path for gradients, which would grow with 1/sigma².

    Args:
        noisy: ``(N, 3, h, w)`` current frame at 1/2 resolution.
        still, aligned: the previous clean frame, as it was and warped.
        sigma: ``(N, 1, h, w)`` noise level at full resolution (half of it remains at 1/2).
    """
    gain = ((noisy - still).square() - (noisy - aligned).square()).mean(1, keepdim=True) / (0.5 * sigma).square()
    gain = F.avg_pool2d(gain, 9, stride=1, padding=4, count_include_pad=False)
    return torch.sigmoid((gain - STILL_MARGIN) / STILL_SOFTNESS)


class FlowEstimator(nn.Module):
    """Flow at 1/2 resolution from noisy current and clean previous pictures."""

    def __init__(self, features: int, width: int, radius: int, refine_width: int, levels: int = 3) -> None:
        super().__init__()
        self.radius = radius
        self.levels = levels
        self.encoder = nn.Sequential(conv3(4, 16), nn.ReLU(), conv3(16, features))
        self.step = nn.Sequential(
            conv3((2 * radius + 1) ** 2 + features + 2, width), nn.ReLU(),
            conv3(width, width), nn.ReLU(), conv3(width, 2, gain=0.1),
        )  # fmt: skip
        self.refine = nn.Sequential(
            conv3(9, refine_width), nn.ReLU(), conv3(refine_width, refine_width), nn.ReLU(),
            conv3(refine_width, 2, gain=0.1),
        )  # fmt: skip

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor) -> Motion:
        """Estimate the flow.

        Args:
            noisy: ``(N, 3, h, w)``, the current frame at 1/2 resolution.
            previous: the previous clean frame, likewise.
            sigma: ``(N, 1, h, w)``, mean noise level.
        """
        quarter_sigma = F.avg_pool2d(sigma, 2)
        quarters = (F.avg_pool2d(noisy, 2), F.avg_pool2d(previous, 2))
        # The previous frame is clean already, so its encoder input says: no noise.
        current, past = (
            self.encoder(torch.cat([q, s], 1))
            for q, s in zip(quarters, (quarter_sigma, torch.zeros_like(quarter_sigma)), strict=True)
        )
        pyramid = [(current, past)]
        for _ in range(self.levels - 1):
            pyramid.append(tuple(F.avg_pool2d(p, 2) for p in pyramid[-1]))  # type: ignore[arg-type]
        n, _, h, w = pyramid[-1][0].shape
        flow = torch.zeros(n, 2, h, w, device=noisy.device)
        flows = []
        for level, (current, past) in enumerate(reversed(pyramid)):
            if level:
                flow = resize_flow(flow, 2)
                past = warp(past, sampling_grid(flow))
            current, past = (F.normalize(p.float(), dim=1) * p.shape[1] ** 0.5 for p in (current, past))
            costs = cost_volume(current, past, self.radius)
            flow = flow + self.step(torch.cat([costs, current, flow], 1)).float()
            flows.append(flow)
        half = resize_flow(flow, 2)
        aligned = warp(previous, sampling_grid(half))
        half = half + self.refine(torch.cat([noisy, aligned, half * 0.1, sigma], 1)).float()
        aligned = warp(previous, sampling_grid(half))
        return Motion(tuple(flows), half, half * moving(noisy.float(), previous, aligned, sigma))
