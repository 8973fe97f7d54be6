"""The network's task for one frame."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vidnoise.frame import Frame


class Task(NamedTuple):
    """One frame, and the network's inputs for it."""

    frame: Frame
    noisy: Tensor
    """The picture, ``(1, 3, H, W)`` RGB."""
    padded: Tensor
    """The picture padded to a size that the network supports."""
    sigma: Tensor | None
    """The known noise level, ``(1, 6)``; None to estimate it."""
    continues: Tensor
    """Whether the stream continues from its state, ``(1,)`` bool: false after a cut."""
    strength: float
    map: Tensor | None
    sigma_scale: float | Tensor
    """Factor on the noise level; see :meth:`Denoiser.prepare`."""
