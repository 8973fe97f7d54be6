"""The interface between a stream's session and whatever runs the network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vidnoise.model import Denoised, Future, Scout, State


class Backend(Protocol):
    """Runs whole steps of one network on one device. It keeps nothing of a stream: many streams can share it.

    A backend is made by ``Class(network, device=..., dtype=...)`` and used from one thread at a time. It refuses what
    it cannot do when it is made, with a :class:`~vidnoise.errors.BackendError`.
    """

    @property
    def name(self) -> str:
        """As in :data:`BACKENDS`; of ``auto``, what it uses at the moment."""
        ...

    def initial_state(self, n: int, height: int, width: int) -> State:
        """A state that knows nothing, for ``n`` streams of one size (multiples of 16).

        What takes long for a size that was not seen before (compiling, capturing, measuring) may happen here.
        """
        ...

    def input_buffer(self, state: State) -> Tensor | None:
        """``(N, 3, H, W)`` float32: where the next frame for ``state`` is best made, which spares :meth:`step` a copy.

        The frame before lies there as well. ``None`` where one place is as good as another.
        """
        ...

    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        """Denoise the next frame of each of N streams.

        Args:
            noisy: ``(N, 3, H, W)`` float32 RGB on the device, nominally in [0, 1]; H and W multiples of 16.
            sigma: noise level in [0, 1] units: one for all streams, ``(N,)``, or ``(N, 6)`` by channel and band
                (:func:`~vidnoise.model.noise_level.told_levels`); ``None`` estimates it.
            boost: the noise is taken to be that many times as strong: one number, or ``(N, 2)``, of the luma and the
                chroma of each stream.
            keep: ``(N,)`` bool on the device; where it is false, the stream's past is forgotten (a cut lies before
                this frame).
            state: from :meth:`initial_state` or the step before. It is used up: the backend may overwrite it.

        Returns:
            The clean frames (float32), which the next step with the same state may overwrite; the level of the noise
            found or told, boost left out; and the next state.

        Raises:
            torch.OutOfMemoryError: the state is as it was, and the frame may be pushed again.
        """
        ...

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        """A scout that has seen nothing, for ``n`` streams of one size."""
        ...

    def measure(self, noisy: Tensor, sigma: float | Tensor | None, keep: Tensor, state: State) -> tuple[Tensor, State]:
        """The first half of :meth:`step`, for those who look ahead: :meth:`DenoiseNetwork.measure`. The level is the
        caller's."""
        ...

    def look(
        self, noisy: Tensor, level: Tensor, boost: float | Tensor, keep: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        """:meth:`DenoiseNetwork.look`; the scout is used up, the future is the caller's."""
        ...

    def smooth(
        self, noisy: Tensor, level: Tensor, boost: float | Tensor, keep: Tensor, state: State, future: Future
    ) -> Denoised:
        """The second half of :meth:`step`, with what was seen ahead: :meth:`DenoiseNetwork.smooth`.

        The result lasts as long as one of :meth:`step`.
        """
        ...


class BackendClass(Protocol):
    """What :data:`BACKENDS` names."""

    def __call__(self, network: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Backend: ...


def per_stream_boost(value: float | Tensor, noisy: Tensor) -> Tensor:
    """A boost, see :meth:`Backend.step`, as a float32 tensor ``(N, 2)`` beside the frames ``noisy``."""
    if isinstance(value, Tensor):
        return value.to(noisy.device, torch.float32).reshape(-1, 2).expand(noisy.shape[0], 2)
    return torch.full((noisy.shape[0], 2), float(value), device=noisy.device)
