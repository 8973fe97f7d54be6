"""The network, in torch only."""

from .config import TIERS, ModelConfig
from .network import Denoised, DenoiseNetwork
from .noise_level import uniform_sigma
from .state import Future, Scout, State

__all__ = ["TIERS", "DenoiseNetwork", "Denoised", "Future", "ModelConfig", "Scout", "State", "uniform_sigma"]
