"""Layers that have died: whose channels are negative for every input, so that the ReLU behind them returns zeros."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from vidnoise.model import DenoiseNetwork
from vidnoise.model.dncnn import ResidualBlock


def before_relu(core: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a spatial core that a ReLU follows, by name."""
    found = {name: layer for name, layer in core.named_children() if name in ("stem", "to2", "to3")}
    blocks = ((name, block) for name, block in core.named_modules() if isinstance(block, ResidualBlock))
    return found | {f"{name}.conv1": block.conv1 for name, block in blocks}


@torch.no_grad()
def dead_layers(network: DenoiseNetwork, noisy: Tensor, level: Tensor) -> list[str]:
    """Return the names of layers of the spatial core of which no channel is ever positive.

    Nothing brings them back, as no gradient passes, and what lies behind them computes constants.

    Args:
        network: The network.
        noisy: ``(N, 3, H, W)``, single frames.
        level: ``(N, 6, H/2, W/2)``, their noise level.
    """
    dead: list[str] = []

    def note(name: str, _layer: nn.Module, _inputs: object, out: Tensor) -> None:
        if out.max() <= 0:
            dead.append(name)

    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in before_relu(network.core).items()]
    try:
        network.still(noisy, level)
    finally:
        for hook in hooks:
            hook.remove()
    return dead
