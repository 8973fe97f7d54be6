"""Batches: clean clips, their noisy versions, and the true noise level of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..model.noise_level import SIGMA_MIN
from ..model.luma_chroma import rgb_to_bands
from ..noise import NOISES, Noise
from .config import TrainConfig
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


def noise_type(name: str) -> Noise:
    """A noise type by name: those of :data:`vidnoise.noise.NOISES`, and ``h264``.

    Raises:
        UsageError: there is none of that name.
    """
    if name == "h264":
        from .codec_noise import h264  # needs PyAV, which not every training machine has

        return h264
    if name not in NOISES:
        raise UsageError(f"unknown noise type {name!r}; there are: {', '.join(NOISES)}, h264")
    return NOISES[name]


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
    """Draws noise for the sampler's clips, as the configuration says.

    Raises:
        UsageError: the configuration names a noise type that there is not.
    """

    def __init__(self, sampler: ClipSampler, config: TrainConfig, *, seed: int = 0) -> None:
        self.sampler, self.config = sampler, config
        self.names = list(config.noise)
        self.types = {name: noise_type(name) for name in self.names}
        weights = np.array([config.noise[n] for n in self.names], float)
        self.weights = weights / weights.sum()
        self.generator = torch.Generator().manual_seed(seed)

    def make(self, n: int, frames: int, patch: int) -> Batch:
        """A batch of ``n`` clips."""
        clean, noisy, sigma = [], [], []
        rng, config = self.sampler.rng, self.config
        for _ in range(n):
            clip = self.sampler.sample(frames, patch)
            name = self.names[rng.choice(len(self.names), p=self.weights)]
            noised = self.types[name](clip, self.generator)
            if rng.random() < config.gray:
                # Times sqrt(3), so that averaging three channels does not weaken the noise.
                clip, noise = (t.mean(1, keepdim=True).expand_as(t) for t in (clip, noised - clip))
                noised = clip + noise * 3**0.5
            if rng.random() < config.quantised:
                noised = (noised.clamp(0, 1) * 255).round() / 255
            if rng.random() < config.graphics:
                clip, noised = with_graphics(clip, noised, rng)
            level = measured_sigma(noised - clip)
            clean.append(clip)
            noisy.append(noised)
            sigma.append(level.expand(frames, *level.shape))
        stacked = [torch.stack(t, 1) for t in (clean, noisy, sigma)]
        mean_sigma = (stacked[1] - stacked[0]).square().mean((0, 2, 3, 4)).sqrt().clamp(min=SIGMA_MIN)
        return Batch(stacked[0], stacked[1], stacked[2], mean_sigma)

    def state(self) -> dict:
        """For resuming exactly here."""
        return {"generator": self.generator.get_state(), "rng": self.sampler.rng.bit_generator.state}

    def restore(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.sampler.rng.bit_generator.state = state["rng"]
