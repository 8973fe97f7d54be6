"""The noise level by channel and band, measured where the user knows that the picture is nothing but noise.

The plain standard deviation there is closer to the truth than the network's estimate, which knows nothing of the
place. The picture is cut into small blocks; each loses its gradient, a plane that is fitted to it, and what is left is
noise. A quantile over the blocks, scaled to what it would be of white noise, ignores those with an edge or a speck.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.model.luma_chroma import GRAY, rgb_to_bands
from vidnoise.model.noise_level import MEMORY
from vidnoise.session.noise_region import Region, parse_region

if TYPE_CHECKING:
    from vidnoise.option_values import RegionLike

logger = logging.getLogger(__name__)

BLOCK = 8
"""Side of a block in samples of a band; twice as many pixels."""

FREEDOM = BLOCK * BLOCK - 3
"""Independent samples of a block of the low-pass band, after the fit of a plane."""

FLATTEST, LOW = 0.1, 0.25
"""Share of a whole picture's blocks that count, those with the least gradient, and the quantile of these: even there,
some texture is left. Of a region that the user has chosen, all blocks count, and the median.
"""

ROUNDING = (0.01 / 255) ** 2
"""Variance of less than this is the rounding of float32 in a part that is exactly flat."""

SUSPICIOUS = 3
"""A region whose luma deviates this many times as much as the flattest parts of the picture is warned of."""

EXPOSED = 0.04, 0.96
"""Range of brightness of the blocks that count in a whole picture: beyond it, noise may be clipped."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseProfile:
    """A noise level by channel and band that holds for a whole video."""

    level: Tensor
    """``(1, 6)`` in [0, 1] units, as :func:`vidnoise.model.known_levels` has it."""
    luma: float
    """Standard deviation in the luma samples as stored, in 8-bit units; of RGB, along gray."""
    chroma: float
    """The same for the chroma samples; of RGB, across gray. 0 for gray pictures."""
    n_frames: int
    """Number of frames that were measured."""

    def levels(self, noisy: Tensor, continues: Tensor) -> Tensor:
        """Return the level of a frame, ``(1, 6)``; see :meth:`RegionNoise.levels`."""
        return self.level

    def to(self, device: torch.device) -> NoiseProfile:
        """Return the profile for pictures on a device."""
        return replace(self, level=self.level.to(device))


class RegionNoise:
    """The noise level of each frame of one stream as measured in a region of it, averaged over several frames.

    Args:
        region: The region, of the picture as shown; a warning is logged if the first frame is not flat there.
        rotation: Rotation of the video for display, in degrees.
    """

    @classmethod
    def of(cls, option: RegionLike | None, rotation: int) -> RegionNoise | None:
        """Make one from the option ``noise_region``; None if it is not given.

        Raises:
            UsageError: It is no region.
        """
        return None if option is None else cls(parse_region(option), rotation)

    def __init__(self, region: Region, rotation: int) -> None:
        self.region = region
        self._rotation = rotation
        self._mean: Tensor | None = None
        self._count: Tensor | None = None

    @property
    def is_flat(self) -> bool:
        """Whether there were frames, but none with noise in the region. Waits for the device."""
        return self._mean is not None and not bool(self._mean.any())

    def levels(self, noisy: Tensor, continues: Tensor) -> Tensor:
        """Return the level of the next frame, ``(1, 6)`` in [0, 1] units; only the first one waits for the device.

        Args:
            noisy: ``(1, 3, H, W)`` RGB as the network gets it, without padding.
            continues: ``(1,)`` bool; where false, the earlier frames do not count.
        """
        variance = region_variance(noisy, self.region, self._rotation)
        if self._mean is None or self._count is None:
            warn_unless_flat(self.region, variance, noisy)
            self._mean, self._count = torch.zeros_like(variance), torch.zeros(1, 1, device=noisy.device)
        has_noise = (variance.amax(1, keepdim=True) > ROUNDING).float()  # a black frame says nothing of the noise
        count = self._count * continues.view(1, 1) + has_noise
        self._count = count.clamp(max=MEMORY)
        self._mean = self._mean + (variance - self._mean) * has_noise / self._count.clamp(min=1)
        return self._mean.sqrt()


def region_variance(noisy: Tensor, region: Region, rotation: int) -> Tensor:
    """Return the variance of the noise in a region, ``(1, 6)``, in the order of the network's levels.

    Args:
        noisy: ``(1, 3, H, W)`` RGB as the network gets it, without padding.
        region: The region, of the picture as shown.
        rotation: Rotation of the video for display, in degrees.

    Raises:
        UsageError: The region reaches outside of the picture.
    """
    rows, columns = region.place(noisy.shape[-1], noisy.shape[-2], rotation)
    return _quantile(_variances(rgb_to_bands(noisy[..., rows, columns])), 0.5)


