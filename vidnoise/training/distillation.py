"""Distillation: learning also from the pictures of a larger network."""

from __future__ import annotations

import torch
from torch import Tensor

from vidnoise.model import DenoiseNetwork
from vidnoise.training.batch import Batch
from vidnoise.training.config import TrainConfig
from vidnoise.weights import load_model


class Teacher:
    """A trained network whose pictures a smaller one learns from, beside the clean frames (arXiv:1503.02531).

    The mean square error to a clean frame is mostly noise that no network can foresee; the teacher's picture lacks it,
    so the gradients that it gives vary less. It has the true noise level and looks both ways, whatever the student has.

    Args:
        network: Put into evaluation mode, without gradients.
        weight: Share of the teacher's picture in the target, 0 to 1.
    """

    def __init__(self, network: DenoiseNetwork, weight: float) -> None:
        self.network = network.requires_grad_(False).eval()
        self.weight = weight

    @classmethod
    def of(cls, config: TrainConfig, device: torch.device) -> Teacher | None:
        """Return the teacher that a configuration names, if any."""
        if config.teacher is None:
            return None
        return cls(load_model(config.teacher).network.place(device), config.teacher_weight)

    def teach(self, batch: Batch) -> Batch:
        """Return the batch with targets that are partly the teacher's pictures."""
        return batch._replace(clean=torch.lerp(batch.clean, pictures(self.network, batch), self.weight))


@torch.no_grad()
def pictures(network: DenoiseNetwork, batch: Batch) -> Tensor:
    """Denoise a batch of single frames, or of clips both ways, told the noise level; returns ``(T, N, 3, H, W)``."""
    frames, n, _, height, width = batch.noisy.shape
    if frames == 1:
        return network.still(batch.noisy[0], batch.sigma[0])[None]
    device = batch.noisy.device
    scout = network.initial_scout(n, height, width, device=device)
    futures = []
    for noisy, level in zip(batch.noisy.flip(0), batch.sigma.flip(0), strict=True):
        future, scout = network.predict(noisy, level, scout)
        futures.append(future)
    state = network.initial_state(n, height, width, device=device)
    pictures = []
    for noisy, level, future in zip(batch.noisy, batch.sigma, reversed(futures), strict=True):
        picture, state, _ = network(noisy, level, state, future)
        pictures.append(picture)
    return torch.stack(pictures)
