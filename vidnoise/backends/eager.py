"""PyTorch, operation by operation: runs everywhere, starts at once, and is what the others must agree with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..model import Denoised, DenoiseNetwork, State
from .cpu_operations import CpuOperations


class Eager:
    """See :class:`~vidnoise.backends.protocol.Backend`."""

    name = "eager"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network.in_precision(dtype)
        self._device = device
        if device.type == "cpu" and network.config.transform == "haar":
            self._network = copy.copy(self._network)  # its layers are shared
            self._network.operations = CpuOperations(network.operations)

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._network.initial_state(n, height, width, device=self._device)

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        return self._network.advance(noisy, sigma, boost, keep, state)
