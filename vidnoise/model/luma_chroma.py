"""The network's colour space: RGB rotated, without scaling, onto one luma and two chroma axes.

Video noise is rarely equal in red, green and blue, and never independent: cameras make it gray or colourful, files
store chroma at half the resolution, and codecs blur it further. Along these axes each component has its own noise
level. The rotation is orthonormal, so white RGB noise stays white with the same standard deviation. It is the opponent
space of colour BM3D (Dabov et al., ICIP 2007).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vidnoise.model.wavelet import haar, inverse_haar

GRAY = math.sqrt(1 / 3)
"""Factor from luma to the mean of red, green and blue."""

ROTATION = (
    (GRAY, GRAY, GRAY),
    (math.sqrt(1 / 2), 0.0, -math.sqrt(1 / 2)),
    (math.sqrt(1 / 6), -math.sqrt(2 / 3), math.sqrt(1 / 6)),
)
"""Rows: luma, red minus blue, and red plus blue minus green, as weights of R, G and B."""


def rgb_to_luma_chroma(rgb: Tensor) -> Tensor:
    """Rotate RGB ``(N, 3, H, W)`` to luma and two chroma channels of the same shape."""
    red, green, blue = rgb.unbind(1)
    (y, _, _), (a, _, _), (b, c, _) = ROTATION
    sides = red + blue
    return torch.stack([(sides + green) * y, (red - blue) * a, sides * b + green * c], 1)


def luma_chroma_to_rgb(picture: Tensor) -> Tensor:
    """Inverse of :func:`rgb_to_luma_chroma`."""
    luma, first, second = picture.unbind(1)
    (y, _, _), (a, _, _), (b, c, _) = ROTATION
    sides, difference = luma * y + second * b, first * a
    return torch.stack([sides + difference, luma * y + second * c, sides - difference], 1)


def rgb_to_bands(rgb: Tensor) -> Tensor:
    """Transform RGB pictures to the bands that the network works on.

    Args:
        rgb: ``(N, 3, H, W)``, H and W even.

    Returns:
        ``(N, 12, H/2, W/2)``, the Haar bands of luma and chroma: three low-pass channels, then three each of the
        horizontal, vertical and diagonal details.
    """
    return haar(rgb_to_luma_chroma(rgb))


def bands_to_rgb(bands: Tensor) -> Tensor:
    """Inverse of :func:`rgb_to_bands`."""
    return luma_chroma_to_rgb(inverse_haar(bands))


def per_channel(groups: Tensor) -> Tensor:
    """Expand values for (luma, chroma) to the three channels.

    Args:
        groups: ``(N, 4, h, w)``: luma and chroma of the low-pass band, then of the details.

    Returns:
        ``(N, 6, h, w)``: the three channels of the low-pass band, then of the details.
    """
    low_luma, low_chroma, luma, chroma = groups.split(1, dim=1)
    return torch.cat([low_luma, low_chroma, low_chroma, luma, chroma, chroma], 1)
