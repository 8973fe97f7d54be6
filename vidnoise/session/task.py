"""One frame, and the work asked of the network for it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vidnoise.frame import Frame
from vidnoise.pictures import Restore


class Task(NamedTuple):
    """One frame, and what the network is asked to do with it."""

    frame: Frame
    noisy: Tensor
    """``(1, 3, H, W)`` RGB."""
    padded: Tensor
    """The same, its size extended to what the network takes."""
    sigma: Tensor | None
    """``(1, 6)`` or ``(1, 6, H/2, W/2)``: the noise level, if it is known."""
    known_mean: float | None
    """Its mean over the picture, in 8-bit units of the frame's samples."""
    continues: Tensor
    """``(1,)`` bool: false where a cut lies before the frame."""
    strength: float
    map: Tensor | None
    sigma_scale: float | Tensor
    """Factor on the noise level; see :meth:`Denoiser.prepare`."""
    restore: Restore
    """From the clean frame to a picture like the one that was pushed."""
