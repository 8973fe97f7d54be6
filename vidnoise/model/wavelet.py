"""Space to depth: pictures to half-resolution bands and back, by the orthonormal Haar transform or pixel-unshuffle.

Haar is what all tiers use. White noise stays white with the same standard deviation in every band,
so a noise level means the same before and after, and noise that is *not* white (compressed,
demosaicked) shows as a difference between bands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


_SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
"""Of the four pixels of a square in its low-pass, horizontal, vertical and diagonal band."""


@lru_cache
def _kernel(channels: int, device: torch.device) -> Tensor:
    """The transform as a convolution: ``(4C, C, 2, 2)``, orthonormal, so that it is its own inverse transposed."""
    kernel = torch.zeros(4, channels, channels, 2, 2)
    for channel in range(channels):
        kernel[:, channel, channel] = 0.5 * _SIGNS.view(4, 2, 2)
    return kernel.flatten(0, 1).to(device)


def haar(image: Tensor) -> Tensor:
    """Forward transform, in float32 whatever autocast says: the network's correction is a difference of bands.

    Args:
        image: ``(N, C, H, W)``, H and W even.

    Returns:
        ``(N, 4C, H/2, W/2)``: C low-pass channels, then C each of the horizontal, vertical and
        diagonal details.
    """
    # One convolution, though most of its products are with zero, passes over the frame once; sums of slices, ten times.
    with torch.autocast(image.device.type, enabled=False):
        return F.conv2d(image.float(), _kernel(image.shape[1], image.device), stride=2)


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverse of :func:`haar`: ``(N, 4C, h, w)`` to ``(N, C, 2h, 2w)``."""
    with torch.autocast(bands.device.type, enabled=False):
        return F.conv_transpose2d(bands.float(), _kernel(bands.shape[1] // 4, bands.device), stride=2)


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
    constant: Callable[[Tensor], Tensor]
    """Bands of a picture that is constant over each 2×2 square: ``(N, 3, h, w)`` to ``(N, 12, h, w)``."""
    levels: Callable[[Tensor], Tensor]
    """Noise levels of the Haar bands ``(N, 6, h, w)`` to those of these bands, likewise."""


TRANSFORMS = {
    "haar": Transform(
        haar,
        inverse_haar,
        lambda bands: bands[:, :3] * 0.5,
        lambda half: torch.cat([2 * half, torch.zeros_like(half).repeat(1, 3, 1, 1)], 1),
        lambda sigma: sigma,
    ),
    # Every pixel of a square holds all frequencies, so their levels are equal.
    "unshuffle": Transform(
        unshuffle,
        inverse_unshuffle,
        lambda bands: bands.unflatten(1, (4, -1)).mean(1),
        lambda half: half.repeat(1, 4, 1, 1),
        _mean_level,
    ),
}
