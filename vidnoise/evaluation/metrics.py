"""Metrics of picture quality. Clips are float tensors ``(T, 3, H, W)`` in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio per frame over all channels, ``(T,)`` in dB."""
    return -10 * torch.log10((a.float() - b.float()).square().mean((1, 2, 3)).clamp(min=1e-12))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity per frame, ``(T,)`` (Wang et al., 2004; Gaussian window, mean over channels)."""
    return ssim_map(a.float(), b.float()).mean((1, 2, 3))


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Return SSIM at each position where the window of 11 x 11 pixels fits inside the picture; differentiable."""
    from kornia.metrics import ssim as kornia_ssim  # takes half a second to import

    return kornia_ssim(a, b, window_size=11, padding="valid")


def temporal_error(a: Tensor, reference: Tensor) -> float:
    """Return the flicker, the mean of |(a_t - a_{t-1}) - (ref_t - ref_{t-1})|, in 8-bit units."""
    return ((a[1:] - a[:-1]) - (reference[1:] - reference[:-1])).abs().mean().item() * 255
