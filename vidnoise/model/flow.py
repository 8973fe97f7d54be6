"""Motion: optical flow from the current noisy frame to the previous clean one, and warping by it.

Pyramidal Lucas-Kanade (Lucas and Kanade, IJCAI 1981; Bouguet, 2000) in closed form: at each pixel the flow that
explains best, by least squares under the known noise, a window around it. No learned parts: a small network that
searched a cost volume was beaten by it by 0.3 to 0.4 dB in what comes out (sigma 30), cost more, and had to be trained.

Note [Flow convention]. A flow is ``(N, 2, h, w)``, in pixels of its own resolution, channel 0 = x.
``flow[:, :, i, j]`` says how far from ``(i, j)`` to sample in the *previous* frame. Pixel centres
are integers (``align_corners=False`` after normalising); :func:`warp` is the only place that knows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Motion(NamedTuple):
    found: Tensor
    """``(N, 2, h, w)``: what the search found."""
    flow: Tensor
    """``(N, 2, h, w)``: the same, zero where it explains the frame no better than standing still."""


class Window(NamedTuple):
    """What shares a flow."""

    pool: int
    """Equations are summed over so many pixels each way, and solved once for them."""
    radius: int
    """And then over windows of (2 radius + 1)² of those, twice."""
    spread: float
    """Standard deviation of flows around their mean in a window, pixels: what is believed without evidence."""
    doubt: float = math.inf
    """A pixel whose difference from the aligned frame is so many times the noise's variance counts half. Not before the
    flow is nearly right: where nothing fits yet, everything is doubtful."""


LEVELS = (
    (Window(4, 1, 0.1, doubt=8.0),) * 2,
    (Window(2, 1, 0.3, doubt=8.0),) * 2,
    (Window(1, 2, 0.5),) * 3,
    (Window(1, 2, 0.5),) * 3,
)
"""Passes at 1/2 resolution, then at 1/4, 1/8 and 1/16, which is searched first. Chosen on the validation clips, where
none of the numbers matters much; smaller windows follow small objects better, but lose 1 dB where the camera pans."""

STRIDE = 2.0
"""Pixels of its level that a pass may change a flow by."""

ROUNDING = 1 / 255
"""Noise that even a clean picture has."""


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


class Averaging:
    """The means and samples that the search spends its time on; a backend may have quicker ones."""

    def mean(self, x: Tensor, size: int) -> Tensor:
        """Of ``(N, C, h, w)`` over ``size`` × ``size`` pixels around each (``size`` is odd); borders are repeated."""
        padded = F.pad(x, [size // 2] * 4, mode="replicate")
        if size > 5:  # by columns and rows, which is quicker then
            return F.avg_pool2d(F.avg_pool2d(padded, (size, 1), stride=1), (1, size), stride=1)
        return F.avg_pool2d(padded, size, stride=1)

    def shrink(self, x: Tensor, factor: int) -> Tensor:
        """Means of squares of ``factor`` × ``factor`` pixels: ``(N, C, h, w)`` to ``(N, C, h/factor, w/factor)``."""
        return F.avg_pool2d(x, factor) if factor > 1 else x

    def follow(self, image: Tensor, flow: Tensor) -> Tensor:
        """``image`` sampled where ``flow`` points to, bilinearly."""
        return warp(image, sampling_grid(flow))


def lucas_kanade(
    noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor, window: Window, averaging: Averaging
) -> Tensor:
    """A better flow: one step of Gauss-Newton, regularised towards the mean flow of each window.

    Each pixel gives a weighted equation, ``g · u = noisy − aligned + g · flow`` with the gradient ``g`` of the aligned
    previous frame, for a flow ``u`` that is the same all over the window. (Solving for the change of the flow instead
    would keep the jitter that the flow has within it.)

    Args:
        noisy, previous: ``(N, 1, h, w)``, gray.
        flow: ``(N, 2, h, w)``, where to begin.
        variance: ``(N, 1, h, w)``, of the noise.
        window: over which pixels.
        averaging: how means are taken.
    """
    aligned = averaging.follow(previous, flow)
    padded = F.pad(aligned, [1] * 4, mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    residual = noisy - aligned
    value = residual + gx * flow[:, :1] + gy * flow[:, 1:]
    # What does not fit (another object, what was hidden) must not pull the flow away: Cauchy's weights.
    weight = 1 / (1 + residual.square() / (window.doubt * variance))
    wx, wy = weight * gx, weight * gy
    terms = torch.cat([wx * gx, wx * gy, wy * gy, wx * value, wy * value, variance, flow], 1)
    sums, size = averaging.shrink(terms, window.pool), 2 * window.radius + 1
    # Twice, which weights the middle of a window more.
    xx, xy, yy, xv, yv, noise, u, v = averaging.mean(averaging.mean(sums, size), size).split(1, dim=1)
    # Independent equations in the window, roughly: its pixels, as the second mean adds about half.
    prior = noise / (1.5 * (size * window.pool) ** 2 * window.spread**2)
    # Solved for the difference from the mean flow; a step beyond STRIDE goes further than the gradient tells.
    xx, yy, xv, yv = xx + prior, yy + prior, xv - xx * u - xy * v, yv - xy * u - yy * v
    change = torch.cat([yy * xv - xy * yv, xx * yv - xy * xv], 1) / (xx * yy - xy * xy)
    found = torch.cat([u, v], 1) + change.clamp(-STRIDE, STRIDE)
    if window.pool > 1:
        found = F.interpolate(found, scale_factor=window.pool, mode="bilinear", align_corners=False)
    return found


STILL_MARGIN, STILL_SOFTNESS = 0.02, 0.01
"""Of :func:`moving`, in units of the noise variance; chosen on the validation clips."""


def moving(noisy: Tensor, still: Tensor, aligned: Tensor, variance: Tensor, averaging: Averaging) -> Tensor:
    """How surely the flow explains the frame better than no motion does: ``(N, 1, h, w)`` in [0, 1].

    A flow that was measured is never exactly zero. Where nothing moves its jitter would blur, frame after frame, what
    the recurrence could keep for ever; so motion must prove itself over a 9×9 neighbourhood.

    Args:
        noisy: ``(N, 1, h, w)``, current frame.
        still, aligned: the previous clean frame, as it was and warped.
        variance: of the noise.
        averaging: how means are taken.
    """
    gain = ((noisy - still).square() - (noisy - aligned).square()) / variance
    return torch.sigmoid((averaging.mean(gain, 9) - STILL_MARGIN) / STILL_SOFTNESS)


@torch.no_grad()
def estimate_motion(noisy: Tensor, previous: Tensor, sigma: Tensor, averaging: Averaging | None = None) -> Motion:
    """Flow at 1/2 resolution.

    Args:
        noisy: ``(N, 1, h, w)``, brightness (the mean of red, green and blue) of the current frame at 1/2 resolution; h
            and w multiples of 8.
        previous: likewise, of what is known of the frame before (or after).
        sigma: ``(N, 1, h, w)``, level of the noise of luma in the low-pass band.
        averaging: how means are taken; by default in PyTorch.
    """
    averaging = averaging or Averaging()
    now, before = noisy.float(), previous.float()
    # Of luma at half resolution, three times that of its brightness: a prior that much stronger does no harm.
    variance = (sigma.float() / 2).square() + ROUNDING**2
    pyramid = [(now, before, variance)]
    for _ in LEVELS[1:]:
        now, before, variance = (averaging.shrink(x, 2) for x in pyramid[-1])
        pyramid.append((now, before, variance / 4))
    flow = torch.zeros_like(torch.cat([now, now], 1))
    for i, windows in reversed(list(enumerate(LEVELS))):
        now, before, variance = pyramid[i]
        for window in windows:
            flow = lucas_kanade(now, before, flow, variance, window, averaging)
        flow = resize_flow(flow, 2) if i else flow
    return Motion(flow, flow * moving(now, before, averaging.follow(before, flow), variance, averaging))
