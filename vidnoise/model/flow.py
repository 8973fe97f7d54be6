"""Motion estimation: optical flow from the current noisy frame to the previous clean one (:mod:`.warp` uses it).

Pyramidal Lucas-Kanade (Lucas and Kanade, IJCAI 1981; Bouguet, 2000) in closed form: each pixel gets the flow that best
explains the window around it, by least squares under the known noise. Nothing is learned: a small network searching a
cost volume gave an output 0.3 to 0.4 dB worse (sigma 30), cost more, and had to be trained.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.model.operations import REFERENCE, Operations
from vidnoise.model.warp import resize_flow


class Motion(NamedTuple):
    """Motion from a frame to the previous one, in pixels of the flow's resolution."""

    found: Tensor
    """``(N, 2, h, w)``: the flow as estimated."""
    flow: Tensor
    """``(N, 2, h, w)``: the same, but zero where it explains the frame no better than no motion does."""


class Window(NamedTuple):
    """The neighbourhood of pixels assumed to share one flow, for one pass of the search."""

    pool: int
    """Side of the squares of pixels whose equations are summed and solved once."""
    radius: int
    """The sums are then averaged, twice, over windows of (2 radius + 1)² such squares."""
    spread: float
    """Prior standard deviation of the flow around its mean in a window, in pixels."""
    doubt: float = math.inf
    """Squared difference from the aligned frame at which a pixel counts half, as a multiple of the noise variance.
    Finite only once the flow is nearly right: before, everything would be doubted."""


LEVELS = (
    (Window(4, 1, 0.1, doubt=8.0),) * 2,
    (Window(2, 1, 0.3, doubt=8.0),) * 2,
    (Window(1, 2, 0.5),) * 3,
    (Window(1, 2, 0.5),) * 3,
)
"""Passes at 1/2 resolution, then at 1/4, 1/8 and 1/16, which is searched first. Chosen on the validation clips, where
none of the numbers matters much; smaller windows follow small objects better, but lose 1 dB where the camera pans."""

STRIDE = 2.0
"""Largest change of the flow in one pass, in pixels of its pyramid level."""

ROUNDING = 1 / 255
"""Standard deviation of the noise that even a clean picture is assumed to have."""


def lucas_kanade(
    noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor, window: Window, operations: Operations
) -> Tensor:
    """Refine a flow by one Gauss-Newton step, regularised towards the mean flow of each window.

    Each pixel gives a weighted equation, ``g · u = noisy − aligned + g · flow`` with the gradient ``g`` of the aligned
    previous frame, for a flow ``u`` that is constant over the window. (Solving for the change of the flow instead
    would keep the jitter of the flow within the window.)

    Args:
        noisy, previous: ``(N, 1, h, w)``, gray.
        flow: ``(N, 2, h, w)``, the initial flow.
        variance: ``(N, 1, h, w)``, noise variance.
        window: The neighbourhood that shares a flow.
        operations: Implementation of the box filters and warps.
    """
    aligned = operations.warp(previous, flow)
    padded = F.pad(aligned, [1] * 4, mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    residual = noisy - aligned
    value = residual + gx * flow[:, :1] + gy * flow[:, 1:]
    # Cauchy weights, so that outliers (another object, disoccluded background) do not pull the flow away.
    weight = 1 / (1 + residual.square() / (window.doubt * variance))
    wx, wy = weight * gx, weight * gy
    terms = torch.cat([wx * gx, wx * gy, wy * gy, wx * value, wy * value, variance, flow], 1)
    sums, size = operations.downsample(terms, window.pool), 2 * window.radius + 1
    # Filtered twice, which gives the middle of a window more weight.
    xx, xy, yy, xv, yv, noise, u, v = operations.box_filter(operations.box_filter(sums, size), size).split(1, dim=1)
    # The window has roughly 1.5 independent equations per pixel, as the second filter widens it by about half.
    prior = noise / (1.5 * (size * window.pool) ** 2 * window.spread**2)
    # Solved for the difference from the mean flow. Beyond STRIDE, the linearisation no longer holds.
    xx, yy, xv, yv = xx + prior, yy + prior, xv - xx * u - xy * v, yv - xy * u - yy * v
    change = torch.cat([yy * xv - xy * yv, xx * yv - xy * xv], 1) / (xx * yy - xy * xy)
    found = torch.cat([u, v], 1) + change.clamp(-STRIDE, STRIDE)
    if window.pool > 1:
        found = F.interpolate(found, scale_factor=window.pool, mode="bilinear", align_corners=False)
    return found


STILL_MARGIN, STILL_SOFTNESS = 0.02, 0.01
"""Threshold and width of the sigmoid in :func:`moving`, in noise variances; chosen on the validation clips."""


def moving(noisy: Tensor, still: Tensor, aligned: Tensor, variance: Tensor, operations: Operations) -> Tensor:
    """Return the confidence that the flow explains the frame better than no motion: ``(N, 1, h, w)`` in [0, 1].

    A measured flow is never exactly zero. Where nothing moves, its jitter would blur, frame after frame, detail that
    the recurrence could keep indefinitely; so motion needs evidence over a 9×9 neighbourhood.

    Args:
        noisy: ``(N, 1, h, w)``, the current frame.
        still, aligned: The previous clean frame, unwarped and warped.
        variance: Noise variance.
        operations: Implementation of the box filters.
    """
    gain = ((noisy - still).square() - (noisy - aligned).square()) / variance
    return torch.sigmoid((operations.box_filter(gain, 9) - STILL_MARGIN) / STILL_SOFTNESS)


@torch.no_grad()
def estimate_motion(noisy: Tensor, previous: Tensor, sigma: Tensor, operations: Operations = REFERENCE) -> Motion:
    """Estimate the flow at 1/2 resolution.

    Args:
        noisy: ``(N, 1, h, w)``, brightness (the mean of red, green and blue) of the current frame at 1/2 resolution; h
            and w multiples of 8.
        previous: The same of the best estimate of the frame before (or after).
        sigma: ``(N, 1, h, w)``, noise level of luma in the low-pass band.
        operations: Implementation of the box filters and warps.
    """
    now, before = noisy.float(), previous.float()
    # This is the variance of luma at half resolution, three times that of brightness: the stronger prior does no harm.
    variance = (sigma.float() / 2).square() + ROUNDING**2
    pyramid = [(now, before, variance)]
    for _ in LEVELS[1:]:
        now, before, variance = (operations.downsample(x, 2) for x in pyramid[-1])
        pyramid.append((now, before, variance / 4))
    flow = torch.zeros_like(torch.cat([now, now], 1))
    for i, windows in reversed(list(enumerate(LEVELS))):
        now, before, variance = pyramid[i]
        for window in windows:
            flow = lucas_kanade(now, before, flow, variance, window, operations)
        flow = resize_flow(flow, 2) if i else flow
    return Motion(flow, flow * moving(now, before, operations.warp(before, flow), variance, operations))
