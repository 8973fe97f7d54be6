"""The network's task for one frame."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vidnoise.frame import Frame
from vidnoise.pictures import ToPicture


class Task(NamedTuple):
    """One frame, and the network's inputs for it."""

    frame: Frame
    noisy: Tensor
    """The picture, ``(1, 3, H, W)`` RGB."""
    padded: Tensor
    """The picture padded to a size that the network supports."""
    sigma: Tensor | None
    """The known noise level, ``(1, 6)`` or ``(1, 6, H/2, W/2)``; None to estimate it."""
    known_mean: float | None
    """The mean of the known noise level over the picture, in 8-bit units of the frame's samples."""
    continues: Tensor
    """Whether the stream continues from its state, ``(1,)`` bool: false after a cut."""
    strength: float
    map: Tensor | None
    sigma_scale: float | Tensor
    """Factor on the noise level; see :meth:`Denoiser.prepare`."""
    to_picture: ToPicture
    """Converts the clean frame to a picture of the kind that was pushed."""
