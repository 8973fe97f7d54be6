"""PyTorch, operation by operation: runs everywhere, starts at once, and is what the others must agree with."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from ..model import Denoised, DenoiseNetwork, State


class Eager:
    """See :class:`~vidnoise.backends.protocol.Backend`."""

    name = "eager"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network
        self._device = device
        self._dtype = dtype

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._network.initial_state(n, height, width, device=self._device)

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        with self._arithmetic():
            return self._network.advance(noisy, sigma, boost, keep, state)
