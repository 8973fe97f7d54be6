"""Augmentation with kornia: rotation, elastic deformation, and hue, saturation and value.

One draw serves all frames of a clip, so that motion stays realistic and light steady. Flips, transposition and contrast
do not need kornia and are done in :mod:`.pixels` and :mod:`.colours`.

Cost on one thread, for 8 frames of 112×112 (a clip without augmentation takes 1.2 ms, one from a moving photo 4.2 ms):
rotation 9.2 ms, elastic deformation 9.6 ms, both 11.1 ms (one resampling), hsv 9.5 ms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vidnoise.errors import UsageError
from vidnoise.training.config import Augment

ANGLE_DEGREES = 15.0
ALPHA, SIGMA = 30.0, 5.0
"""Parameters of the elastic deformation (Simard et al., 2003), in pixels: noise in [-1, 1] is smoothed by a Gaussian of
``SIGMA`` and multiplied by ``ALPHA``, which displaces by 1 pixel on average and hardly ever by more than ``REACH``."""
REACH = 5
HSV = 0.2
"""Maximum shift of hue, as a share of the circle, and of the factors of saturation and value from 1."""


class Augmenter:
    """Draws the deformations that are enabled.

    Raises:
        UsageError: Kornia is needed but not installed.
    """

    def __init__(self, settings: Augment) -> None:
        self.settings = settings
        if settings.rotate or settings.elastic or settings.hsv:
            try:
                import kornia  # noqa: F401
            except ImportError as ex:
                raise UsageError("augmentation needs kornia: pip install kornia") from ex

    def draw(self, patch: int, rng: np.random.Generator) -> Deformation | None:
        """Draw the deformation of the next clip of ``patch`` × ``patch`` pixels; ``None`` for no deformation."""
        # Disabled deformations draw nothing, so that runs without them keep seeing the same clips.
        turns = self.settings.rotate > 0 and rng.random() < self.settings.rotate
        bends = self.settings.elastic > 0 and rng.random() < self.settings.elastic
        if not (turns or bends):
            return None
        angle = math.radians(rng.uniform(-ANGLE_DEGREES, ANGLE_DEGREES)) if turns else 0.0
        field = rng.uniform(-1, 1, (1, 2, patch, patch)).astype(np.float32) if bends else None
        return Deformation(patch, angle, field)

    def draw_fields(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw which of ``n`` clips are fields of interlaced video: ``(n,)`` bool."""
        return rng.random(n) < self.settings.fields if self.settings.fields > 0 else np.zeros(n, bool)


class Deformation:
    """A rotation and an elastic deformation in one resampling, from a crop that is larger than the clip.

    Args:
        patch: Height and width of the resulting clip.
        angle: Radians.
        field: ``(1, 2, patch, patch)`` noise in [-1, 1], or ``None``.
    """

    def __init__(self, patch: int, angle: float, field: np.ndarray | None) -> None:
        self.patch, self.angle, self.field = patch, angle, field
        side = patch * (math.cos(angle) + math.sin(abs(angle))) + (2 * REACH if field is not None else 0)
        self.crop = 2 * math.ceil(side / 2) + 2
        """Size of the crop to pass in: nothing beyond it is sampled, except by very rare deformations."""

    def __call__(self, crop: Tensor) -> Tensor:
        """Deform ``(T, 3, crop, crop)`` to ``(T, 3, patch, patch)``, float32; the crop is mirrored at its edges."""
        from kornia.filters import gaussian_blur2d
        from kornia.geometry.transform import remap

        half = (self.patch - 1) / 2
        y, x = torch.meshgrid(*[torch.arange(self.patch, dtype=torch.float32) - half] * 2, indexing="ij")
        if self.field is not None:
            size = 2 * round(3 * SIGMA) + 1
            bend = gaussian_blur2d(torch.from_numpy(self.field), (size, size), (SIGMA, SIGMA))[0] * ALPHA
            x, y = x + bend[0], y + bend[1]
        c, s = math.cos(self.angle), math.sin(self.angle)
        centre = (self.crop - 1) / 2
        across, down = (c * x - s * y + centre)[None], (s * x + c * y + centre)[None]
        # Bicubic, because the clips are training targets and must stay sharp.
        out = remap(crop, across, down, mode="bicubic", padding_mode="reflection", align_corners=True)
        return out.clamp(0, 1)
