"""Batches: clean clips, their noisy versions, and the true noise level of each.

Everything is tensor operations on whole batches, on the device where the clips are rendered (:mod:`.pixels`); only the
random choices per clip are drawn on the CPU.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.color import centred
from vidnoise.color.colorimetry import LUMA_WEIGHTS
from vidnoise.errors import UsageError
from vidnoise.model.luma_chroma import rgb_to_bands
from vidnoise.model.noise_level import SIGMA_MIN
from vidnoise.training.codec_pool import CodecPool, PoolSampler
from vidnoise.training.config import ENCODED, Shape, TrainConfig
from vidnoise.training.data import ClipSampler
from vidnoise.training.light import with_changing_light
from vidnoise.training.noise import NOISES
from vidnoise.training.pixels import Pack, render_on


class Batch(NamedTuple):
    """A batch of N clips of T frames."""

    clean: Tensor
    """``(T, N, 3, H, W)`` in [0, 1]."""
    noisy: Tensor
    """``(T, N, 3, H, W)``, not clipped."""
    sigma: Tensor
    """``(T, N, 6, H/2, W/2)``: true noise level of luma and chroma, in the low-pass band and in the details."""
    mean_sigma: Tensor
    """``(N,)``: root mean square of the noise."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(t.to(device) for t in self))

    def parts(self, n: int) -> list[Batch]:
        """Split into ``n`` batches of every ``n``-th clip, so that each has all noise types, which are adjacent."""
        if n == 1:
            return [self]
        return [Batch(*(t[:, i::n].contiguous() for t in self[:3]), mean_sigma=self.mean_sigma[i::n]) for i in range(n)]


