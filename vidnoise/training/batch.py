"""Batches: clean clips, their noisy versions, and the true noise level of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..model.luma_chroma import rgb_to_bands
from ..model.noise_level import SIGMA_MIN
from ..noise import NOISES
from .codec_pool import CodecPool
from .config import ENCODED, TrainConfig
from .data import ClipSampler


class Batch(NamedTuple):
    clean: Tensor
    """``(T, N, 3, H, W)`` in [0, 1]."""
    noisy: Tensor
    """Likewise, not clipped."""
    sigma: Tensor
    """``(T, N, 6, H/2, W/2)``: true noise level of luma and chroma, in the low-pass band and in the details."""
    mean_sigma: Tensor
    """``(N,)``: root mean square of the noise."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(t.to(device) for t in self))


def measured_sigma(noise: Tensor, window: int = 16) -> Tensor:
    """Local standard deviation of known noise, the same for every noise type.

    Args:
        noise: ``(T, 3, H, W)``, one clip; its statistics are taken to be steady over T.
        window: half-resolution pixels over which squares are averaged.

    Returns:
        ``(6, H/2, W/2)``.
    """
    energy = rgb_to_bands(noise).square().mean(0)
    energy = torch.cat([energy[:3], (energy[3:6] + energy[6:9] + energy[9:]) / 3])
    small = F.avg_pool2d(energy.unsqueeze(0), window // 2, ceil_mode=True)
    small = F.avg_pool2d(F.pad(small, [1] * 4, mode="replicate"), 3, stride=1)
    smooth = F.interpolate(small, size=energy.shape[-2:], mode="bilinear", align_corners=False)
    return smooth[0].sqrt().clamp(min=SIGMA_MIN)


def as_gray(clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """A clip ``(T, 3, H, W)`` and its noise in three equal channels.

    The noise stays as strong as it was over the channels; their mean alone would be weaker, unless it was gray before.
    """
    noise = noisy - clean
    mean = noise.mean(1, keepdim=True)
    mean = mean * (noise.square().mean() / mean.square().mean().clamp(min=1e-12)).sqrt()
    gray = clean.mean(1, keepdim=True).expand_as(clean)
    return gray, gray + mean


def with_graphics(clean: Tensor, noisy: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Letterbox bars or a flat panel over a clip ``(T, 3, H, W)``, as they are added after the noise."""
    _, _, height, width = clean.shape
    mask = torch.zeros(height, width, dtype=torch.bool)
    if rng.random() < 0.5:
        bar = int(rng.integers(4, height // 3))
        mask[:bar] = mask[-bar:] = True
        mask = mask if rng.random() < 0.7 or height != width else mask.T
        colour = torch.full((3, 1), rng.choice([0.0, 16 / 255]), dtype=torch.float32)
    else:
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[top : top + rng.integers(8, height // 2), left : left + rng.integers(8, width // 2)] = True
        colour = torch.tensor(rng.random((3, 1)), dtype=torch.float32)
    clean, noisy = clean.clone(), noisy.clone()
    clean[..., mask] = colour
    noisy[..., mask] = colour
    return clean, noisy


class BatchMaker:
    """Draws noise for the sampler's clips, or noisy clips from the pool, as the configuration says.

    Raises:
        UsageError: the configuration names a noise type that there is not, or encoded clips and there is no pool.
    """

    def __init__(
        self, sampler: ClipSampler, config: TrainConfig, *, pool: CodecPool | None = None, seed: int = 0
    ) -> None:
        self.sampler, self.config, self.pool = sampler, config, pool
        self.names = list(config.noise)
        if unknown := [name for name in self.names if name not in NOISES and name != ENCODED]:
            raise UsageError(f"unknown noise type {unknown[0]!r}; there are: {', '.join(NOISES)}, {ENCODED}")
        if config.noise.get(ENCODED) and pool is None:
            raise UsageError(f"noise type {ENCODED} needs a pool of encoded clips")
        weights = np.array([config.noise[n] for n in self.names], float)
        self.weights = weights / weights.sum()
        self.generator = torch.Generator().manual_seed(seed)

    def make(self, n: int, frames: int, patch: int) -> Batch:
        """A batch of ``n`` clips."""
        rng, config = self.sampler.rng, self.config
        pairs, levels = self._pairs(n, frames, patch), []
        for i, (name, clean, noisy) in enumerate(pairs):
            if rng.random() < config.gray:
                clean, noisy = as_gray(clean, noisy)
            if rng.random() < config.quantised and name != ENCODED:  # those are of 8 bits as they are
                noisy = (noisy.clamp(0, 1) * 255).round() / 255
            if rng.random() < config.graphics:
                clean, noisy = with_graphics(clean, noisy, rng)
            level = measured_sigma(noisy - clean)
            levels.append(level.expand(frames, *level.shape))
            pairs[i] = name, clean, noisy
        clean, noisy, sigma = (torch.stack(t, 1) for t in ([p[1] for p in pairs], [p[2] for p in pairs], levels))
        mean_sigma = (noisy - clean).square().mean((0, 2, 3, 4)).sqrt().clamp(min=SIGMA_MIN)
        return Batch(clean, noisy, sigma, mean_sigma)

    def _pairs(self, n: int, frames: int, patch: int) -> list[tuple[str, Tensor, Tensor]]:
        """Noise type, clean and noisy frames ``(T, 3, H, W)`` of each clip; one call for all clips of a type."""
        rng = self.sampler.rng
        names = [self.names[i] for i in rng.choice(len(self.names), n, p=self.weights)]
        pairs: list[tuple[str, Tensor, Tensor]] = []
        for name in dict.fromkeys(names):
            count = names.count(name)
            if name == ENCODED:
                assert self.pool is not None  # or its weight is zero
                pairs += [(name, *self.pool.sample(frames, patch, rng)) for _ in range(count)]
            else:
                clean = torch.stack([self.sampler.sample(frames, patch) for _ in range(count)])
                noisy = NOISES[name](clean, self.generator)
                pairs += [(name, *pair) for pair in zip(clean, noisy, strict=True)]
        return pairs

    def state(self) -> dict:
        """For resuming exactly here."""
        return {"generator": self.generator.get_state(), "rng": self.sampler.rng.bit_generator.state}

    def restore(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.sampler.rng.bit_generator.state = state["rng"]
