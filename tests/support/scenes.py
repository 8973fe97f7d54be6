"""A textured clip that moves."""

from __future__ import annotations

import cv2
import numpy as np
import torch


def scene(n: int = 8, size: int = 96, speed: int = 2) -> torch.Tensor:
    """A textured scene under a moving camera, ``(n, 3, size, size)``: edges, gradients, fine detail."""
    rng = np.random.default_rng(7)
    canvas = cv2.resize(rng.random((6, 10, 3), np.float32), (size * 3, size + 32), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        corner = rng.integers(0, size * 3, 2)
        colour = tuple(float(c) for c in rng.random(3))
        cv2.rectangle(canvas, corner, corner + rng.integers(4, 30, 2), colour, -1)
    canvas = canvas.mean(2, keepdims=True) + 0.45 * (canvas - canvas.mean(2, keepdims=True))  # as colourful as photos
    frames = [canvas[8 : size + 8, i * speed : i * speed + size] for i in range(n)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).clamp(0, 1)
