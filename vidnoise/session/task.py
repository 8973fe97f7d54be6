"""One frame, and the work asked of the network for it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vidnoise.frame import Frame


class Task(NamedTuple):
    """One frame, and what the network is asked to do with it."""

    frame: Frame
    noisy: Tensor
    """``(1, 3, H, W)`` RGB."""
    padded: Tensor
    """The same, its size extended to what the network takes."""
    sigma: Tensor | None
    """``(1, 6)``: the noise level, if it is known."""
    continues: Tensor
    """``(1,)`` bool: false where a cut lies before the frame."""
    strength: float
    map: Tensor | None
    sigma_scale: float | Tensor
    """Factor on the noise level; see :meth:`Denoiser.prepare`."""
