"""Muon for convolution weights and AdamW for the rest, or AdamW alone.

Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon
(2024). AdamW: Loshchilov and Hutter, arXiv:1711.05101.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration."""


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix by Newton-Schulz (singular values 0.7 to 1.2); bfloat16 on GPUs.

    Args:
        matrices: ``(..., rows, columns)``.
        steps: Number of iterations.
    """
    a, b, c = _COEFFICIENTS
    # Most CPUs emulate bfloat16, which would take longer than the rest of a training step.
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(Optimizer):
    """SGD with momentum and orthogonalised updates, on weights reshaped to (outputs, inputs · k · k)."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Perform one update. All gradients must be present; a closure is not supported."""
        for group in self.param_groups:
            same: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}  # by shape, to batch operations on a GPU
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(group["momentum"]).add_(p.grad)
                update = p.grad + group["momentum"] * momentum  # Nesterov
                matrix = update.reshape(p.shape[0], -1)
                same.setdefault((matrix.shape[0], matrix.shape[1]), []).append((p, matrix))
            for (rows, columns), members in same.items():
                scale = max(1.0, rows / columns) ** 0.5
                updates = orthogonalise(torch.stack([matrix for _, matrix in members]))
                for (p, _), update in zip(members, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def make_optimizers(
    network: nn.Module, muon_lr: float, adam_lr: float, *, kind: str = "muon", weight_decay: float = 0.0
) -> list[Optimizer]:
    """Create the optimisers of a network's parameters.

    Args:
        network: Its parameters are split between the optimisers.
        muon_lr: Learning rate of Muon, for convolutions of 8 or more outputs that mix channels.
        adam_lr: Learning rate of AdamW, for biases, narrow heads and depthwise convolutions; for everything if ``kind``
            is ``adamw``.
        kind: ``muon`` or ``adamw``.
        weight_decay: Decay of the convolutions that Muon handles (or would handle), multiplied by the learning rate.
    """
    wide = [p for p in network.parameters() if p.ndim == 4 and p.shape[0] >= 8 and p.shape[1] > 1]
    chosen = {id(p) for p in wide}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    if kind == "adamw":
        groups = [{"params": wide, "weight_decay": weight_decay}, {"params": rest}]
        return [AdamW(groups, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)]
    return [Muon(wide, muon_lr, weight_decay=weight_decay), AdamW(rest, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)]