def warn_unless_flat(region: Region, variance: Tensor, noisy: Tensor) -> None:
    """Warn of a region that holds far more than the flattest parts of the same picture: most likely texture.

    Args:
        region: The region, for the message.
        variance: As measured in the region, see :func:`region_variance`.
        noisy: The whole picture.
    """
    flattest = picture_variance(noisy)
    if flattest is None:
        return
    # The low-pass band holds a quarter of a pixel's variance, the three detail bands the rest.
    here, elsewhere = (float(v[0, 0] + 3 * v[0, 3]) for v in (variance, flattest))
    if here > SUSPICIOUS**2 * elsewhere:
        logger.warning(
            "noise_region %s is hardly flat: what varies in it is %.0f times as strong as in the flattest parts of the "
            "picture, and is taken for noise everywhere", region, (here / max(elsewhere, ROUNDING)) ** 0.5,
        )  # fmt: skip


def picture_variance(noisy: Tensor) -> Tensor | None:
    """Return the variance of the noise in the flattest parts of a picture, or None if no part can show noise.

    Args:
        noisy: ``(1, 3, H, W)`` RGB as the network gets it, without padding.
    """
    height, width = (n - n % 2 for n in noisy.shape[-2:])
    bands = rgb_to_bands(noisy[..., :height, :width])
    if min(bands.shape[-2:]) < BLOCK:
        return None
    variances = _variances(bands)
    luma = _blocks(bands[:, :1])[:, 0]
    brightness = luma.mean(1) * (GRAY / 2)
    may_count = variances.amax(1) > ROUNDING
    is_exposed = may_count & (brightness > EXPOSED[0]) & (brightness < EXPOSED[1])
    may_count = is_exposed if bool(is_exposed.any()) else may_count  # a night has nothing but dark parts
    if not bool(may_count.any()):
        return None
    variances, luma = variances[may_count], luma[may_count]
    # At half the resolution, so that noise hardly decides.
    gradient = F.avg_pool2d(luma.view(-1, 1, BLOCK, BLOCK), 2).flatten(1).var(1)
    n_flat = max(1, round(FLATTEST * len(gradient)))
    return _quantile(variances[gradient.topk(n_flat, largest=False).indices], LOW)


def _blocks(bands: Tensor) -> Tensor:
    """Cut bands ``(1, C, h, w)`` into blocks ``(n, C, BLOCK²)``; the rest at the right and bottom is dropped."""
    rows, columns = (n // BLOCK for n in bands.shape[-2:])
    cut = bands[0, :, : rows * BLOCK, : columns * BLOCK].unflatten(2, (columns, BLOCK)).unflatten(1, (rows, BLOCK))
    return cut.permute(1, 3, 0, 2, 4).flatten(3).flatten(0, 1)


def _variances(bands: Tensor) -> Tensor:
    """Return the variance ``(n, 6)`` of each block around its gradient, in the low-pass band and in the details."""
    low, details = _blocks(bands).split((3, 9), 1)
    low = (low @ _without_plane(bands.device)).square().sum(2) / FREEDOM
    # A gradient of the picture is a constant in its details.
    return torch.cat([low, details.var(2).unflatten(1, (3, 3)).mean(1)], 1)


@lru_cache(maxsize=8)
def _without_plane(device: torch.device) -> Tensor:
    """Return the projection ``(BLOCK², BLOCK²)`` that takes the best plane from a block."""
    y, x = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
    basis = torch.linalg.qr(torch.stack([torch.ones(BLOCK**2), x.flatten(), y.flatten()], 1))[0]
    return (torch.eye(BLOCK**2) - basis @ basis.T).to(device)


def _quantile(variances: Tensor, share: float) -> Tensor:
    """Return a quantile over blocks, ``(n, 6)`` to ``(1, 6)``, divided by its value for white noise of variance 1."""
    if len(variances) == 1:
        return variances
    low, detail = _chi_square(share, FREEDOM), _chi_square(share, 3 * BLOCK * BLOCK - 3)
    found = variances.quantile(share, 0, keepdim=True)
    return torch.cat([found[:, :3] / low, found[:, 3:] / detail], 1)


def _chi_square(share: float, freedom: int) -> float:
    """Return a quantile of a chi-square variable over its mean (Wilson and Hilferty, PNAS 1931)."""
    spread = 2 / (9 * freedom)
    return (1 - spread + NormalDist().inv_cdf(share) * spread**0.5) ** 3
