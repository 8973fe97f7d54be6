"""Losses, one value per clip. All take ``(N, 3, H, W)`` in [0, 1] units."""

from __future__ import annotations

from torch import Tensor

from vidnoise.evaluation.metrics import ssim_map

LEAST_ERROR = 0.5 / 255
"""Root mean square error below which ``psnr`` hardly decreases; the error of rounding to 8 bits is smaller."""


def charbonnier(error: Tensor, epsilon: float = 2e-3) -> Tensor:
    """Return the smooth L1 loss per clip: the mean over all but the first axis."""
    return (error.square() + epsilon**2).sqrt().mean(tuple(range(1, error.ndim)))


def restoration(clean: Tensor, target: Tensor, kind: str, alpha: float = 0.84) -> Tensor:
    """Return the loss of pictures against their truth.

    Args:
        clean, target: The network's pictures and the true ones.
        kind: ``charbonnier``, ``l1``, ``l1_ssim`` or ``psnr``. ``l1_ssim`` is alpha L1 + (1 - alpha) (1 - SSIM), as in
            Zhao et al., "Loss Functions for Image Restoration with Neural Networks", arXiv:1511.08861 (MS-SSIM there);
            ``psnr`` the logarithm of the mean square error, as in Chen et al., "HINet", arXiv:2105.06086.
        alpha: Weight of L1 in ``l1_ssim``.
    """
    if kind == "charbonnier":
        return charbonnier(clean - target)
    if kind == "psnr":
        return (clean - target).square().mean((1, 2, 3)).add(LEAST_ERROR**2).log()
    l1 = (clean - target).abs().mean((1, 2, 3))
    if kind == "l1":
        return l1
    return alpha * l1 + (1 - alpha) * (1 - ssim_map(clean.float(), target.float())).mean((1, 2, 3))


def temporal(clean: Tensor, previous: Tensor, target: Tensor, previous_target: Tensor) -> Tensor:
    """Return the flicker: the error of the change from one frame to the next.

    It ignores constant errors, which :func:`restoration` penalises, and motion, which is part of both changes.
    """
    return charbonnier((clean - previous) - (target - previous_target))


def noise_level_loss(estimate: Tensor, true: Tensor) -> Tensor:
    """Return the mean absolute log ratio of noise levels ([0, 1] units), damped below half an 8-bit step.

    Noise below that is invisible.
    """
    floor = 0.5 / 255
    return ((estimate + floor).log() - (true + floor).log()).abs().mean()
