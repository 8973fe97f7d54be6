"""Network sizes: the configuration by which tiers differ, saved as JSON in the weights and loaded strictly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a :class:`~vidnoise.model.network.DenoiseNetwork`."""

    widths: tuple[int, ...]
    """Channels of the spatial core at 1/2, 1/4 and, if it has a third scale, 1/8 resolution."""
    blocks: tuple[int, ...]
    """Residual blocks per stage, from the finest scale to the coarsest and back: at 1/2, 1/4, 1/2, or at 1/2, 1/4, 1/8,
    1/4, 1/2."""
    hidden: int
    """Recurrent feature channels at 1/4 resolution."""
    fusion_width: int = 16
    noise_width: int = 16
    separable: bool = False
    """Depthwise-separable convolutions in the residual blocks of the spatial core (MobileNets, arXiv:1704.04861)."""
    quantised: bool = False
    """The spatial core can run in int8, see :mod:`vidnoise.model.quantisation`: its weights are rounded, and the ranges
    of its activations are known."""

    def __post_init__(self) -> None:
        """Check that widths and blocks fit each other.

        Raises:
            ValueError: They do not.
        """
        if len(self.widths) not in (2, 3) or len(self.blocks) != 2 * len(self.widths) - 1:
            raise ValueError("a network has 2 widths and 3 numbers of blocks, or 3 widths and 5 numbers of blocks")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: For unknown or missing keys.
        """
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown model settings: {', '.join(sorted(unknown))}")
        try:
            arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**arguments)
        except TypeError as ex:
            raise ValueError(f"incomplete model settings: {ex}") from ex


TIERS: dict[str, ModelConfig] = {
    "fast": ModelConfig(widths=(16, 32), blocks=(1, 2, 1), hidden=12, fusion_width=8),
    "standard": ModelConfig(widths=(32, 64), blocks=(1, 2, 1), hidden=16, fusion_width=8),
    "quality": ModelConfig(widths=(64, 128), blocks=(1, 2, 1), hidden=32, fusion_width=8),
}  # fmt: skip
"""Tiers by name. A new tier needs one entry here and a training configuration."""
