"""Motion estimation: optical flow from the current noisy frame to the previous clean one (:mod:`.warp` uses it).

Pyramidal Lucas-Kanade (Lucas and Kanade, IJCAI 1981; Bouguet, 2000) in closed form: each pixel gets the flow that best
explains the window around it, by least squares under the known noise. Nothing is learned: a small network searching a
cost volume gave an output 0.3 to 0.4 dB worse (sigma 30), cost more, and had to be trained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vidnoise.model.operations import REFERENCE, Operations, Window


class Motion(NamedTuple):
    """Motion from a frame to the previous one, in pixels of the flow's resolution."""

    found: Tensor
    """``(N, 2, h, w)``: the flow as estimated."""
    flow: Tensor
    """``(N, 2, h, w)``: the same, but zero where it explains the frame no better than no motion does."""


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
    terms, size = operations.flow_terms(noisy, previous, flow, variance, window), 2 * window.radius + 1
    # The window has roughly 1.5 independent equations per pixel, as averaging twice widens it by about half. Beyond
    # STRIDE, the linearisation no longer holds.
    prior = 1 / (1.5 * (size * window.pool) ** 2 * window.spread**2)
    found = operations.solve_flow(terms, window.radius, prior, STRIDE)
    return operations.upsample_flow(found, window.pool) if window.pool > 1 else found


STILL_MARGIN, STILL_SOFTNESS = 0.02, 0.01
"""Threshold and width of the sigmoid in :func:`trusted`, in noise variances; chosen on the validation clips."""


def trusted(noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor, operations: Operations) -> Tensor:
    """Return a flow times the confidence that it explains the frame better than no motion: ``(N, 2, h, w)``.

    A measured flow is never exactly zero. Where nothing moves, its jitter would blur, frame after frame, detail that
    the recurrence could keep indefinitely; so motion needs evidence over a 9×9 neighbourhood.

    Args:
        noisy, previous, flow, variance, operations: As for :func:`lucas_kanade`.
    """
    evidence = operations.box_filter(operations.motion_evidence(noisy, previous, flow, variance), 9)
    return operations.trusted_flow(evidence, flow, STILL_MARGIN, STILL_SOFTNESS)


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
        flow = operations.upsample_flow(flow, 2, 2.0) if i else flow
    return Motion(flow, trusted(now, before, flow, variance, operations))
