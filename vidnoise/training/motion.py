"""Synthetic motion of photos: a camera that pans, zooms and rotates, and soft-edged objects passing in front."""

from __future__ import annotations

import numpy as np

BLOB = 9
"""Side of the grid of random values from which an object's outline is made."""
BLOB_SCALE = 3
"""Side of that outline, in patches."""


def paths(frames: int, patch: int, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth random paths of a camera over pictures, one per picture.

    Args:
        frames: Length of the clips.
        patch: Height and width of the clips.
        sizes: ``(n, 2)``, height and width of each picture.
        rng: Random generator.

    Returns:
        ``(n, frames, 2, 3)`` float32: affine maps from (x, y) in the patch to (x, y) in the picture. They may lead
        outside, where pictures are mirrored.
    """
    n = len(sizes)
    zoom = np.where(rng.random(n) < 0.7, rng.uniform(0.8, 1.3, n), 1.0)
    zoom = np.minimum(zoom, 0.95 * sizes.min(1) / patch)
    # Many scenes stand still, most move a little, a few move fast.
    speed = rng.choice([0.0, 1.0, 3.0, 8.0], n, p=[0.2, 0.35, 0.3, 0.15])
    moves = speed > 0
    velocity = rng.normal(0, 1, (n, 2)) * speed[:, None]
    turn = np.deg2rad(rng.normal(0, 0.25, n) * speed / 3 + rng.normal(0, 0.1, n) * moves)
    growth = rng.normal(0, 0.004, n) * moves
    shakes = moves & (rng.random(n) < 0.3)
    shake = rng.normal(0, 0.6, (n, frames, 2)) * shakes[:, None, None]
    angle = np.where(rng.random(n) < 0.5, np.deg2rad(rng.uniform(-15, 15, n)), 0.0)
    margin = (patch * zoom * 0.5)[:, None]
    centre = rng.uniform(margin, np.maximum(margin + 1, sizes[:, ::-1] - margin))

    t = np.arange(frames)
    scale = zoom[:, None] * (1 + growth[:, None]) ** t
    turned = angle[:, None] + turn[:, None] * t
    c, s = np.cos(turned) * scale, np.sin(turned) * scale
    x, y = np.moveaxis(centre[:, None] + velocity[:, None] * t[:, None] + shake, -1, 0)
    half = (patch - 1) / 2
    rows = np.stack([c, -s, x - c * half + s * half], -1), np.stack([s, c, y - s * half - c * half], -1)
    return np.stack(rows, -2).astype(np.float32)
