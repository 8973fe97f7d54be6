"""The denoising network, in plain PyTorch."""

from vidnoise.model.config import TIERS, ModelConfig
from vidnoise.model.network import Denoised, DenoiseNetwork
from vidnoise.model.noise_level import known_levels, uniform_sigma
from vidnoise.model.state import Future, Scout, State

__all__ = [
    "TIERS",
    "DenoiseNetwork",
    "Denoised",
    "Future",
    "ModelConfig",
    "Scout",
    "State",
    "known_levels",
    "uniform_sigma",
]
