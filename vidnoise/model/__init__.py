"""The network, in torch only."""

from .config import TIERS, ModelConfig
from .network import DenoiseNetwork, State
from .noise_level import uniform_sigma

__all__ = ["TIERS", "DenoiseNetwork", "ModelConfig", "State", "uniform_sigma"]
