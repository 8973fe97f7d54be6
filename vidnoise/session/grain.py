"""Synthetic grain in place of the removed noise.

The removed noise is measured as it is removed: its strength around each pixel, and its spectrum (how coarse it is) in
luma and chroma. White noise is filtered to that spectrum and scaled to that strength. So grain appears where noise was
removed and nowhere else: still graphics, letterbox bars and masked parts get none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.color.colorimetry import BT709

BLOCK = 8
"""Size in pixels of the blocks in which the strength of the noise is measured, before smoothing."""

TILE = 32
"""Size in pixels of the tiles whose spectra are averaged."""

RADIUS = 6
"""Radius in pixels of the filter applied to white noise: grain is no coarser than that."""

FLATTEST = 4
"""The flattest tiles, 1 / this of all, are measured: elsewhere, lost detail would pass for noise."""

MAX_TILES = 256
"""Maximum number of tiles measured per frame, so that large pictures do not take longer."""

MEMORY = 16
"""Number of measurements over which the spectrum is averaged."""

LEARN_INTERVAL = 4
"""Interval in frames between measurements of the spectrum, after as many at the start: it hardly changes."""

_KR, _KB = BT709


class GrainSynthesis:
    """Synthesises grain for one stream: different in each frame, but reproducible for the same frames, seed and device.

    Args:
        amount: Amount of grain, 0 to 2; 1 restores as much as was removed.
        seed: Seed of the grain.
        device: Device of the frames.
    """

    def __init__(self, amount: float, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.amount = amount
        self._generator = torch.Generator(device)
        self._generator.manual_seed(seed)
        self._spectrum: Tensor | None = None
        self._correlation: Tensor | None = None
        self._count = self._frames = 0

    @torch.inference_mode()
    def fresh(self, noisy: Tensor, correction: Tensor) -> Tensor:
        """Return grain to add to a frame.

        Args:
            noisy: Noisy picture, ``(1, 3, H, W)`` R'G'B'.
            correction: Clean - noisy, ``(1, 3, H, W)``.

        Returns:
            Grain, ``(1, 3, H, W)``; exactly 0 where nothing was removed around a pixel.
        """
        removed = _opponent(-correction.float())
        strength = _local_strength(removed)
        if self._frames < LEARN_INTERVAL or self._frames % LEARN_INTERVAL == 0:
            self._learn(removed, (noisy + correction).mean(1, keepdim=True))
        self._frames += 1
        grain = self._coloured(*removed.shape[-2:]).mul_(strength).mul_(self.amount)
        return _from_opponent(grain)

    def _learn(self, removed: Tensor, clean: Tensor) -> None:
        """Update the running means of the removed noise's spectra and of the correlations between its three planes."""
        _, _, height, width = removed.shape
        tile = min(TILE, height, width)
        if tile < TILE:
            return  # too small to measure; the grain stays white
        tiles = _tiles(removed)  # (n, 3, TILE, TILE)
        scene = _tiles(F.avg_pool2d(F.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
        gradient = scene.diff(dim=2).square().mean((1, 2, 3)) + scene.diff(dim=3).square().mean((1, 2, 3))
        energy = tiles.square().mean((2, 3))
        # A tile from which nothing was removed contains no noise, however flat it is.
        score = gradient + 1e3 * (energy[:, 0] < 0.05 * energy[:, 0].mean())
        count = min(max(1, score.numel() // FLATTEST), MAX_TILES)
        chosen = tiles[score.topk(count, largest=False).indices]
        window = torch.hann_window(TILE, device=removed.device)
        centred = (chosen - chosen.mean((2, 3), keepdim=True)) * (window[:, None] * window)
        power = torch.fft.fft2(centred).abs().square().mean(0)
        power = power / power.mean((1, 2), keepdim=True).clamp(min=1e-20)
        self._count = min(self._count + 1, MEMORY)
        correlation = _correlations(centred)
        if self._spectrum is None or self._correlation is None:
            self._spectrum, self._correlation = power, correlation
        else:
            self._spectrum = self._spectrum + (power - self._spectrum) / self._count
            self._correlation = self._correlation + (correlation - self._correlation) / self._count

    def _coloured(self, height: int, width: int) -> Tensor:
        """Return noise ``(1, 3, H, W)`` of variance 1 with the learnt spectra and correlations; at first, white."""
        # Fourier transforms of such sizes are fast; the excess is cropped.
        size = (-(-height // TILE) * TILE, -(-width // TILE) * TILE)
        white = torch.empty(1, 3, *size, device=self._generator.device).normal_(generator=self._generator)
        if self._spectrum is None or self._correlation is None:
            return white[..., :height, :width]
        kernel = torch.fft.fftshift(torch.fft.ifft2(self._spectrum.sqrt()).real, dim=(1, 2))
        middle = TILE // 2
        kernel = kernel[:, middle - RADIUS : middle + RADIUS + 1, middle - RADIUS : middle + RADIUS + 1]
        kernel = kernel / kernel.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
        transformed = torch.fft.rfft2(_mixed(white, self._correlation)).mul_(torch.fft.rfft2(kernel, s=size))
        return torch.fft.irfft2(transformed, s=size)[..., :height, :width]


def _correlations(tiles: Tensor) -> Tensor:
    """Return the correlations of planes 0 and 1, 0 and 2, 1 and 2 of ``(n, 3, h, w)``: ``(3,)``; 0 without noise."""
    covariance = torch.einsum("ncyx,ndyx->cd", tiles, tiles)
    deviation = covariance.diagonal().clamp(min=1e-12).sqrt()
    matrix = covariance / (deviation[:, None] * deviation)
    return torch.stack([matrix[0, 1], matrix[0, 2], matrix[1, 2]]).clamp(-0.999, 0.999)


def _mixed(white: Tensor, correlation: Tensor) -> Tensor:
    """Give independent planes these correlations (by the Cholesky factor of the 3 x 3 matrix, written out)."""
    a, b, c = correlation
    second = (1 - a * a).sqrt()
    shared = (c - a * b) / second
    third = (1 - b * b - shared * shared).clamp(min=0).sqrt()
    x, y, z = white.unbind(1)
    return torch.stack([x, a * x + second * y, b * x + shared * y + third * z], 1)


def _opponent(rgb: Tensor) -> Tensor:
    """Convert RGB to Y, B - Y and R - Y, as video stores it, each with noise of its own coarseness."""
    r, g, b = rgb.unbind(1)
    y = _KR * r + (1 - _KR - _KB) * g + _KB * b
    return torch.stack([y, b - y, r - y], 1)


def _from_opponent(planes: Tensor) -> Tensor:
    y, u, v = planes.unbind(1)
    b, r = u + y, v + y
    return torch.stack([r, (y - _KR * r - _KB * b) / (1 - _KR - _KB), b], 1)


def _local_strength(removed: Tensor) -> Tensor:
    """Return the standard deviation of the removed noise around each pixel, ``(1, 3, H, W)``."""
    blocks = F.avg_pool2d(removed.square(), BLOCK, ceil_mode=True, count_include_pad=False)
    smooth = F.avg_pool2d(F.pad(blocks, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    # Noisy neighbours do not count where a block itself is nearly untouched.
    level = torch.minimum(smooth, 4 * blocks).sqrt()
    return F.interpolate(level, size=removed.shape[-2:], mode="bilinear", align_corners=False)


def _tiles(planes: Tensor) -> Tensor:
    """Cut ``(1, C, H, W)`` into tiles ``(n, C, TILE, TILE)``; the rest at the right and bottom is dropped."""
    _, channels, height, width = planes.shape
    rows, columns = height // TILE, width // TILE
    cut = planes[0, :, : rows * TILE, : columns * TILE].reshape(channels, rows, TILE, columns, TILE)
    return cut.permute(1, 3, 0, 2, 4).reshape(rows * columns, channels, TILE, TILE)
