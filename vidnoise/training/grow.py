"""Initialisation of larger networks from smaller ones, so that a tier starts from the weights of a lower one.

New channels do not affect the old ones, and new residual blocks add nothing, so the larger network initially computes
the same function as the smaller one (Chen, Goodfellow and Shlens, "Net2Net", arXiv:1511.05641).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidnoise.model.dncnn import ResidualBlock


@torch.no_grad()
def grow(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load the weights of a module of the same kind, of equal or smaller size, into ``module``, in place.

    Raises:
        ValueError: ``weights`` has a key that ``module`` lacks, or is larger, or lacks anything but residual blocks.
    """
    own = module.state_dict()
    if surplus := weights.keys() - own.keys():
        raise ValueError(f"there is no {min(surplus)}")
    blocks = {f"{name}." for name, m in module.named_modules() if isinstance(m, ResidualBlock)}
    for key, new in own.items():
        old = weights.get(key)
        if old is None:
            block = next((b for b in blocks if key.startswith(b)), None)
            if block is None or any(k.startswith(block) for k in weights):
                raise ValueError(f"{key} is missing")
            if key.startswith(f"{block}conv2."):
                new.zero_()
            continue
        if old.ndim != new.ndim or any(o > n for o, n in zip(old.shape, new.shape, strict=True)):
            raise ValueError(f"{key} is {tuple(old.shape)}, not within {tuple(new.shape)}")
        if new.ndim > 1:
            new[: old.shape[0], old.shape[1] :] = 0  # old outputs ignore new inputs
        new[tuple(slice(n) for n in old.shape)] = old
