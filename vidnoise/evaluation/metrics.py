"""Metrics of picture quality. Clips are float tensors ``(T, 3, H, W)`` in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio per frame over all channels, ``(T,)`` in dB."""
    return -10 * torch.log10((a.float() - b.float()).square().mean((1, 2, 3)).clamp(min=1e-12))


def ssim(a: Tensor, b: Tensor, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity per frame, ``(T,)`` (Wang et al., 2004; Gaussian window, mean over channels)."""
    return ssim_map(a.float(), b.float(), sigma).mean((1, 2, 3))


def ssim_map(a: Tensor, b: Tensor, sigma: float = 1.5) -> Tensor:
    """Return SSIM at each position where the window fits inside the picture; differentiable."""
    radius = int(3.5 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=a.dtype, device=a.device)
    window = torch.exp(-0.5 * (x / sigma) ** 2)
    window = window / window.sum()
    channels = a.shape[1]

    def blur(t: Tensor) -> Tensor:
        t = F.conv2d(t, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(t, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2
    covariance = blur(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mu_a * mu_b + c1) * (2 * covariance + c2)) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))


def temporal_error(a: Tensor, reference: Tensor) -> float:
    """Return the flicker, the mean of |(a_t - a_{t-1}) - (ref_t - ref_{t-1})|, in 8-bit units."""
    return ((a[1:] - a[:-1]) - (reference[1:] - reference[:-1])).abs().mean().item() * 255
