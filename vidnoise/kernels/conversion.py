"""Frames to what the network reads, and what it made of them back onto their samples.

By :mod:`vidnoise.color`, or in one pass by :mod:`vidnoise.kernels` where there are kernels for the frame; the results
are the same but for the rounding of sums.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vidnoise.color import apply_correction, to_rgb
from vidnoise.frame import Frame
from vidnoise.kernels import enabled, takes


def _has_kernels(frame: Frame) -> bool:
    return takes(frame) and enabled(frame.planes[0].device)


def extended(rgb: Tensor, multiple: int) -> Tensor:
    """Extend to multiples to the right and bottom by reflection; pictures too small for that repeat their border."""
    height, width = rgb.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return rgb
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(rgb, [0, right, 0, bottom], mode=mode)


def to_network(frame: Frame, multiple: int, out: Tensor | None = None) -> Tensor:
    """The picture as the network sees it.

    Args:
        frame: of any format.
        multiple: of height and width, to which the picture is extended.
        out: memory of the right size, which may be used for the result.

    Returns:
        ``(1, 3, H, W)`` float32 RGB, centred, see :func:`vidnoise.color.to_rgb`, without NaN and infinities.
    """
    if _has_kernels(frame):
        from vidnoise.kernels.planes_in import to_rgb as fused

        return fused(frame, multiple, rgb=out)
    rgb = to_rgb(frame, centred=True)
    if frame.format.is_float:  # a sample that is no number stays one, but must not spread through the state
        rgb = rgb.nan_to_num(nan=0, posinf=1, neginf=0)
    return extended(rgb, multiple)


def from_network(frame: Frame, clean: Tensor, noisy: Tensor, strength: float) -> Frame:
    """``frame`` with ``(clean - noisy) * strength`` added to its samples.

    Args:
        frame: the noisy frame.
        clean, noisy: ``(1, 3, H, W)``, extended as :func:`to_network` gave the noisy one.
        strength: 0 changes nothing, bit for bit.
    """
    if _has_kernels(frame):
        from vidnoise.kernels.planes_out import apply_correction as fused

        return fused(frame, clean, noisy, strength)
    return apply_correction(frame, difference(frame, clean, noisy, strength), centred=True)


def difference(frame: Frame, clean: Tensor, noisy: Tensor, strength: float) -> Tensor:
    """The correction alone, ``(1, 3, H, W)`` of the frame's own size; see :func:`from_network`."""
    return (clean - noisy)[..., : frame.height, : frame.width] * strength


def add_correction(frame: Frame, correction: Tensor) -> Frame:
    """``frame`` with a correction of its own size added to its samples."""
    if _has_kernels(frame):
        from vidnoise.kernels.planes_out import apply_correction as fused

        return fused(frame, correction)
    return apply_correction(frame, correction, centred=True)
