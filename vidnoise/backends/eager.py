"""Plain PyTorch, operation by operation: runs everywhere, starts at once, and is the reference for all others."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from vidnoise.kernels.native_operations import operations_for_cpu
from vidnoise.model import Denoised, DenoiseNetwork, Future, Scout, State


class Eager:
    """The reference backend, in plain PyTorch."""

    name = "eager"

    def __init__(self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype) -> None:
        self.network = network.in_precision(dtype)
        self._device = device
        if device.type == "cpu":
            self.network = copy.copy(self.network)  # its layers are shared
            self.network.operations = operations_for_cpu()

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self.network.initial_state(n, height, width, device=self._device)

    def input_buffer(self, state: State) -> None:
        return None

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        return self.network.step(noisy, sigma, sigma_scale, continues, state)

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        return self.network.initial_scout(n, height, width, device=self._device)

    @torch.inference_mode()
    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:
        return self.network.measure(noisy, sigma, continues, state)

    @torch.inference_mode()
    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        return self.network.look(noisy, level, sigma_scale, continues, scout)

    @torch.inference_mode()
    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State, future: Future
    ) -> Denoised:
        return self.network.smooth(noisy, level, sigma_scale, continues, state, future)
