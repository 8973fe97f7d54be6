"""The orthonormal Haar transform: pictures to half-resolution bands and back.

White noise stays white with the same standard deviation in every band, so a noise level means the same before and
after, and noise that is *not* white (compressed, demosaicked) shows as a difference between bands.
"""

from __future__ import annotations

import torch
from torch import Tensor


def haar(image: Tensor) -> Tensor:
    """Transform pictures to bands.

    Args:
        image: ``(N, C, H, W)``, H and W even.

    Returns:
        ``(N, 4C, H/2, W/2)``: C low-pass channels, then C each of the horizontal, vertical and
        diagonal details.
    """
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
    ab, cd, a_b, c_d = a + b, c + d, a - b, c - d
    return torch.cat([ab + cd, a_b + c_d, ab - cd, a_b - c_d], dim=1) * 0.5


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverse of :func:`haar`: ``(N, 4C, h, w)`` to ``(N, C, 2h, 2w)``."""
    low, horizontal, vertical, diagonal = (bands * 0.5).chunk(4, dim=1)
    lv, hd, l_v, h_d = low + vertical, horizontal + diagonal, low - vertical, horizontal - diagonal
    n, c, h, w = low.shape
    rows = torch.stack([torch.stack([lv + hd, lv - hd], -1), torch.stack([l_v + h_d, l_v - h_d], -1)], -3)
    return rows.reshape(n, c, 2 * h, 2 * w)


def per_band(levels: Tensor) -> Tensor:
    """Expand values for (low-pass, details) to the channels of :func:`haar`.

    Args:
        levels: ``(N, 2 * channels, h, w)``: for each channel of the low-pass band, then of the details.

    Returns:
        ``(N, 4 * channels, h, w)``.
    """
    low, detail = levels.chunk(2, dim=1)
    return torch.cat([low, detail, detail, detail], dim=1)


def split_bands(bands: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the low-pass band ``(N, 3, h, w)`` and of the three details ``(N, 3, 3, h, w)``.

    Levels of the details broadcast over these views, where :func:`per_band` would copy them.
    """
    return bands[:, :3], bands[:, 3:].unflatten(1, (3, 3))
