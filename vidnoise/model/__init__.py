"""The network, in torch only."""

from .config import TIERS, ModelConfig
from .network import Denoised, DenoiseNetwork, State
from .noise_level import uniform_sigma

__all__ = ["TIERS", "DenoiseNetwork", "Denoised", "ModelConfig", "State", "uniform_sigma"]
