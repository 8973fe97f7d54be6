"""Clips from still photos: a camera that pans, zooms and turns, and an object that passes in front."""

from __future__ import annotations

import cv2
import numpy as np


def _path(frames: int, patch: int, size: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Affine maps from patch to photo coordinates, one a frame, along a smooth random path."""
    height, width = size
    zoom = rng.uniform(0.8, 1.3) if rng.random() < 0.7 else 1.0
    zoom = min(zoom, 0.95 * min(height, width) / patch)
    # Many scenes stand still, most move a little, a few move fast.
    speed = rng.choice([0.0, 1.0, 3.0, 8.0], p=[0.2, 0.35, 0.3, 0.15])
    velocity = rng.normal(0, 1, 2) * speed
    turn = np.deg2rad(rng.normal(0, 0.25) * speed / 3 + rng.normal(0, 0.1) * (speed > 0))
    growth = rng.normal(0, 0.004) * (speed > 0)
    shake = rng.normal(0, 0.6, (frames, 2)) * (speed > 0) * (rng.random() < 0.3)
    angle = np.deg2rad(rng.uniform(-15, 15)) if rng.random() < 0.5 else 0.0
    margin = patch * zoom * 0.5
    centre = np.array([rng.uniform(margin, max(margin + 1, n - margin)) for n in (width, height)])
    maps = []
    for t in range(frames):
        scale = zoom * (1 + growth) ** t
        c, s = np.cos(angle + turn * t) * scale, np.sin(angle + turn * t) * scale
        x, y = centre + velocity * t + shake[t]
        half = (patch - 1) / 2
        maps.append(np.array([[c, -s, x - c * half + s * half], [s, c, y - s * half - c * half]], np.float32))
    return maps


def _render(photo: np.ndarray, maps: list[np.ndarray], patch: int) -> np.ndarray:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack(
        [cv2.warpAffine(photo, m, (patch, patch), flags=flags, borderMode=cv2.BORDER_REFLECT) for m in maps]
    )


def _blob(patch: int, rng: np.random.Generator) -> np.ndarray:
    """A random soft-edged shape, ``(3 patch, 3 patch)`` float32 in [0, 1]."""
    size = 3 * patch
    coarse = cv2.resize(rng.normal(0, 1, (9, 9)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip((coarse - 0.35) * patch / 10, 0, 1)


def moving_photo(photos: list[np.ndarray], frames: int, patch: int, rng: np.random.Generator) -> np.ndarray:
    """A clip ``(frames, patch, patch, 3)`` uint8 from one photo, half the time with a second one as an object."""
    photo = photos[rng.integers(len(photos))]
    clip = _render(photo, _path(frames, patch, photo.shape[:2], rng), patch)
    if frames == 1 or rng.random() < 0.5:
        return clip
    other = photos[rng.integers(len(photos))]
    layer = _render(other, _path(frames, patch, other.shape[:2], rng), patch)
    shape = _blob(patch, rng)
    alpha = _render(shape, _path(frames, patch, shape.shape, rng), patch)[..., None]
    return (clip + alpha * (layer.astype(np.float32) - clip) + 0.5).astype(np.uint8)
