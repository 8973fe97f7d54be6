"""Film grain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def noise(sigma: float = 0.05, blur: int = 1, seed: int = 0, shape: tuple[int, ...] = (1, 3, 128, 192)) -> Tensor:
    white = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    coarse = F.avg_pool2d(F.pad(white, (blur // 2,) * 4, mode="circular"), blur, stride=1) if blur > 1 else white
    return coarse / coarse.std() * sigma
