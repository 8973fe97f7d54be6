"""Structural re-parameterisation: blocks that are wider in training than in the saved weights.

Each 3×3 convolution of a residual block gets a parallel 1×1 convolution and a per-channel identity. All are linear, so
their sum is one 3×3 convolution, which is saved: Ding et al., "RepVGG", arXiv:2101.03697; here without batch
normalisation, as everywhere in this network. The branches begin at zero, so that the network starts as the plain one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidnoise.errors import UsageError
from vidnoise.model.dncnn import ResidualBlock


class BranchedConv(nn.Module):
    """A 3×3 convolution with parallel branches, made from a plain one."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        self.full = plain
        self.point = nn.Conv2d(plain.in_channels, plain.out_channels, 1, bias=False)
        self.identity = nn.Parameter(torch.zeros(plain.out_channels))
        nn.init.zeros_(self.point.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.full(x) + self.point(x) + self.identity.view(1, -1, 1, 1) * x


def branch(network: nn.Module) -> None:
    """Add branches to the residual blocks, in place; the function of the network does not change.

    Raises:
        UsageError: There are no plain 3×3 convolutions to branch.
    """
    found = False
    for block in [m for m in network.modules() if isinstance(m, ResidualBlock)]:
        for name in ("conv1", "conv2"):
            layer = getattr(block, name)
            if isinstance(layer, nn.Conv2d):
                setattr(block, name, BranchedConv(layer))
                found = True
    if not found:
        raise UsageError("reparameterise needs residual blocks of plain convolutions (separable = false)")


def fold(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of a branched network to those of the plain one; other weights are passed through.

    Folding is linear, so the fold of an average is the average of the folds.
    """
    plain = dict(weights)
    for owner in [key.removesuffix(".identity") for key in weights if key.endswith(".identity")]:
        centre = plain.pop(f"{owner}.point.weight") + torch.diag(plain.pop(f"{owner}.identity"))[..., None, None]
        plain[f"{owner}.weight"] = plain.pop(f"{owner}.full.weight") + F.pad(centre, [1] * 4)
        plain[f"{owner}.bias"] = plain.pop(f"{owner}.full.bias")
    return plain
