"""What the network remembers from frame to frame: explicit, so that one network serves many streams."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

UNKNOWN = 1e4
"""A variance ratio so large that the fusion takes the current frame only."""


class NoiseMemory(NamedTuple):
    """What is remembered of the noise."""

    noise: Tensor
    """``(N, 13, H/8, W/8)``: its parameters, see :meth:`NoiseLevel.remember`."""
    past: Tensor
    """``(N, 12, H/2, W/2)``: bands of the previous noisy frame, by which noise is told from texture."""


class Track(NamedTuple):
    """What is remembered of the pictures."""

    fused: Tensor
    """``(N, 3, H, W)`` RGB: motion-compensated running estimate of the noisy frames."""
    ratio: Tensor
    """``(N, 4, H/2, W/2)``: variance of the noise left in ``fused``, relative to that of one frame, of luma and chroma
    in the low-pass band, then in the details. 1/n after n well-aligned frames; ``UNKNOWN`` at the start."""
    clean: Tensor
    """``(N, 3, H, W)`` RGB: the previous output."""
    hidden: Tensor
    """``(N, C, H/4, W/4)``: features of the spatial core."""


class State(NamedTuple):
    """All that the network remembers of a stream. Only :class:`vidnoise.Denoiser` holds one for long."""

    fused: Tensor
    """See :class:`Track`, as of the next three."""
    ratio: Tensor
    clean: Tensor
    hidden: Tensor
    noise: Tensor
    """See :class:`NoiseMemory`, as of the next. Neither changes where the noise level is told."""
    past: Tensor

    @property
    def memory(self) -> NoiseMemory:
        """The part that :meth:`DenoiseNetwork.measure` reads and renews."""
        return NoiseMemory(self.noise, self.past)

    @property
    def track(self) -> Track:
        """The part that :meth:`DenoiseNetwork.smooth` reads and renews."""
        return Track(self.fused, self.ratio, self.clean, self.hidden)

    def detach(self) -> State:
        """The same values without their history, for truncated back-propagation through time."""
        return State(*(t.detach() for t in self))


class Scout(NamedTuple):
    """What a scout remembers, which goes through the frames ahead from the last to the first, by fusion alone."""

    fused: Tensor
    """As of :class:`Track`, estimated from the frames that follow."""
    ratio: Tensor
    """Likewise."""


class Future(NamedTuple):
    """What the frames that follow say of a frame, before it is looked at itself."""

    bands: Tensor
    """``(N, 12, H/2, W/2)``: the frame as they predict it."""
    ratio: Tensor
    """``(N, 4, H/2, W/2)``: variance of that prediction, relative to the noise of one frame; ``UNKNOWN`` where they say
    nothing."""


Memory = TypeVar("Memory", NoiseMemory, Track, State, Scout)


def keep(memory: Memory, known: Tensor) -> Memory:
    """``memory`` where ``known`` is true, else one that knows nothing (without a branch).

    Args:
        memory: of N streams.
        known: bool, ``(N,)`` one per stream, or a scalar for all.
    """
    known = known.reshape(-1, 1, 1, 1)
    kept = {
        name: torch.where(known, tensor, UNKNOWN) if name == "ratio" else tensor * known
        for name, tensor in memory._asdict().items()
    }
    return type(memory)(**kept)
