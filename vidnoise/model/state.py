"""What the network remembers from frame to frame: explicit, so that one network serves many streams."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

UNKNOWN = 1e3
"""A variance ratio so large that the fusion takes the current frame only."""


class State(NamedTuple):
    """All that the network remembers of a stream. Only :class:`vidnoise.Denoiser` holds one for long."""

    fused: Tensor
    """``(N, 3, H, W)``: motion-compensated running estimate of the noisy frames."""
    ratio: Tensor
    """``(N, 2, H/2, W/2)``: variance of the noise left in ``fused``, relative to that of one frame, for
    the low-pass band and the details. 1/n after n well-aligned frames; ``UNKNOWN`` at the start."""
    clean: Tensor
    """``(N, 3, H, W)``: the previous output."""
    hidden: Tensor
    """``(N, C, H/4, W/4)``: features of the spatial core."""
    noise: Tensor
    """``(N, 13, H/8, W/8)``: parameters of the noise, see :meth:`NoiseLevel.remember`."""

    def detach(self) -> State:
        """The same values without their history, for truncated back-propagation through time."""
        return State(*(t.detach() for t in self))

    def keep(self, known: Tensor) -> State:
        """This state where ``known`` is true, else one that knows nothing (without a branch).

        Args:
            known: bool, ``(N,)`` one per stream, or a scalar for all.
        """
        known = known.reshape(-1, 1, 1, 1)
        ratio = torch.where(known, self.ratio, torch.full_like(self.ratio, UNKNOWN))
        return State(self.fused * known, ratio, self.clean * known, self.hidden * known, self.noise * known)
