"""The interface between a stream's session and the backend that runs the network."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from vidnoise.model import Denoised, Future, Scout, State
from vidnoise.model.luma_chroma import rgb_to_bands
from vidnoise.model.state import UNKNOWN


class Backend(Protocol):
    """Runs whole steps of one network on one device. It holds no state of a stream, so many streams can share it.

    A backend is constructed as ``Class(network, device=..., dtype=...)`` and used from one thread at a time. An
    unsupported configuration raises a :class:`~vidnoise.errors.BackendError` on construction.
    """

    @property
    def name(self) -> str:
        """Name in :data:`BACKENDS`; for ``auto``, the backend that it uses at the moment."""
        ...

    def initial_state(self, n: int, height: int, width: int) -> State:
        """Return an empty state for ``n`` streams of one size (multiples of 16).

        Lengthy preparations for a new size (compiling, capturing, measuring) may happen here.
        """
        ...

    def input_buffer(self, state: State) -> Tensor | None:
        """Return the buffer in which the next frame for ``state`` is best made, which saves :meth:`step` a copy.

        It is ``(N, 3, H, W)`` float32, and still contains the previous frame. ``None`` if there is no such buffer.
        """
        ...

    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        """Denoise the next frame of each of N streams.

        Args:
            noisy: ``(N, 3, H, W)`` float32 RGB on the device, nominally in [0, 1]; H and W multiples of 16.
            sigma: Noise level in [0, 1] units: one for all streams, ``(N,)``, ``(N, 6)`` by channel and band
                (:func:`~vidnoise.model.noise_level.known_levels`), or ``(N, 6, H/2, W/2)`` by place, too; ``None``
                estimates it.
            sigma_scale: Factor on the noise level: a number, or ``(N, 2)`` for the luma and chroma of each stream.
            continues: ``(N,)`` bool on the device; where false, the stream's past is reset, as after a cut before this
                frame.
            state: From :meth:`initial_state` or the previous step. It is consumed: the backend may overwrite it.

        Returns:
            The clean frames (float32), which the next step with the same state may overwrite; the noise level as
            estimated or given, without the scale; and the next state.

        Raises:
            torch.OutOfMemoryError: The state is unchanged, and the frame may be pushed again.
        """
        ...

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        """Return an empty scout for ``n`` streams of one size."""
        ...

    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Run the first half of :meth:`step`, for use with lookahead: :meth:`DenoiseNetwork.measure`.

        The returned level is never overwritten.
        """
        ...

    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        """Run :meth:`DenoiseNetwork.look`. The scout is consumed; the returned future is never overwritten."""
        ...

    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State, future: Future
    ) -> Denoised:
        """Run the second half of :meth:`step`, with the prediction of :meth:`look`: :meth:`DenoiseNetwork.smooth`.

        The result is valid for as long as that of :meth:`step`.
        """
        ...


class BackendClass(Protocol):
    """Constructor of a backend, as named in :data:`BACKENDS`."""

    def __call__(self, network: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Backend: ...


def is_map(sigma: float | Tensor | None) -> TypeGuard[Tensor]:
    """Return whether a noise level, see :meth:`Backend.step`, is given by place."""
    return isinstance(sigma, Tensor) and sigma.ndim == 4


def step_by_place(
    backend: Backend, noisy: Tensor, sigma: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State
) -> Denoised:
    """Run :meth:`Backend.step` with the noise level by place, for graphs of a step that take one for the whole picture.

    The graphs for lookahead take it by place. As the frames ahead are unknown, their prediction is the frame itself,
    with next to no weight.
    """
    n, _, height, width = noisy.shape
    level, state = backend.measure(noisy, sigma, continues, state)
    future = Future(rgb_to_bands(noisy), noisy.new_full((n, 4, height // 2, width // 2), UNKNOWN))
    return backend.smooth(noisy, level, sigma_scale, continues, state, future)


def per_stream_scale(value: float | Tensor, noisy: Tensor) -> Tensor:
    """Return a scale of sigma, see :meth:`Backend.step`, as a float32 tensor ``(N, 2)`` on the device of ``noisy``."""
    if isinstance(value, Tensor):
        return value.to(noisy.device, torch.float32).reshape(-1, 2).expand(noisy.shape[0], 2)
    return torch.full((noisy.shape[0], 2), float(value), device=noisy.device)
