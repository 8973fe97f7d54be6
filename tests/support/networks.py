"""A tiny network and noisy frames for it."""

from __future__ import annotations

import torch

from vidnoise.model import ModelConfig

TINY = ModelConfig(
    widths=(8, 8, 8),
    blocks=(0, 1, 1, 0, 0),
    hidden=4,
    fusion_width=8,
    noise_width=4,
)


def scene(height: int, width: int, *, seed: int = 4) -> torch.Tensor:
    """A picture ``(1, 3, height, width)`` with detail at all scales."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, height, width)
    for scale in (4, 8, 16, 32):
        coarse = torch.rand(1, 3, height // scale + 2, width // scale + 2, generator=generator)
        picture += torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic") / 4
    return picture


def noisy_frames(n: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """A scene that moves by a pixel a frame, ``(n, 1, 3, height, width)``."""
    wide = scene(height, width + n)
    clean = torch.stack([wide[..., i : i + width] for i in range(n)])
    return clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
