"""Augmentation of colour and light, drawn once per clean clip for all its frames."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vidnoise.training.augment import HSV
from vidnoise.training.config import Augment


def colour_maps(n: int, contrast: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw contrast, saturation, channel permutations and tints as affine maps of RGB in [0, 1].

    Returns:
        ``(n, 3, 3)`` matrices and ``(n, 3)`` offsets.
    """

    def some(share: float, drawn: np.ndarray, else_: float) -> np.ndarray:
        chosen = rng.random(n) < share
        return np.where(chosen.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, else_)

    contrasts = rng.random(n) < contrast
    scale = np.where(contrasts, rng.uniform(0.8, 1.2, n), 1.0)
    offset = np.where(contrasts, rng.uniform(-0.1, 0.1, n), 0.0) + 0.5 * (1 - scale)
    # Photos are rarely as colourful as drawings and stage lights.
    saturation = some(0.35, rng.uniform(0.5, np.where(rng.random(n) < 0.5, 1.3, 3.5)), 1.0)[:, None, None]
    matrix = np.eye(3) * saturation + (1 - saturation) / 3
    order = np.where(rng.random(n)[:, None] < 0.25, rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1), np.arange(3))
    matrix = np.take_along_axis(matrix, order[:, :, None], 1)
    tint = some(0.3, rng.uniform(0.85, 1.1, (n, 3)), 1.0)
    # Contrast acts on all channels alike, and the rows of a saturation sum to one, so the offset passes through both.
    return matrix * (scale[:, None] * tint)[:, :, None], offset[:, None] * tint


def recoloured(clips: Tensor, settings: Augment, rng: np.random.Generator) -> Tensor:
    """Recolour clips ``(n, T, 3, H, W)`` in [0, 255]; return float32 in [0, 1], on the same device."""
    n, t, _, height, width = clips.shape
    device = clips.device

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)

    matrix, offset = colour_maps(n, settings.contrast, rng)
    matrix, offset = (np.repeat(a, t, 0) for a in (matrix / 255, offset))
    out = torch.baddbmm(tensor(offset)[..., None], tensor(matrix), clips.reshape(n * t, 3, -1))
    out = out.view(n, t, 3, height, width).clamp_(0, 1)
    night = np.flatnonzero(rng.random(n) < 0.2)  # noisy footage is dark footage
    if len(night):
        power, light = (tensor(rng.uniform(*r, len(night))).view(-1, 1, 1, 1, 1) for r in ((1.0, 2.0), (0.4, 1.0)))
        where = torch.from_numpy(night).to(device)
        out[where] = out[where] ** power * light
    return turned(out, settings.hsv, rng) if settings.hsv else out


def turned(clips: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Change hue, saturation and value of a share of the clips."""
    chosen = np.flatnonzero(rng.random(len(clips)) < share)
    if not len(chosen):
        return clips
    from kornia.color import hsv_to_rgb, rgb_to_hsv

    where = torch.from_numpy(chosen).to(clips.device)
    drawn = torch.from_numpy(rng.uniform(-HSV, HSV, (3, len(chosen), 1, 1, 1)).astype(np.float32))
    turn, saturation, value = drawn.to(clips.device)
    h, s, v = rgb_to_hsv(clips[where]).unbind(2)
    h = torch.remainder(h + 2 * math.pi * turn, 2 * math.pi)
    s, v = (s * (1 + saturation)).clamp(max=1), (v * (1 + value)).clamp(max=1)
    clips[where] = hsv_to_rgb(torch.stack([h, s, v], 2))
    return clips
