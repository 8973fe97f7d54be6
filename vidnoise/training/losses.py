"""Losses. All take ``(..., 3, H, W)`` in [0, 1] units and return one number per leading index or a scalar."""

from __future__ import annotations

from torch import Tensor

from ..evaluation.metrics import ssim_map


def charbonnier(error: Tensor, epsilon: float = 2e-3) -> Tensor:
    """Smooth L1 per clip: mean over all but the first axis."""
    return (error.square() + epsilon**2).sqrt().mean(tuple(range(1, error.ndim)))


def restoration(clean: Tensor, target: Tensor, kind: str) -> Tensor:
    """Per-clip loss of a batch ``(N, 3, H, W)``: ``charbonnier``, or ``l1_ssim`` (Zhao et al., arXiv:1511.08861)."""
    if kind == "charbonnier":
        return charbonnier(clean - target)
    l1 = (clean - target).abs().mean((1, 2, 3))
    return 0.84 * l1 + 0.16 * (1 - ssim_map(clean.float(), target.float())).mean((1, 2, 3))
