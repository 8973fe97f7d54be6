"""The network, in torch only."""

from .config import TIERS, ModelConfig
from .network import Denoised, DenoiseNetwork
from .noise_level import told_levels, uniform_sigma
from .state import Future, Scout, State

__all__ = [
    "TIERS",
    "DenoiseNetwork",
    "Denoised",
    "Future",
    "ModelConfig",
    "Scout",
    "State",
    "told_levels",
    "uniform_sigma",
]
