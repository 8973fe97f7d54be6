"""Light that changes within a clip: cross-fades into another one, and flashes.

Such frames follow from their neighbours by no motion. A fusion that has never seen them averages over a fade, which
leaves a ghost of what was and of what comes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidnoise.training.config import Augment


def with_changing_light(clips: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Clean clips, as likely as ``augment`` says with a fade or a flash; single frames stay as they are.

    Args:
        clips: ``(N, T, 3, H, W)`` in [0, 1].
        augment: :attr:`Augment.fade` and :attr:`Augment.flash`.
        rng: draws; nothing where neither is asked for, so that runs without them see the same clips as ever.
    """
    n, frames = clips.shape[:2]
    if frames < 2 or not (augment.fade or augment.flash):
        return clips
    fading, flashing = (rng.random(n) < share for share in (augment.fade, augment.flash))
    if fading.any():
        # Into the next clip of the batch, mirrored lest a batch of one fades into itself.
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
    """Numbers ``(N, T)`` as they go with clips ``(N, T, 3, H, W)``."""
    return torch.from_numpy(values.astype(np.float32)).to(clips.device)[..., None, None, None]