def measured_sigma(noise: Tensor, window: int = 16) -> Tensor:
    """Measure the local standard deviation of known noise, in the same way for every noise type.

    Args:
        noise: ``(N, T, 3, H, W)``; a clip's statistics are assumed steady over T.
        window: Side of the averaging window, in half-resolution pixels.

    Returns:
        ``(N, 6, H/2, W/2)``.
    """
    energy = rgb_to_bands(noise.flatten(0, 1)).square_().unflatten(0, noise.shape[:2]).mean(1)
    low, *details = energy.split(3, 1)
    energy = torch.cat([low, sum(details[1:], details[0]) / 3], 1)
    small = F.avg_pool2d(energy, window // 2, ceil_mode=True)
    small = F.avg_pool2d(F.pad(small, [1] * 4, mode="replicate"), 3, stride=1)
    smooth = F.interpolate(small, size=energy.shape[-2:], mode="bilinear", align_corners=False)
    return smooth.sqrt().clamp(min=SIGMA_MIN)


def as_gray(clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Convert clips ``(N, T, 3, H, W)`` and their noise to three equal channels.

    The noise keeps its strength averaged over the channels; a plain mean would weaken it, unless it was gray before.
    """
    noise = noisy - clean
    mean = noise.mean(2, keepdim=True)
    energy, left = (t.square().mean((1, 2, 3, 4), keepdim=True) for t in (noise, mean))
    gray = clean.mean(2, keepdim=True).expand_as(clean)
    return gray, gray + mean * (energy / left.clamp(min=1e-12)).sqrt()


def quantised(clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Clip the noisy clips and round them to 8 bits; clean ones are unchanged."""
    return clean, (noisy.clamp(0, 1) * 255).round() / 255


def with_graphics(clean: Tensor, noisy: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Overlay letterbox bars or a flat panel on clips ``(N, T, 3, H, W)``, free of noise as if added afterwards."""
    n, _, _, height, width = clean.shape
    bars = rng.random(n) < 0.5
    # Bars cover the outside of a rectangle, a panel its inside.
    bar = rng.integers(4, height // 3, n)
    upright = (rng.random(n) < 0.3) & (height == width)
    top, left = rng.integers(0, height // 2, n), rng.integers(0, width // 2, n)
    inside = top, top + rng.integers(8, height // 2, n), left, left + rng.integers(8, width // 2, n)
    lying, standing = (bar, height - bar, 0, width), (0, height, bar, width - bar)
    edges = [np.where(bars, np.where(upright, s, u), i) for s, u, i in zip(standing, lying, inside, strict=True)]
    colour = np.where(bars[:, None], rng.choice([0.0, 16 / 255], (n, 1)), rng.random((n, 3)))

    def tensor(values: np.ndarray, *shape: int) -> Tensor:
        return torch.from_numpy(values).to(clean.device).view(n, *shape)

    first, last, begin, end = (tensor(edge, 1, 1) for edge in edges)
    rows = torch.arange(height, device=clean.device).view(1, -1, 1)
    columns = torch.arange(width, device=clean.device)
    rectangle = (rows >= first) & (rows < last) & (columns >= begin) & (columns < end)
    mask = (rectangle ^ tensor(bars, 1, 1)).view(n, 1, 1, height, width)
    flat = tensor(colour.astype(np.float32), 1, 3, 1, 1)
    return torch.where(mask, flat, clean), torch.where(mask, flat, noisy)


LUMA_SHARES = torch.tensor([LUMA_WEIGHTS[1], LUMA_WEIGHTS[6]])
"""``(2, 2)``: luma weights of red and blue, for BT.709 and BT.601."""


def as_video(clips: Tensor, shares: Tensor) -> Tensor:
    """Convert RGB clips ``(N, T, 3, H, W)`` to centred RGB, in which the network gets video (:mod:`vidnoise.color`).

    Args:
        clips: Clean or noisy.
        shares: ``(N, 2)``: luma weights of red and blue.
    """
    kr, kb = (share.view(-1, 1, 1, 1, 1).to(clips.device) for share in shares.unbind(1))
    return centred(clips, kr, kb)


AHEAD = 2**24
"""Pixels up to which a GPU makes several batches at once, as a small batch takes it as long as a large one."""


class BatchMaker:
    """Makes batches of random clips with drawn noise, or of noisy clips from the pool, as configured.

    Args:
        config: Defines the noise and its modifications.
        pack: Source of the clips.
        pool: Encoded clips, if the configuration uses them.
        where: ``cpu``, ``device`` or ``auto``: see :func:`~vidnoise.training.pixels.render_on`.
        device: The training device.
        seed: Seed of all draws.

    Raises:
        UsageError: The configuration names an unknown noise type, or uses encoded clips without a pool.
    """

    def __init__(
        self,
        config: TrainConfig,
        pack: Pack,
        pool: CodecPool | None = None,
        *,
        where: str = "cpu",
        device: torch.device | None = None,
        seed: int = 0,
    ) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        self.names = list(config.noise)
        if unknown := [name for name in self.names if name not in NOISES and name != ENCODED]:
            raise UsageError(f"unknown noise type {unknown[0]!r}; there are: {', '.join(NOISES)}, {ENCODED}")
        if config.noise.get(ENCODED) and pool is None:
            raise UsageError(f"noise type {ENCODED} needs a pool of encoded clips")
        weights = np.array([config.noise[n] for n in self.names], float)
        self.weights = weights / weights.sum()
        pixels, *pool_pixels = render_on(where, [p for p in (pack, pool) if p is not None], device, config.augment)
        self.sampler = ClipSampler(pack, pixels, synthetic=config.synthetic, rng=self.rng, augment=config.augment)
        self.pool = PoolSampler(pool, pool_pixels[0], self.rng) if pool else None
        self.generator = torch.Generator(pixels.device).manual_seed(seed)
        self.ahead = AHEAD if pixels.device.type == "cuda" else 0
        self.made: dict[Shape, list[Batch]] = {}

    def next(self, shape: Shape) -> Batch:
        """Return the next batch of a shape.

        Batches made ahead are not part of :meth:`state`, so a resumed run on a GPU sees different ones.
        """
        made = self.made.setdefault(shape, [])
        if not made:
            n = max(1, self.ahead // shape.pixels)
            made += self.make(n * shape.clips, shape.frames, shape.patch).parts(n)
        return made.pop()

    def make(self, n: int, frames: int, patch: int) -> Batch:
        """Make a batch of ``n`` clips, on the device where they are rendered."""
        rng, config = self.rng, self.config
        clean, noisy, is_video = self._pairs(n, frames, patch)
        changes = (
            (as_gray, rng.random(n) < config.gray),
            # For video, the planes are quantised: in encoded clips they already are.
            (quantised, (rng.random(n) < config.quantised) & ~is_video),
            (partial(with_graphics, rng=rng), rng.random(n) < config.graphics),
        )
        for change, chosen in changes:
            if chosen.any():
                places = torch.from_numpy(np.flatnonzero(chosen)).to(clean.device)
                clean[places], noisy[places] = change(clean[places], noisy[places])
        noise = noisy - clean
        sigma = measured_sigma(noise).expand(frames, -1, -1, -1, -1)
        mean_sigma = noise.square().mean((1, 2, 3, 4)).sqrt().clamp(min=SIGMA_MIN)
        return Batch(clean.transpose(0, 1).contiguous(), noisy.transpose(0, 1).contiguous(), sigma, mean_sigma)

    def blind(self, n: int) -> Tensor:
        """Draw which of ``n`` clips get the estimated noise level: ``(n,)`` bool, on the CPU."""
        return torch.from_numpy(self.rng.random(n) < self.config.blind)

    def _pairs(self, n: int, frames: int, patch: int) -> tuple[Tensor, Tensor, np.ndarray]:
        """Make clean and noisy clips ``(n, T, 3, H, W)``, grouped by noise type, and a mask of those that are video."""
        rng = self.rng
        counts = rng.multinomial(n, self.weights)
        cleans, noisys, is_video = [], [], []
        for name, count in zip(self.names, counts.tolist(), strict=True):
            if not count:
                continue
            video = np.full(count, name in (ENCODED, "centred_planes")) | (rng.random(count) < self.config.video)
            shares = LUMA_SHARES[torch.from_numpy(rng.integers(2, size=count))]
            if name == ENCODED:
                assert self.pool is not None  # otherwise its weight is zero
                clean, noisy, shares = self.pool.sample(count, frames, patch)
            else:
                clean = self.sampler.sample(count, frames, patch)
                clean = with_changing_light(clean, self.config.augment, rng)
                if name == "centred_planes":
                    clean = as_video(clean, shares)
                noisy = NOISES[name](clean, self.generator)
            if name != "centred_planes" and video.any():
                places = torch.from_numpy(np.flatnonzero(video))
                at = places.to(clean.device)
                clean[at], noisy[at] = (as_video(clips[at], shares[places]) for clips in (clean, noisy))
            cleans.append(clean)
            noisys.append(noisy)
            is_video.append(video)
        return torch.cat(cleans), torch.cat(noisys), np.concatenate(is_video)

    def state(self) -> dict:
        """Return the state of the random draws, for an exact resume."""
        return {"generator": self.generator.get_state(), "rng": self.rng.bit_generator.state}

    def restore(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.rng.bit_generator.state = state["rng"]
