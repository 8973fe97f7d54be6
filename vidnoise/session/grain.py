"""Fresh grain in place of the noise that was removed.

What was removed is measured while it is removed: how strong it is around each pixel, and its spectrum (how coarse it
is) in brightness and in colour. White noise is given that spectrum and that strength. So grain comes where noise went
and nowhere else: still graphics, letterbox bars and masked parts get none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.color.colorimetry import BT709

BLOCK = 8
"""Pixels across which the strength of the noise is one number, before smoothing."""

TILE = 32
"""Pixels across of the tiles whose spectra are averaged."""

RADIUS = 6
"""Reach of the filter that colours white noise, pixels: grain is not coarser than that."""

FLATTEST = 4
"""The flattest 1 / this of all tiles counts: elsewhere lost detail would pass for noise."""

MAX_TILES = 256
"""Tiles looked at in one frame, so that large pictures do not take longer."""

MEMORY = 16
"""Measurements over which the spectrum is averaged."""

LEARN_EVERY = 4
"""Frames from one measurement of the spectrum to the next, after as many at the beginning: it hardly changes."""

_KR, _KB = BT709


class GrainSynthesis:
    """Makes grain for one stream: the same for the same frames and seed on one device, another in each frame.

    Args:
        amount: 1 gives back as much as was removed, 0 to 2.
        seed: Which grain.
        device: Where the frames are.
    """

    def __init__(self, amount: float, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.amount = amount
        self._generator = torch.Generator(device)
        self._generator.manual_seed(seed)
        self._spectrum: Tensor | None = None
        self._likeness: Tensor | None = None
        self._count = self._frames = 0

    @torch.inference_mode()
    def fresh(self, noisy: Tensor, correction: Tensor) -> Tensor:
        """Grain to add to a frame.

        Args:
            noisy: ``(1, 3, H, W)`` R'G'B'.
            correction: likewise, clean - noisy.

        Returns:
            ``(1, 3, H, W)``; exactly 0 where around a pixel nothing was removed.
        """
        removed = _opponent(-correction.float())
        strength = _local_strength(removed)
        if self._frames < LEARN_EVERY or self._frames % LEARN_EVERY == 0:
            self._learn(removed, (noisy + correction).mean(1, keepdim=True))
        self._frames += 1
        grain = self._coloured(*removed.shape[-2:]).mul_(strength).mul_(self.amount)
        return _from_opponent(grain)

    def _learn(self, removed: Tensor, clean: Tensor) -> None:
        """Update the running means of the removed noise's spectra, and of how alike its three planes are."""
        _, _, height, width = removed.shape
        tile = min(TILE, height, width)
        if tile < TILE:
            return  # too small to measure; its grain is white
        tiles = _tiles(removed)  # (n, 3, TILE, TILE)
        scene = _tiles(F.avg_pool2d(F.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
        gradient = scene.diff(dim=2).square().mean((1, 2, 3)) + scene.diff(dim=3).square().mean((1, 2, 3))
        energy = tiles.square().mean((2, 3))
        # A tile from which nothing was removed is no noise, however flat it is.
        score = gradient + 1e3 * (energy[:, 0] < 0.05 * energy[:, 0].mean())
        count = min(max(1, score.numel() // FLATTEST), MAX_TILES)
        chosen = tiles[score.topk(count, largest=False).indices]
        window = torch.hann_window(TILE, device=removed.device)
        centred = (chosen - chosen.mean((2, 3), keepdim=True)) * (window[:, None] * window)
        power = torch.fft.fft2(centred).abs().square().mean(0)
        power = power / power.mean((1, 2), keepdim=True).clamp(min=1e-20)
        self._count = min(self._count + 1, MEMORY)
        likeness = _correlations(centred)
        if self._spectrum is None or self._likeness is None:
            self._spectrum, self._likeness = power, likeness
        else:
            self._spectrum = self._spectrum + (power - self._spectrum) / self._count
            self._likeness = self._likeness + (likeness - self._likeness) / self._count

    def _coloured(self, height: int, width: int) -> Tensor:
        """Noise ``(1, 3, H, W)`` of variance 1 with the spectra and correlations learnt; white before that."""
        # Fourier transforms of such sizes are quick; what is too much is cut off.
        size = (-(-height // TILE) * TILE, -(-width // TILE) * TILE)
        white = torch.empty(1, 3, *size, device=self._generator.device).normal_(generator=self._generator)
        if self._spectrum is None or self._likeness is None:
            return white[..., :height, :width]
        kernel = torch.fft.fftshift(torch.fft.ifft2(self._spectrum.sqrt()).real, dim=(1, 2))
        middle = TILE // 2
        kernel = kernel[:, middle - RADIUS : middle + RADIUS + 1, middle - RADIUS : middle + RADIUS + 1]
        kernel = kernel / kernel.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
        transformed = torch.fft.rfft2(_mixed(white, self._likeness)).mul_(torch.fft.rfft2(kernel, s=size))
        return torch.fft.irfft2(transformed, s=size)[..., :height, :width]


def _correlations(tiles: Tensor) -> Tensor:
    """Correlate planes 0 and 1, 0 and 2, 1 and 2 of ``(n, 3, h, w)``: ``(3,)``, -1 to 1; 0 without noise."""
    covariance = torch.einsum("ncyx,ndyx->cd", tiles, tiles)
    deviation = covariance.diagonal().clamp(min=1e-12).sqrt()
    matrix = covariance / (deviation[:, None] * deviation)
    return torch.stack([matrix[0, 1], matrix[0, 2], matrix[1, 2]]).clamp(-0.999, 0.999)


def _mixed(white: Tensor, likeness: Tensor) -> Tensor:
    """Independent planes to planes with those correlations (the Cholesky factor of the 3 x 3 matrix, written out)."""
    a, b, c = likeness
    second = (1 - a * a).sqrt()
    shared = (c - a * b) / second
    third = (1 - b * b - shared * shared).clamp(min=0).sqrt()
    x, y, z = white.unbind(1)
    return torch.stack([x, a * x + second * y, b * x + shared * y + third * z], 1)


def _opponent(rgb: Tensor) -> Tensor:
    """Brightness, B - Y and R - Y: that is how sources hold them, each with noise of its own coarseness."""
    r, g, b = rgb.unbind(1)
    y = _KR * r + (1 - _KR - _KB) * g + _KB * b
    return torch.stack([y, b - y, r - y], 1)


def _from_opponent(planes: Tensor) -> Tensor:
    y, u, v = planes.unbind(1)
    b, r = u + y, v + y
    return torch.stack([r, (y - _KR * r - _KB * b) / (1 - _KR - _KB), b], 1)


def _local_strength(removed: Tensor) -> Tensor:
    """Standard deviation of the removed noise around each pixel, ``(1, 3, H, W)``."""
    blocks = F.avg_pool2d(removed.square(), BLOCK, ceil_mode=True, count_include_pad=False)
    smooth = F.avg_pool2d(F.pad(blocks, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    # Where a block itself is nearly untouched, its noisy neighbours do not count.
    level = torch.minimum(smooth, 4 * blocks).sqrt()
    return F.interpolate(level, size=removed.shape[-2:], mode="bilinear", align_corners=False)


def _tiles(planes: Tensor) -> Tensor:
    """``(1, C, H, W)`` to ``(n, C, TILE, TILE)``; what is left over at the right and below is dropped."""
    _, channels, height, width = planes.shape
    rows, columns = height // TILE, width // TILE
    cut = planes[0, :, : rows * TILE, : columns * TILE].reshape(channels, rows, TILE, columns, TILE)
    return cut.permute(1, 3, 0, 2, 4).reshape(rows * columns, channels, TILE, TILE)
