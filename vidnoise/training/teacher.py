"""Flow to learn from: a classic method's, on clean frames.

Clean neighbours are there in training only, and on them dense inverse search (Kroeger et al., ECCV 2016) finds
what the network has to find under noise. Photometric losses alone learn slowly: they see no further than the
slope of the picture.
"""

from __future__ import annotations

import itertools

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor


def teacher_flow(clean: Tensor) -> Tensor:
    """Flow from each frame but the first to the one before.

    Args:
        clean: ``(T, 3, H, W)`` in [0, 1].

    Returns:
        ``(T - 1, 2, H/2, W/2)``, in pixels at 1/2 resolution (Note [Flow convention] in ``model/flow.py``).
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [(f.mean(0).clamp(0, 1) * 255).round().byte().numpy() for f in clean]
    flows = [torch.from_numpy(search.calc(now, before, None)) for before, now in itertools.pairwise(gray)]  # type: ignore[call-overload]
    return F.avg_pool2d(torch.stack(flows).permute(0, 3, 1, 2), 2) / 2


def teacher_loss(flow: Tensor, target: Tensor) -> Tensor:
    """Robust end-point error, in pixels of the target's resolution; the power 0.6 forgives the teacher's own errors.

    Args:
        flow: ``(N, 2, h, w)``, at the target's resolution or a fraction of it.
        target: ``(N, 2, H, W)``.
    """
    scale = target.shape[-1] // flow.shape[-1]
    if scale > 1:
        target = F.avg_pool2d(target, scale) / scale
    distance = ((flow - target).square().sum(1) + 1e-4).sqrt() * scale
    return (distance + 0.01).pow(0.6).mean()
