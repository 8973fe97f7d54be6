"""Space to depth: pictures to half-resolution bands and back, by the orthonormal Haar transform or pixel-unshuffle.

Haar is what all tiers use. White noise stays white with the same standard deviation in every band,
so a noise level means the same before and after, and noise that is *not* white (compressed,
demosaicked) shows as a difference between bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def haar(image: Tensor) -> Tensor:
    """Forward transform.

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


def per_band(levels: Tensor, channels: int = 3) -> Tensor:
    """Spread values for (low-pass, details) over the channels of :func:`haar`.

    Args:
        levels: ``(N, 2, h, w)``, one value for the low-pass and one for the details, or
            ``(N, 2 * channels, h, w)``, one for each colour channel of either.

    Returns:
        ``(N, 4 * channels, h, w)``.
    """
    low, detail = levels.chunk(2, dim=1)
    if low.shape[1] == 1:
        low, detail = (t.expand(-1, channels, -1, -1) for t in (low, detail))
    return torch.cat([low, detail, detail, detail], dim=1)


def split_bands(bands: Tensor) -> tuple[Tensor, Tensor]:
    """Views of the low-pass bands, ``(N, 3, h, w)``, and of the three details, ``(N, 3, 3, h, w)``, of RGB pictures.

    Levels for low-pass and details are broadcast over them, where :func:`per_band` would copy them.
    """
    return bands[:, :3], bands[:, 3:].unflatten(1, (3, 3))


def unshuffle(image: Tensor) -> Tensor:
    """The four pixels of each 2×2 square as channels: ``(N, C, H, W)`` to ``(N, 4C, H/2, W/2)``, C channels each."""
    return torch.cat([image[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)


def inverse_unshuffle(bands: Tensor) -> Tensor:
    """Inverse of :func:`unshuffle`."""
    a, b, c, d = bands.chunk(4, dim=1)
    n, channels, h, w = a.shape
    rows = torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -3)
    return rows.reshape(n, channels, 2 * h, 2 * w)


def _mean_level(sigma: Tensor) -> Tensor:
    low, detail = sigma.square().chunk(2, dim=1)
    return ((low + 3 * detail) / 4).sqrt().repeat(1, 2, 1, 1)


class Transform(NamedTuple):
    """A way from pictures to bands, and what else of it the network has to know."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    half: Callable[[Tensor], Tensor]
    """Bands to the picture at half resolution: ``(N, 12, h, w)`` to ``(N, 3, h, w)``."""
    constant: Callable[[Tensor], tuple[Tensor, Tensor | float]]
    """The first three bands of a picture that is constant over each 2×2 square, from ``(N, 3, h, w)``, and the others,
    which all are alike: ``(N, 3, h, w)``, or 0."""
    levels: Callable[[Tensor], Tensor]
    """Noise levels of the Haar bands ``(N, 6, h, w)`` to those of these bands, likewise."""


TRANSFORMS = {
    "haar": Transform(
        haar,
        inverse_haar,
        lambda bands: bands[:, :3] * 0.5,
        lambda half: (2 * half, 0.0),
        lambda sigma: sigma,
    ),
    # Every pixel of a square holds all frequencies, so their levels are equal.
    "unshuffle": Transform(
        unshuffle,
        inverse_unshuffle,
        lambda bands: bands.unflatten(1, (4, -1)).mean(1),
        lambda half: (half, half),
        _mean_level,
    ),
}
