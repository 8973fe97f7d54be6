"""Augmentation by changing light within a clip: cross-fades into another one, and flashes.

No motion explains such frames from their neighbours. A fusion that has never seen them averages over a fade, which
leaves ghosts of the scenes before and after.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidnoise.training.config import Augment


def with_changing_light(clips: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Add fades and flashes to clean clips at random; single frames stay unchanged.

    Args:
        clips: ``(N, T, 3, H, W)`` in [0, 1].
        augment: Probabilities :attr:`Augment.fade` and :attr:`Augment.flash`.
        rng: Random generator; unused if both are 0, so that runs without them keep seeing the same clips.
    """
    n, frames = clips.shape[:2]
    if frames < 2 or not (augment.fade or augment.flash):
        return clips
    fading, flashing = (rng.random(n) < share for share in (augment.fade, augment.flash))
    if fading.any():
        # Into the next clip of the batch, mirrored so that a batch of one does not fade into itself.
        others = clips.roll(1, 0).flip(4)
        begin, length = rng.uniform(-frames, frames, n), rng.uniform(2, 1.5 * frames, n)
        share = np.clip((np.arange(frames) - begin[:, None]) / length[:, None], 0, 1) * fading[:, None]
        clips = torch.lerp(clips, others, _per_frame(share, clips))
    if flashing.any():
        at, gain, offset = rng.integers(frames, size=n), rng.uniform(0.4, 2.0, n), rng.uniform(-0.1, 0.3, n)
        chosen = (np.arange(frames) == at[:, None]) & flashing[:, None]
        gains, offsets = (np.where(chosen, v[:, None], same) for v, same in ((gain, 1.0), (offset, 0.0)))
        clips = (clips * _per_frame(gains, clips) + _per_frame(offsets, clips)).clamp(0, 1)
    return clips


def _per_frame(values: np.ndarray, clips: Tensor) -> Tensor:
    """Shape numbers ``(N, T)`` to broadcast with clips ``(N, T, 3, H, W)``."""
    return torch.from_numpy(values.astype(np.float32)).to(clips.device)[..., None, None, None]
