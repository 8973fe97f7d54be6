"""The network's recurrent state, explicit so that one network serves many streams."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

UNKNOWN = 1e4
"""A variance ratio so large that the fusion uses the current frame only."""


class NoiseMemory(NamedTuple):
    """The noise estimator's part of the state."""

    noise: Tensor
    """``(N, 13, H/8, W/8)``: running mean of the noise parameters, see :meth:`NoiseLevel.remember`."""
    past: Tensor
    """``(N, 12, H/2, W/2)``: bands of the previous noisy frame, which separate noise from texture."""


class Track(NamedTuple):
    """The picture's part of the state."""

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
    """The complete recurrent state of N streams. Only :class:`vidnoise.Denoiser` keeps one between frames."""

    fused: Tensor
    """See :class:`Track` for this and the next three."""
    ratio: Tensor
    clean: Tensor
    hidden: Tensor
    noise: Tensor
    """See :class:`NoiseMemory` for this and the next. Neither changes while the noise level is given."""
    past: Tensor

    @property
    def memory(self) -> NoiseMemory:
        """The part that :meth:`DenoiseNetwork.measure` reads and updates."""
        return NoiseMemory(self.noise, self.past)

    @property
    def track(self) -> Track:
        """The part that :meth:`DenoiseNetwork.smooth` reads and updates."""
        return Track(self.fused, self.ratio, self.clean, self.hidden)

    def detach(self) -> State:
        """Return the state detached from the autograd graph, for truncated back-propagation through time."""
        return State(*(t.detach() for t in self))


class Scout(NamedTuple):
    """State of the backward pass, which fuses the frames ahead from the last to the first."""

    fused: Tensor
    """``(N, 3, H, W)`` RGB: running estimate from the frames that follow, as :attr:`Track.fused`."""
    ratio: Tensor
    """``(N, 4, H/2, W/2)``: its variance ratio, as :attr:`Track.ratio`."""


class Future(NamedTuple):
    """A frame as predicted from the frames that follow it."""

    bands: Tensor
    """``(N, 12, H/2, W/2)``: bands of the prediction."""
    ratio: Tensor
    """``(N, 4, H/2, W/2)``: variance of the prediction, relative to the noise of one frame; ``UNKNOWN`` where there is
    none."""


Memory = TypeVar("Memory", NoiseMemory, Track, State, Scout)


def reset_unless(memory: Memory, continues: Tensor) -> Memory:
    """Reset ``memory`` to its initial values where ``continues`` is false, without a branch.

    Args:
        memory: State of N streams.
        continues: Bool, ``(N,)`` for one per stream, or a scalar for all.
    """
    continues = continues.reshape(-1, 1, 1, 1)
    kept = {
        name: torch.where(continues, tensor, UNKNOWN) if name == "ratio" else tensor * continues
        for name, tensor in memory._asdict().items()
    }
    return type(memory)(**kept)
